"""Attention among selected tokens, added to the state space's output.

    s_t = w.u_t / |w|                       one score per token, of variance near 1
    selected: s_t > theta and within capacity (`selection.py`)
    out_t = sigmoid(s_t - theta) W_o attention_t   for selected t, else 0

Queries, keys and values are computed for selected tokens only; with a tenth of the tokens attention
among them costs a hundredth. They keep their own positions (RoPE by the real distance). The factor
lets the scorer learn: a token whose attention helps is scored higher. theta is a parameter: a term
of value 0 gives it the gradient of the quantile loss, share - (share that passed), so that resuming
is exact and evaluation changes nothing. That theta trails the scores, and one theta does not suit
the scores of every language: evaluation and decoding add `shift`, a number per language that
`calibration.py` sets on held-out text and that training never reads.
Legend: B rows, S positions, C width, H heads, d = C / H, N selected tokens, K the most in a row, L
languages with a marker; slot 0 is text before any marker, 1 .. L the text after one.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from holo_cli.layers.causal import causal_attention
from holo_cli.layers.gain import QueryGain
from holo_cli.layers.interfaces import NOTHING, Aux, Extras, Mixer
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.positions import most
from holo_cli.layers.precision import wide
from holo_cli.layers.rope import Rope
from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.selection import PackedCache, Selected, StaticPacked, capacity

THRESHOLD_SCALE = 4.0  # theta / parameter: theta must follow the scores as they drift


class SelectiveAttention(Mixer):
    """Multi-head causal attention of selected tokens among themselves. Its side stream is the
    language slot of each token, (B, S) int64, or None where no token has one."""

    takes_extras: ClassVar[bool] = True
    shift: Tensor | None

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.share, self.heads = config.attention_share, config.heads
        self.head_width = config.head_width
        self.scorer = nn.Parameter(torch.empty(width))  # w
        self.threshold = nn.Parameter(torch.empty(1))  # theta / THRESHOLD_SCALE
        slots = 1 + len(config.language_tokens)
        shift = torch.zeros(slots) if config.attention_calibrated else None
        self.register_buffer("shift", shift)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.qkv.weight.splits = 3  # type: ignore[attr-defined]
        self.qkv.weight.heads = config.heads  # type: ignore[attr-defined]
        self.out = nn.Linear(width, width, bias=False)
        self.gain = QueryGain(config.heads) if config.query_gain else None
        self.rope = Rope(self.head_width, config.rope_base, config.rope_fraction)

    def finish_initialisation(self) -> None:
        """Theta starts at the quantile of a normal distribution; below all scores for share 1."""
        nn.init.normal_(self.scorer)
        nn.init.zeros_(self.out.weight)
        first = NormalDist().inv_cdf(1 - self.share) if self.share < 1 else -8.0
        nn.init.constant_(self.threshold, first / THRESHOLD_SCALE)

    def margin(self, u: Tensor, slots: Tensor | None = None) -> Tensor:
        """(B, S, C) and the language slot of each token, (B, S) -> s - theta, (B, S), float32 at
        least; above 0 a token passes. Without slots all are 0."""
        w = self.scorer.to(wide(u.dtype))
        score = (u.to(w.dtype) * (w / w.norm())).sum(-1)
        margin = score - (THRESHOLD_SCALE * self.threshold.detach()).to(w.dtype)
        if self.training or self.shift is None:
            return margin
        return margin - self.shift.to(w.dtype)[0 if slots is None else slots]

    def selected(self, u: Tensor, slots: Tensor | None = None) -> Selected:
        """The selected tokens of whole sequences (B, T, C)."""
        return Selected.of(self.margin(u, slots) > 0, self.share)

    def forward(self, u: Tensor, extras: Extras = NOTHING) -> tuple[Tensor, Aux]:
        margin = self.margin(u, extras.side)
        passes = margin > 0
        # rows differ in how many are selected: shorter ones are padded at the end, which causal
        # attention ignores
        if torch.compiler.is_compiling():  # shapes may not depend on the data
            chosen = Selected.padded(passes, self.share)
            longest = max(1, capacity(u.shape[1], self.share))
        else:
            chosen = Selected.of(passes, self.share)
            longest = max(1, int(chosen.count.max()))
        q, k, v = self.project(u, chosen)
        at = (chosen.row, chosen.slot)
        q, k, v = (_padded(t, at, u.shape[0], longest) for t in (q, k, v))
        y = causal_attention(q, k, v).transpose(1, 2)[at]
        passed = passes.to(self.threshold.dtype).mean()
        term = ((self.threshold - self.threshold.detach()) * (self.share - passed)).sum()
        return self._output(u, y, margin, chosen), {"selection": term}

    def step(self, u: Tensor, state: Any, extras: Extras = NOTHING) -> tuple[Tensor, Any]:
        if isinstance(state, StaticPacked):
            return self._static_step(u, state, extras)
        return self._packed_step(u, state, extras)

    def _static_step(
        self, u: Tensor, state: StaticPacked, extras: Extras
    ) -> tuple[Tensor, StaticPacked]:
        """One token of each row in shapes that do not depend on which are selected: every row's is
        computed, and what is not selected is multiplied by zero and not remembered."""
        margin = self.margin(u, extras.side)[:, 0]
        taken, before = state.takes(margin > 0), state.count
        qkv = self.qkv(u[:, 0]).view(-1, 3 * self.heads, self.head_width)
        at = state.position
        q, k, v = self._finished(qkv, at.of_rows, at.most + 1)
        state = state.append(taken, k, v)
        slots = torch.arange(state.keys.shape[2], device=u.device)
        seen = (slots <= before[:, None])[:, None, None]  # itself too
        y = causal_attention(q[:, :, None], state.keys, state.values, seen=seen)
        strength = margin.sigmoid() * taken
        y = self.out(y.flatten(1))
        return (y * strength[:, None].to(y.dtype))[:, None], state

    def _packed_step(
        self, u: Tensor, state: PackedCache, extras: Extras
    ) -> tuple[Tensor, PackedCache]:
        margin = self.margin(u, extras.side)
        start, end, before = state.position, state.position + u.shape[1], state.count
        size = capacity(most(end), self.share)
        # most tokens are not selected: of one, that is known before anything is packed
        single = u.shape[1] == 1 and isinstance(end, int)
        if single and not bool(((margin[:, 0] > 0) & (before < size)).any()):
            return torch.zeros_like(u), state.passed(end, size)
        chosen = Selected.of(margin > 0, self.share, start, before)
        q, k, v = self.project(u, chosen)
        state = state.append(chosen, k, v, end, size)
        if chosen.flat.numel() == 0:
            return torch.zeros_like(u), state
        index = chosen.slot - before[chosen.row]  # among the selected of this step
        at, count = (chosen.row, index), int(index.max()) + 1
        slot = _padded(chosen.slot[:, None, None], at, u.shape[0], count)  # (B, 1, K, 1)
        seen = torch.arange(state.keys.shape[2], device=u.device) <= slot  # (B, 1, K, R)
        q = _padded(q, at, u.shape[0], count)
        y = nn.functional.scaled_dot_product_attention(q, state.keys, state.values, attn_mask=seen)
        return self._output(u, y.transpose(1, 2)[at], margin, chosen), state

    def project(self, u: Tensor, chosen: Selected) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, C) -> q, k, v of the selected tokens, each (N, H, d)."""
        qkv = self.qkv(u.flatten(0, 1)[chosen.flat]).view(-1, 3 * self.heads, self.head_width)
        return self._finished(qkv, chosen.position, chosen.end)

    def _finished(self, qkv: Tensor, position: Tensor, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3H, d) of tokens at positions (N,) before `end` -> q, k, v, each (N, H, d)."""
        qk, v = qkv.split((2 * self.heads, self.heads), dim=1)
        q, k = self._rotate(rms_norm(qk), position, end).chunk(2, dim=1)
        if self.gain is not None:
            q = q * self.gain.gains()[:, None].to(q.dtype)
        return q, k, v

    def _rotate(self, x: Tensor, position: Tensor, end: int) -> Tensor:
        """x (N, K, d) rotated by each token's own position, (N,), all before `end`."""
        if self.rope.rotated == 0:
            return x
        cos, sin = (t[position] for t in self.rope.tables(0, end, x))
        return torch.addcmul(x * cos, x.roll(self.rope.pairs, dims=-1), sin)

    def _output(self, u: Tensor, y: Tensor, margin: Tensor, chosen: Selected) -> Tensor:
        """y (N, H, d) -> output (B, S, C), zero for tokens that are not selected."""
        strength = margin.flatten()[chosen.flat].sigmoid()
        y = self.out(y.flatten(1)) * strength[:, None].to(y.dtype)
        out = u.new_zeros(u.shape[0] * u.shape[1], u.shape[2], dtype=y.dtype)
        if chosen.real is None:
            return out.index_put((chosen.flat,), y).view_as(u)
        # padding shares the place of the last position, to which it adds nothing
        return out.index_add(0, chosen.flat, y * chosen.real[:, None].to(y.dtype)).view_as(u)

    @property
    def mixed_lengths(self) -> bool:
        return True

    def init_state(self, batch: int) -> PackedCache:
        w = self.out.weight
        empty = w.new_zeros(batch, self.heads, 0, self.head_width)
        none = torch.zeros(batch, dtype=torch.int64, device=w.device)
        return PackedCache(empty, empty, none, 0, self.share)

    def state_bytes(self, length: int) -> int:
        w = self.out.weight
        return 2 * capacity(length, self.share) * w.shape[1] * w.element_size() + 8

    def active_parameters(self) -> int:
        """Matrices count by the share of the tokens that use them."""
        matrices = self.qkv.weight.numel() + self.out.weight.numel()
        gains = self.heads if self.gain is not None else 0
        return round(self.share * matrices) + self.scorer.numel() + 1 + gains

    def flops(self, length: float) -> float:
        """Selected tokens attend to selected tokens."""
        return 4.0 * self.share * math.ceil(self.share * length) * self.out.in_features


def _padded(t: Tensor, at: tuple[Tensor, Tensor], rows: int, most: int) -> Tensor:
    """(N, H, ...) of selected tokens -> (B, H, K, ...), at their row and index, zero elsewhere."""
    return t.new_zeros(rows, most, *t.shape[1:]).index_put(at, t).transpose(1, 2)
