"""Attention over the last `window` tokens and the first `sinks` tokens of a text.

vanilla's attention (`models/vanilla/attention.py`) with a bounded view. The first tokens stay
visible because trained attention uses them as sinks for surplus weight; without them quality
collapses once they leave the window (Xiao et al. 2023, arXiv 2309.17453). Unlike that paper, which
numbers positions inside the cache, every key
keeps the absolute position it was trained at, sinks too, so training and decoding are the same
function. Legend: B rows, T positions, n positions seen, W window, S sinks, H heads, d = C / H.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.layers.causal import causal_attention
from holo_cli.layers.interfaces import NOTHING, Aux, Extras
from holo_cli.layers.positions import Positions, most
from holo_cli.layers.state import DataState
from holo_cli.layers.static import StaticPositions, static_positions
from holo_cli.models.sliding_window.blocks import SMALLEST, visible, window_attention
from holo_cli.models.sliding_window.config import Config
from holo_cli.models.vanilla.attention import Attention


@dataclass(frozen=True)
class WindowState(DataState):
    """Keys and values, (B, H, min(n, S + W - 1), d), of the positions that a later token may see:
    the first S, then the last W - 1. Constant in size once the text is longer than that."""

    position: Positions
    keys: Tensor
    values: Tensor
    window: int
    sinks: int

    def static(self, room: int) -> RingState:
        """A copy that neither grows nor moves (`layers/static.py`)."""
        assert isinstance(self.position, int)
        rows, heads, _, width = self.keys.shape
        at = _slots(self.position, self.window, self.sinks).to(self.keys.device)
        parts = []
        for kept in (self.keys, self.values):
            ring = kept.new_zeros(rows, heads, self.window + self.sinks, width)
            ring[:, :, at] = kept
            parts.append(ring)
        position = static_positions(self.position, rows, room, self.keys.device)
        return RingState(position, parts[0], parts[1], self.window, self.sinks)


@dataclass(frozen=True)
class RingState(DataState):
    """The same, (B, H, S + W, d): the sinks, then a ring in which a token takes the place of the
    one W before it."""

    position: StaticPositions
    keys: Tensor
    values: Tensor
    window: int
    sinks: int

    def append(self, k: Tensor, v: Tensor) -> RingState:
        """The same buffers with the next token, (B, H, 1, d) each."""
        at = self.position.of_rows
        rows = torch.arange(at.shape[0], device=at.device)
        slot = _slot(at, self.window, self.sinks)
        for ring, new in ((self.keys, k), (self.values, v)):
            ring[rows, :, slot] = new[:, :, 0].to(ring.dtype)
        return replace(self, position=self.position + 1)

    def seen(self) -> Tensor:
        """(B, 1, 1, S + W) bool: which places a token of each row is in."""
        filled = self.position.of_rows[:, None]
        place = torch.arange(self.keys.shape[2], device=filled.device)
        return (place < filled)[:, None, None]

    def plain(self) -> WindowState:
        """A copy as an ordinary state; all rows have read as many tokens."""
        position = int(self.position.of_rows[0])
        at = _slots(position, self.window, self.sinks).to(self.keys.device)
        keys, values = self.keys[:, :, at], self.values[:, :, at]
        return WindowState(position, keys, values, self.window, self.sinks)


def _slots(length: int, window: int, sinks: int) -> Tensor:
    """The places in a ring of what is kept of `length` tokens, in order of time."""
    at = torch.arange(length)
    return _slot(at[(at < sinks) | (at > length - window)], window, sinks)


def _slot(at: Tensor, window: int, sinks: int) -> Tensor:
    """The place in a ring of the tokens at these positions."""
    return torch.where(at < sinks, at, sinks + (at - sinks) % window)


class WindowAttention(Attention):
    """Multi-head attention over a window and sinks."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.window, self.sinks = config.window, config.sinks

    def forward(self, x: Tensor, extras: Extras = NOTHING) -> tuple[Tensor, Aux]:
        q, k, v = self._project(x, 0, extras)
        if x.shape[1] <= self.window + self.sinks:  # the whole past is visible
            return self._join(causal_attention(q, k, v)), {}
        return self._join(window_attention(q, k, v, self.window, self.sinks)), {}

    def init_state(self, batch: int) -> Any:
        weight = self.out.weight
        head = weight.shape[0] // self.heads
        empty = torch.empty(batch, self.heads, 0, head, dtype=weight.dtype, device=weight.device)
        return WindowState(0, empty, empty, self.window, self.sinks)

    def step(self, x: Tensor, state: Any, extras: Extras = NOTHING) -> tuple[Tensor, Any]:
        q, k, v = self._project(x, state.position, extras)
        if isinstance(state, RingState):
            state = state.append(k, v)
            return self._join(
                causal_attention(q, state.keys, state.values, seen=state.seen())
            ), state
        size = max(SMALLEST, self.window)  # a long prompt in pieces, without a (T, T) matrix
        outputs = []
        for start in range(0, x.shape[1], size):
            q_piece, k_piece, v_piece = (t[:, :, start : start + size] for t in (q, k, v))
            y, state = self._attend(q_piece, k_piece, v_piece, state)
            outputs.append(y)
        return self._join(torch.cat(outputs, dim=2)), state

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, state: WindowState
    ) -> tuple[Tensor, WindowState]:
        """The next positions, (B, H, S, d) each, after a state."""
        kept = state.keys.shape[2]
        end = state.position + q.shape[2]
        keys = torch.cat((state.keys.to(k.dtype), k), dim=2)
        values = torch.cat((state.values.to(v.dtype), v), dim=2)
        allowed = None
        if q.shape[2] > 1:  # a single next token sees the whole cache
            start = most(state.position)
            first = torch.arange(min(self.sinks, kept))
            at = torch.cat((first, torch.arange(start - (kept - len(first)), start + q.shape[2])))
            seen = visible(torch.arange(start, start + q.shape[2]), at, self.window, self.sinks)
            allowed = seen.to(q.device)
        y = nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=allowed)
        return y, replace(state, position=end, keys=self._keep(keys), values=self._keep(values))

    def _keep(self, t: Tensor) -> Tensor:
        """What a later token may see of (B, H, n, d)."""
        later = t.shape[2] - (self.window - 1)
        if later <= self.sinks:
            return t
        return torch.cat((t[:, :, : self.sinks], t[:, :, later:]), dim=2)

    def _visible(self, length: float) -> float:
        """How many of `length` tokens, the present one included, a token sees."""
        return min(length, self.window + self.sinks)

    def state_bytes(self, length: int) -> int:
        return super().state_bytes(min(length, self.window - 1 + self.sinks))

    def flops(self, length: float) -> float:
        return super().flops(self._visible(length))

    def weights(self, x: Tensor) -> Tensor:
        q, k, _ = self._project(x, 0)
        at = torch.arange(x.shape[1], device=x.device)
        score = q.float() @ k.float().mT * q.shape[3] ** -0.5
        unseen = ~visible(at, at, self.window, self.sinks)
        return score.masked_fill(unseen, float("-inf")).softmax(-1)
