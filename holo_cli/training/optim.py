"""Muon for the matrices, AdamW for the rest, over parameters known by name.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest semi-orthogonal matrix, found
with a few Newton-Schulz steps. Unusual here: all matrices of one shape are orthogonalised together
as one batch (wide and tall ones too: a tall matrix is worked on transposed), which is what makes it
cheap for small models; fused projections are split into their matrices first.
`torch.optim.Muon` is the slow reference that the tests hold this against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from holo_cli.config.training_schema import TrainingConfig
from holo_cli.models.base import LanguageModel

# x <- a x + b (x x^T) x + c (x x^T)^2 x, tuned for the steepest slope at zero (Jordan et al. 2024)
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


def orthogonalise(matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N, r, c) with r <= c -> nearly semi-orthogonal matrices of the same shape, in `dtype`.

    Singular values land in about [0.7, 1.2], which is all that Muon needs.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    return x


class Muon:
    """Muon with Nesterov momentum and decoupled weight decay over named 2-D parameters.

    One step with rate lr: m <- momentum m + (1 - momentum) g; u = orthogonalise(lerp(g, m));
    w <- w (1 - lr decay) - lr sqrt(max(1, rows / columns)) u.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], momentum: float, weight_decay: float
    ) -> None:
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.lr = 0.0
        self.dtype = torch.float32
        self.parameters = dict(parameters)
        self.buffers = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        groups: dict[tuple[int, int, float], list[str]] = {}
        for name, p in self.parameters.items():
            rows, columns = p.shape[0] // getattr(p, "splits", 1), p.shape[1]
            scale = max(1.0, rows / columns) ** 0.5
            groups.setdefault((min(rows, columns), max(rows, columns), scale), []).append(name)
        # several scales may share a shape: they still go through one batch
        shapes: dict[tuple[int, int], list[tuple[str, float]]] = {}
        for (small, large, scale), names in groups.items():
            shapes.setdefault((small, large), []).extend((name, scale) for name in names)
        self.shapes = list(shapes.values())

    @torch.no_grad()
    def step(self) -> None:
        for members in self.shapes:
            names = [name for name, _ in members]
            parameters = [self.parameters[n] for n in names]
            grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            moments = [self.buffers[n] for n in names]
            torch._foreach_lerp_(moments, grads, 1 - self.momentum)
            ahead = torch._foreach_lerp(grads, moments, self.momentum)
            stacked = torch.cat(
                [self._as_batch(u, p) for u, p in zip(ahead, parameters, strict=True)]
            )
            ortho = orthogonalise(stacked, dtype=self.dtype)
            at = 0
            for p, (_, scale) in zip(parameters, members, strict=True):
                splits = getattr(p, "splits", 1)
                update = ortho[at : at + splits]
                at += splits
                if p.shape[0] // splits > p.shape[1]:
                    update = update.mT
                if self.weight_decay:
                    p.mul_(1 - self.lr * self.weight_decay)
                p.add_(update.reshape(p.shape).to(p.dtype), alpha=-self.lr * scale)

    @staticmethod
    def _as_batch(update: Tensor, p: nn.Parameter) -> Tensor:
        """(splits * r, c) -> (splits, min, max)."""
        batch = update.view(getattr(p, "splits", 1), -1, update.shape[1])
        return batch.mT if batch.shape[1] > batch.shape[2] else batch


class Optimizer:
    """The optimizer of a run: Muon + AdamW, or AdamW alone, as the config says.

    `set_lr` sets every learning rate to its peak times a multiplier. All state is
    tensors by parameter name, for the checkpoint.
    """

    def __init__(self, model: LanguageModel, config: TrainingConfig, fast_bf16: bool) -> None:
        self.config, self.fast_bf16 = config, fast_bf16
        named = dict(model.named_parameters())  # a tied matrix appears once
        matrices = model.matrices() if config.optimizer == "muon" else {}
        rest = {name: p for name, p in named.items() if name not in matrices}
        self.muon = Muon(matrices, config.momentum, config.weight_decay) if matrices else None
        if self.muon is not None and fast_bf16:
            self.muon.dtype = torch.bfloat16
        self.names = list(rest)
        adam_lr = config.adam_lr if config.optimizer == "muon" else config.lr
        decay = [rest[n] for n in self.names if self._decays(n, rest[n], config)]
        keep = [rest[n] for n in self.names if not self._decays(n, rest[n], config)]
        groups = [
            {"params": decay, "weight_decay": config.weight_decay},
            {"params": keep, "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=adam_lr,
            betas=(config.beta1, config.beta2),
            fused=model.device.type in ("cpu", "cuda", "mps"),
        )
        self.rest = rest
        self.peak = (config.lr, adam_lr)

    @staticmethod
    def _decays(name: str, p: nn.Parameter, config: TrainingConfig) -> bool:
        """Under AdamW alone matrices decay; beside Muon nothing that AdamW holds does."""
        return config.optimizer == "adamw" and p.ndim >= 2

    def set_lr(self, multiplier: float) -> None:
        if self.muon is not None:
            self.muon.lr = self.peak[0] * multiplier
        for group in self.adam.param_groups:
            group["lr"] = self.peak[1] * multiplier

    def step(self) -> None:
        if self.muon is not None:
            self.muon.step()
        self.adam.step()

    def carried_to(self, model: LanguageModel, names: Mapping[str, str | None]) -> Optimizer:
        """An optimizer for a grown model.

        `names` maps each of its parameters to the one here whose moments it goes on with, or to
        None for a fresh start: no momentum, and AdamW's bias correction from its first step on.
        """
        grown = Optimizer(model, self.config, self.fast_bf16)
        old = self.state_tensors()
        carried: dict[str, Tensor] = {}
        for name, was in names.items():
            if was is None:
                continue
            for key in ("muon/{}", *(f"adam/{{}}/{k}" for k in ADAM_STATE)):
                if key.format(was) in old:
                    carried[key.format(name)] = old[key.format(was)]
        for key, fresh in grown.state_tensors().items():  # Muon's buffers, zero before any step
            carried.setdefault(key, fresh)
        grown.load_state_tensors(carried)
        return grown

    # -- the checkpoint's view --------------------------------------------------------------------

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state: `muon/NAME`, `adam/NAME/exp_avg`, `.../exp_avg_sq`, `step`."""
        out: dict[str, Tensor] = {}
        if self.muon is not None:
            out |= {f"muon/{name}": t for name, t in self.muon.buffers.items()}
        for name, p in self.rest.items():
            for key, value in self.adam.state.get(p, {}).items():
                out[f"adam/{name}/{key}"] = value
        return out

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state_tensors`; a name or shape that does not fit raises KeyError or
        RuntimeError, which the checkpoint reader turns into its own sentence."""
        if self.muon is not None:
            for name, buffer in self.muon.buffers.items():
                buffer.copy_(tensors[f"muon/{name}"])
        for name, p in self.rest.items():
            keys = [k for k in ADAM_STATE if f"adam/{name}/{k}" in tensors]
            if keys:
                self.adam.state[p] = {
                    k: tensors[f"adam/{name}/{k}"].clone().to(p.device) for k in keys
                }


def clip_grad_norm(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Norm of all gradients together, a scalar; above `limit` (0: off) they are scaled down."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads, foreach=None)
    if limit > 0:
        torch.nn.utils.clip_grads_with_norm_(
            [p for p in parameters if p.grad is not None], limit, norm
        )
    return norm
