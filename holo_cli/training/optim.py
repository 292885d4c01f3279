"""Muon for the matrices, AdamW for the rest, over parameters known by name.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum
by a nearly semi-orthogonal matrix, found with a few Newton-Schulz steps. Unlike `torch.optim.Muon`,
all matrices of one shape are orthogonalised as one batch (a tall matrix is transposed first), which
makes it cheap for small models, and fused projections are split into their matrices first, by
default down to those of each head. `training/orthogonal.py` has the arithmetic.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from holo_cli.config.training_schema import TrainingConfig
from holo_cli.models.base import LanguageModel
from holo_cli.training.orthogonal import orthogonalise
from holo_cli.training.sharded_tensors import is_sharded, part_from, whole_tensor

MOMENTUM = "momentum_buffer"
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


# torch wraps these to keep its compiler out of them, and imports it to do so: seconds at the start
# of every process that trains. No optimizer is compiled here.
_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
_adam_step = inspect.unwrap(torch.optim.Adam.step)


class OrthogonalRule(NamedTuple):
    """How updates are orthogonalised, the same for all matrices of a run."""

    steps: int
    by_head: bool
    dtype: torch.dtype

    def splits(self, p: nn.Parameter) -> int:
        """Matrices stacked along the rows of a parameter."""
        heads: int = getattr(p, "heads", 1) if self.by_head else 1
        return getattr(p, "splits", 1) * heads

    def shape(self, p: nn.Parameter) -> tuple[int, int]:
        """(rows, columns) of each matrix of a parameter."""
        return p.shape[0] // self.splits(p), p.shape[1]

    def scale(self, p: nn.Parameter) -> float:
        """Factor of a parameter's update: tall matrices move further (Jordan et al. 2024)."""
        rows, columns = self.shape(p)
        return max(1.0, rows / columns) ** 0.5


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay over 2-D parameters.

    One step with learning rate lr:

        m <- momentum m + (1 - momentum) g;  u = orthogonalise(lerp(g, m, momentum))
        w <- w (1 - lr decay) - lr sqrt(max(1, rows / columns)) u

    A parameter with an attribute `splits` is that many matrices, stacked along its rows; with
    `by_head` each of them is as many again as its attribute `heads` says. Orthogonalisation takes
    `steps` products (3 or 5, see `orthogonalise`) and computes in `dtype`. Parameter groups have
    `lr`, `momentum`, `weight_decay`; the state of a parameter is its `momentum_buffer`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
        steps: int = 5,
        by_head: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.rule = OrthogonalRule(steps, by_head, dtype)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p][MOMENTUM] = torch.zeros_like(p)

    add_param_group = _add_param_group

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update; a parameter without a gradient counts as one with a gradient of zeros."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameters in _by_shape(group["params"], self.rule):
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[nn.Parameter], group: Mapping[str, Any]) -> None:
        momentum = group["momentum"]
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        moments = [self.state[p][MOMENTUM] for p in parameters]
        torch._foreach_lerp_(moments, grads, 1 - momentum)
        nesterov = torch._foreach_lerp(grads, moments, momentum)
        updates = _orthogonal(nesterov, parameters, self.rule)
        for p, update in zip(parameters, updates, strict=True):
            apply_update(p, p, update, group, self.rule)


def _orthogonal(
    matrices: Sequence[Tensor], parameters: Sequence[nn.Parameter], rule: OrthogonalRule
) -> list[Tensor]:
    """Updates, shaped like their parameters, whose matrices have one shape up to transposition."""
    splits = [rule.splits(p) for p in parameters]
    batch = torch.cat([_as_batch(u, n) for u, n in zip(matrices, splits, strict=True)])
    parts = orthogonalise(batch, rule.steps, rule.dtype).split(splits)
    found = []
    for p, update in zip(parameters, parts, strict=True):
        rows, columns = rule.shape(p)
        found.append((update.mT if rows > columns else update).reshape(p.shape))
    return found


def orthogonal_updates(
    matrices: Sequence[Tensor], parameters: Sequence[nn.Parameter], rule: OrthogonalRule
) -> list[Tensor]:
    """The same for matrices of any shapes, which are those of their parameters."""
    place = {id(p): n for n, p in enumerate(parameters)}
    found: dict[int, Tensor] = {}
    for same in _by_shape(parameters, rule):
        numbers = [place[id(p)] for p in same]
        done = _orthogonal([matrices[n] for n in numbers], same, rule)
        found |= dict(zip(numbers, done, strict=True))
    return [found[n] for n in range(len(parameters))]


def apply_update(
    p: nn.Parameter, held: Tensor, update: Tensor, group: Mapping[str, Any], rule: OrthogonalRule
) -> None:
    """Decay and Muon's update of a parameter, in place in `held`: it, or the rows of it that this
    process has."""
    lr, decay = group["lr"], group["weight_decay"]
    if decay:
        held.mul_(1 - lr * decay)
    held.add_(update.to(held.dtype), alpha=-lr * rule.scale(p))


def _by_shape(parameters: Iterable[nn.Parameter], rule: OrthogonalRule) -> list[list[nn.Parameter]]:
    """The parameters whose matrices have one shape, up to transposition, together."""
    # sorted by scale inside a shape, in order of appearance: the order of a batch decides its bits
    groups: dict[tuple[int, int], dict[float, list[nn.Parameter]]] = defaultdict(dict)
    for p in parameters:
        rows, columns = rule.shape(p)
        scales = groups[min(rows, columns), max(rows, columns)]
        scales.setdefault(rule.scale(p), []).append(p)
    return [[p for same in scales.values() for p in same] for scales in groups.values()]


def _as_batch(update: Tensor, splits: int) -> Tensor:
    """(splits * r, c) -> (splits, min(r, c), max(r, c))."""
    batch = update.view(splits, -1, update.shape[1])
    return batch.mT if batch.shape[1] > batch.shape[2] else batch


def _muon_for(p: nn.Parameter) -> type[Muon]:
    if not is_sharded(p):
        return Muon
    from holo_cli.training.sharded_muon import ShardedMuon

    return ShardedMuon


class AdamW(torch.optim.AdamW):
    """torch's AdamW, without the import of its compiler."""

    add_param_group = _add_param_group

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update."""
        found: float | None = _adam_step(self, closure)
        return found


class Optimizer:
    """The optimizer of a run: Muon and AdamW, or AdamW alone, as the config says.

    `set_lr` sets every learning rate to its peak times a multiplier. All state is tensors by
    parameter name, for the checkpoint.
    """

    def __init__(self, model: LanguageModel, config: TrainingConfig, fast_bf16: bool) -> None:
        self.config, self.fast_bf16 = config, fast_bf16
        matrices = model.matrices() if config.optimizer == "muon" else {}
        rest = {n: p for n, p in model.named_parameters() if n not in matrices}  # tied: once
        # Under AdamW alone matrices decay; beside Muon nothing that AdamW holds does.
        decayed = {n: p for n, p in rest.items() if config.optimizer == "adamw" and p.ndim >= 2}
        kept = {n: p for n, p in rest.items() if n not in decayed}
        groups = [
            {"params": same, "weight_decay": decay}
            for named, decay in ((decayed, config.weight_decay), (kept, 0.0))
            for same in _apart(named)
        ]
        self.adam = AdamW(
            groups,
            lr=config.adam_lr if config.optimizer == "muon" else config.lr,
            betas=(config.beta1, config.beta2),
            fused=model.device.type in ("cpu", "cuda", "mps"),
        )
        self.parts: dict[str, torch.optim.Optimizer] = {"adam": self.adam}
        if matrices:
            dtype = torch.bfloat16 if fast_bf16 else torch.float32
            kind = _muon_for(next(iter(matrices.values())))
            muon = kind(
                matrices.items(), config.lr, config.momentum, config.weight_decay, dtype,
                config.muon_steps, config.muon_heads,
            )  # fmt: skip
            self.parts = {"muon": muon, "adam": self.adam}
        for part in self.parts.values():
            for group in part.param_groups:
                group["initial_lr"] = group["lr"]

    def set_lr(self, multiplier: float) -> None:
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = group["initial_lr"] * multiplier

    def step(self) -> None:
        for part in self.parts.values():
            part.step()

    def for_grown_model(self, model: LanguageModel, names: Mapping[str, str | None]) -> Optimizer:
        """An optimizer for a grown model.

        `names` maps each of its parameters to the one here whose moments it continues, or to None
        for a fresh start: no momentum, and AdamW's bias correction from its first step on.
        """
        grown = Optimizer(model, self.config, self.fast_bf16)
        state = grown.state_tensors()  # Muon's buffers, zero before any step
        old = self.state_tensors()
        for name, was in names.items():
            for key in (f"muon/{{}}/{MOMENTUM}", *(f"adam/{{}}/{k}" for k in ADAM_STATE)):
                if was is not None and key.format(was) in old:
                    state[key.format(name)] = old[key.format(was)]
        grown.load_state_tensors(state)
        return grown

    # -- the checkpoint's view --------------------------------------------------------------------

    def _entries(self) -> Iterator[tuple[str, nn.Parameter, torch.optim.Optimizer]]:
        """Every parameter as ("muon/NAME" or "adam/NAME", parameter, its optimizer)."""
        for kind, part in self.parts.items():
            for group in part.param_groups:
                for name, p in zip(group["param_names"], group["params"], strict=True):
                    yield f"{kind}/{name}", p, part

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state: `muon/NAME/momentum_buffer`, `adam/NAME/exp_avg`, ..."""
        return {
            f"{entry}/{key}": value
            for entry, p, part in self._entries()
            for key, value in part.state.get(p, {}).items()
        }

    def state_shapes(self) -> dict[str, torch.Size]:
        """The shape of every tensor that the state can have, by the names of `state_tensors`."""
        scalar = torch.Size()
        return {
            f"{entry}/{key}": scalar if key == "step" else p.shape
            for entry, p, part in self._entries()
            for key in ((MOMENTUM,) if isinstance(part, Muon) else ADAM_STATE)
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state_tensors`. A missing momentum raises KeyError and a shape that does
        not fit RuntimeError; the checkpoint reader turns both into one sentence."""
        for entry, p, part in self._entries():
            if isinstance(part, Muon):
                moment = part.state[p][MOMENTUM]
                moment.copy_(part_from(tensors, f"{entry}/{MOMENTUM}", moment))
                continue
            found = [key for key in ADAM_STATE if f"{entry}/{key}" in tensors]
            if found and len(found) < len(ADAM_STATE):
                raise RuntimeError(f"a part of the moments of {entry} is missing")
            if found:
                part.state[p] = {
                    key: tensors[f"{entry}/{key}"].to(p.device, torch.float32).clone()
                    if key == "step"
                    else part_from(tensors, f"{entry}/{key}", p).clone()
                    for key in found
                }
            if any(part.state[p][key].shape != p.shape for key in found if key != "step"):
                raise RuntimeError(f"the moments of {entry} have another shape than the parameter")


def _apart(named: Mapping[str, nn.Parameter]) -> list[list[tuple[str, nn.Parameter]]]:
    """Named parameters without those that are not sharded among sharded ones, and these: one update
    takes no mixture."""
    parts = [[(n, p) for n, p in named.items() if is_sharded(p) == kind] for kind in (False, True)]
    return [part for part in parts if part]


def clip_grad_norm(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Norm of all gradients together, a scalar; above `limit` (0: off) they are scaled down."""
    with_grad = [p for p in parameters if p.grad is not None]
    kinds: dict[bool, list[nn.Parameter]] = {}
    for p in with_grad:  # sharded ones, and those that every process holds whole
        kinds.setdefault(is_sharded(p), []).append(p)
    norms = [
        whole_tensor(torch.nn.utils.get_total_norm([p.grad for p in same if p.grad is not None]))
        for same in kinds.values()
    ]
    norm = norms[0] if len(norms) == 1 else torch.nn.utils.get_total_norm(norms)
    if limit > 0:
        for same in kinds.values():
            torch.nn.utils.clip_grads_with_norm_(same, limit, norm)
    return norm
