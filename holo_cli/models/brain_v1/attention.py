"""Attention whose heads are gated by dendrites, and optionally by its largest weights only.

Dendrites (active dendrites, Iyer et al. 2022, here per head): each head has D dendrites, vectors
u_j in the space of the stream. With c_t the mean of the layer's inputs up to t,

    y_h  <-  y_h * 2 sigma(u_h,j* . c_t),     j* the dendrite of the largest |u_h,j . c_t|

so that context passes a head on or suppresses it. The factor 2 (which the output projection could
absorb) makes the gate start near 1.

`attention_top`: in evaluation and decoding a token keeps its largest attention weights,
ceil(share of the tokens it can see), normalized by their sum; training keeps all. All weights are
computed to choose from, so it saves no time; it measures how few would be enough.

Legend: B rows, T positions, S positions of a step, C width, H heads, d = C / H, D dendrites.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from holo_cli.layers.cache import KVCache
from holo_cli.layers.causal import causal_attention
from holo_cli.layers.interfaces import NOTHING, Aux, Extras
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.positions import following
from holo_cli.layers.precision import wide
from holo_cli.layers.state import DataState
from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.sparsity_2_4 import Sparse24Linear
from holo_cli.models.vanilla.attention import Attention

DENDRITE_STD = 0.1  # initial standard deviation of u . c for c of unit scale


@dataclass(frozen=True)
class AttentionState(DataState):
    """Keys and values, and the sum of all inputs so far, (B, C); (B, 0) without dendrites."""

    past: KVCache
    total: Tensor


class BrainAttention(Attention):
    """Causal attention whose heads are gated by their dendrites."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.two_four == "all":
            self.qkv = Sparse24Linear(config.width, 3 * config.width)
            self.qkv.weight.splits = 3  # type: ignore[attr-defined]
            self.qkv.weight.heads = config.heads  # type: ignore[attr-defined]
            self.out = Sparse24Linear(config.width, config.width)
        self.width, self.top, self.per_head = config.width, config.attention_top, config.dendrites
        self.dendrites: nn.Linear | None = None
        if config.dendrites:
            self.dendrites = nn.Linear(config.width, config.heads * config.dendrites, bias=False)
            self.dendrites.weight.no_muon = True  # type: ignore[attr-defined]

    def finish_initialisation(self) -> None:
        super().finish_initialisation()
        if self.dendrites is not None:
            nn.init.normal_(self.dendrites.weight, std=DENDRITE_STD * self.width**-0.5)

    # -- training ---------------------------------------------------------------------------------

    def forward(self, x: Tensor, extras: Extras = NOTHING) -> tuple[Tensor, Aux]:
        y = self._attend(*self._project(x, 0, extras))
        if self.dendrites is not None:
            y = y * self._gate(running_mean(x))
        return self._join(y), {}

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
        """q (B, H, S, d), k and v (B, H, L, d) -> (B, H, S, d); `seen` as in `causal_attention`."""
        if self.training or self.top == 1:
            return causal_attention(q, k, v, seen=seen)
        return keep_largest(causal_weights(q, k), self.top).to(v.dtype) @ v

    def _gate(self, context: Tensor) -> Tensor:
        """Running means (B, S, C) -> the factor of each head, (B, H, S, 1)."""
        assert self.dendrites is not None
        activation = self.dendrites(context).unflatten(
            2, (self.heads, self.per_head)
        )  # (B, S, H, D)
        strongest = activation.detach().abs().argmax(3, keepdim=True)
        return 2 * torch.sigmoid(activation.gather(3, strongest)).transpose(1, 2)

    # -- decoding ---------------------------------------------------------------------------------

    @property
    def mixed_lengths(self) -> bool:
        return self.top == 1  # a share of the weights is one of a row's own length

    def step_obstacle(self) -> str | None:
        if self.mixed_lengths:
            return None
        return "model.attention_top keeps a number of weights that grows with the text"

    def init_state(self, batch: int) -> AttentionState:  # type: ignore[override]
        w = self.out.weight
        size = self.width if self.dendrites is not None else 0
        return AttentionState(
            KVCache(), torch.zeros(batch, size, dtype=wide(w.dtype), device=w.device)
        )

    def step(  # type: ignore[override]
        self, x: Tensor, state: AttentionState, extras: Extras = NOTHING
    ) -> tuple[Tensor, AttentionState]:
        q, k, v = self._project(x, state.past.length, extras)
        past = state.past.append(k, v)
        k, v = past.views()
        y = self._attend(q, k, v, past.seen())
        total = state.total
        if self.dendrites is not None:
            sums = total[:, None] + x.to(total.dtype).cumsum(1)  # (B, S, C)
            seen = following(state.past.length + 1, x.shape[1], x.device).to(sums.dtype)
            y = y * self._gate((sums / seen[..., None]).to(x.dtype))
            total = sums[:, -1]
        return self._join(y), AttentionState(past, total)

    def append_to_cache(
        self, x: Tensor, state: AttentionState, extras: Extras = NOTHING
    ) -> AttentionState:
        """The state after x (B, S, C) for tokens that need no output here: keys and values only,
        without queries, attention or output projection."""
        batch, length, _ = x.shape
        if self.canon is None:
            weight = self.qkv.weight
            if isinstance(self.qkv, Sparse24Linear):
                weight = self.qkv.effective()
            kv = nn.functional.linear(x, weight[self.width :])
            kv = kv.view(batch, length, 2 * self.heads, -1)
            k = self.rope(rms_norm(kv[:, :, : self.heads]), state.past.length).transpose(1, 2)
            v = extras.values(kv[:, :, self.heads :]).transpose(1, 2)
        else:  # the convolution's window includes queries
            _, k, v = self._project(x, state.past.length, extras)
        total = state.total
        if self.dendrites is not None:
            total = total + x.to(total.dtype).sum(1)
        return AttentionState(state.past.append(k, v), total)

    def state_bytes(self, length: int) -> int:
        size = self.out.weight.element_size()
        context = self.width * max(size, 4) if self.dendrites is not None else 0
        return super().state_bytes(length) + context

    def weights(self, x: Tensor) -> Tensor:
        """(B, T, C) -> attention weights (B, H, T, T), as evaluation uses them."""
        q, k, _ = self._project(x, 0)
        weights = causal_weights(q, k)
        return weights if self.top == 1 else keep_largest(weights, self.top)


def running_mean(x: Tensor) -> Tensor:
    """(B, T, C) -> the mean of positions 0 .. t at each t, summed in float32 at least."""
    seen = torch.arange(1, x.shape[1] + 1, dtype=wide(x.dtype), device=x.device)
    return (x.to(seen.dtype).cumsum(1) / seen[:, None]).to(x.dtype)


def causal_weights(q: Tensor, k: Tensor) -> Tensor:
    """Softmax weights of the last S of L positions, (B, H, S, d), (B, H, L, d) -> (B, H, S, L)."""
    length, total = q.shape[2], k.shape[2]
    dtype = wide(q.dtype)
    score = q.to(dtype) @ k.to(dtype).mT * q.shape[3] ** -0.5
    past = torch.ones(length, total, dtype=torch.bool, device=q.device).tril(total - length)
    return score.masked_fill(~past, float("-inf")).softmax(-1)


def keep_largest(weights: Tensor, share: float) -> Tensor:
    """The largest ceil(share x visible) weights of each row, divided by their sum; others zero.

    (..., S, L): row s of S sees the first L - S + s + 1 of the L positions.
    """
    length, total = weights.shape[-2:]
    # on the host in float64: in float32 0.1 x 10 would be more than 1
    visible = torch.arange(total - length + 1, total + 1, dtype=torch.float64)
    keep = (visible * share - 1e-9).ceil().long().clamp_min(1).to(weights.device)  # (S,)
    order = weights.argsort(dim=-1, descending=True, stable=True)
    rank = torch.arange(total, device=weights.device)
    kept = torch.zeros_like(weights).scatter(
        -1, order, (rank < keep[:, None]).to(weights.dtype).expand_as(weights)
    )
    left = weights * kept
    return left / left.sum(-1, keepdim=True)
