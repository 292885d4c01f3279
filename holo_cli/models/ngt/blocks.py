"""ngt with far blocks as bodies: the layer's training form, decoding, and its weights for pictures.

Legend: B rows, H heads, S queries (the last S of L positions), d coordinates, e per head, K bodies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from holo_cli.layers.cache import KVCache
from holo_cli.layers.state import DataState
from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.far_field import Bodies, bodies, far_field_attention, old_blocks
from holo_cli.models.ngt.kernels import Gravity, with_masses, with_squares


@dataclass(frozen=True)
class BlocksState(DataState):
    """What a layer remembers."""

    tokens: KVCache  # key points with their squares, log masses, values
    bodies: KVCache  # points, log masses and values of the whole blocks


@dataclass(frozen=True)
class FarBlocks:
    """`block` tokens each, of which `exact` per query attract token by token."""

    block: int
    exact: int

    @classmethod
    def of(cls, config: Config) -> FarBlocks | None:
        """None where all tokens attract one by one."""
        if config.far_field == "exact":
            return None
        return cls(config.far_block, config.exact_blocks)

    def needed(self, length: int) -> bool:
        """Whether the last of `length` tokens meets a body."""
        return old_blocks(length - 1, self.block) > self.exact

    def attention(
        self, kernel: Gravity, q: Tensor, k: Tensor, m: Tensor, v: Tensor, far: Bodies | None = None
    ) -> Tensor:
        """q (B, H, S, d), k (B, H, L, d), m (B, H, L, 1), v (B, H, L, e) -> (B, H, S, e).

        `far` (B, H, K, .), the bodies of the whole blocks, is made where it is not given.
        """
        if not self.needed(k.shape[2]):
            return kernel.attention(q, k, m, v)
        if far is None:
            far = bodies(k, m, v, self.block)
        y = far_field_attention(
            q.flatten(0, 1),
            k.flatten(0, 1),
            with_masses(v, m).flatten(0, 1),
            Bodies(*(x.flatten(0, 1) for x in far)),
            kernel.eps().to(q.dtype).repeat(len(q))[:, None, None],
            kernel.fixed,
            self.block,
            self.exact,
        )
        return y.unflatten(0, q.shape[:2])

    def weights(self, kernel: Gravity, q: Tensor, k: Tensor, m: Tensor) -> Tensor:
        """The weight of each token, (B, H, T, T), rows sum to one; O(T^2) memory.

        Tokens of a body share its weight by their masses, since its value is their mean by mass.
        """
        return self.weights_and_bodies(kernel, q, k, m)[0]

    def weights_and_bodies(
        self, kernel: Gravity, q: Tensor, k: Tensor, m: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`weights`, and whether each is a share of the weight of its block's body."""
        length = k.shape[2]
        weight = _inverse_powers(kernel, kernel.squared(q, k)) * m.mT
        far = bodies(k, m, m, self.block)
        squared = _squared(q, far.points)
        place = torch.arange(length, device=q.device)
        block = place // self.block
        old = torch.arange(squared.shape[-1], device=q.device) < block[:, None] - 1
        body = _inverse_powers(kernel, squared).masked_fill(~old, 0)
        if count := min(self.exact, squared.shape[-1]):
            rank = (body * far.mass.mT).masked_fill(~old, -1)
            body = body.scatter(3, rank.topk(count, dim=3).indices, 0)
        # a block whose body has no weight attracts token by token
        spread = body.repeat_interleave(self.block, dim=3)
        spread = torch.nn.functional.pad(spread, (0, length - spread.shape[3]))
        weight = torch.where(spread > 0, spread * m.mT, weight).tril()
        return weight / weight.sum(-1, keepdim=True), spread > 0

    # -- decoding ---------------------------------------------------------------------------------

    def init_state(self) -> BlocksState:
        return BlocksState(KVCache(), KVCache())

    def append(self, state: BlocksState, k: Tensor, log_m: Tensor, v: Tensor) -> BlocksState:
        """The state with the tokens, and with the bodies of the blocks that they end."""
        tokens = state.tokens.append(with_squares(k), log_m, v)
        done, have = tokens.length, state.bodies.length
        assert isinstance(done, int)
        assert isinstance(have, int)
        if done // self.block == have:
            return BlocksState(tokens, state.bodies)
        k, log_m, v = (x[:, :, have * self.block :] for x in tokens.views())
        new = bodies(k[..., :-1], log_m.exp(), v, self.block)
        grown = state.bodies.append(new.points, new.mass.log(), new.values)
        return BlocksState(tokens, grown)

    def attend(self, kernel: Gravity, q: Tensor, state: BlocksState) -> Tensor:
        """q (B, H, S, d), whose tokens are the last of the state -> (B, H, S, e)."""
        k, log_m, v = state.tokens.views()
        if q.shape[2] == 1 and not torch.is_grad_enabled():
            if not self.needed(k.shape[2]):
                return kernel.of_one(q, k, log_m, v)
            return self._of_one(kernel, q, state)
        far = None
        if self.needed(k.shape[2]):
            points, log_mass, values = state.bodies.views()
            far = Bodies(points, log_mass.exp(), values)
        return self.attention(kernel, q, k[..., :-1], log_m.exp(), v, far)

    def _of_one(self, kernel: Gravity, q: Tensor, state: BlocksState) -> Tensor:
        """`attend` for one query: one softmax over bodies and tokens."""
        k, log_m, v = state.tokens.views()
        position = k.shape[2] - 1
        met = old_blocks(position, self.block)
        points, log_mass, means = (x[:, :, :met] for x in state.bodies.views())
        body = _log_weights(kernel, q, points, log_mass)
        recent = (position // self.block - 1) * self.block
        scores, values = [body], [means]
        if self.exact:
            best = body.topk(self.exact, dim=3).indices  # (B, H, 1, n)
            body.scatter_(3, best, float("-inf"))
            inside = torch.arange(self.block, device=q.device)
            places = (best.mT * self.block + inside).flatten(2).unsqueeze(-1)  # (B, H, n W, 1)
            chosen = [x.gather(2, places.expand(-1, -1, -1, x.shape[3])) for x in (k, log_m, v)]
            scores.append(_log_weights(kernel, q, chosen[0], chosen[1]))
            values.append(chosen[2])
        scores.append(_log_weights(kernel, q, k[:, :, recent:], log_m[:, :, recent:]))
        values.append(v[:, :, recent:])
        weight = torch.softmax(torch.cat(scores, 3), 3).to(v.dtype)
        return weight @ torch.cat(values, 2)

    def state_bytes(self, length: int, heads: int, coords: int, width: int, size: int) -> int:
        """Of one row after `length` tokens; `size` bytes per weight, `width` of all values."""
        kept = length + length // self.block
        return kept * (heads * (coords + 2) * max(4, size) + width * size)

    def pairs(self, length: float) -> float:
        """Tokens and bodies that a query meets after `length` tokens."""
        old = max(0.0, length / self.block - 1.5)
        if old <= self.exact:
            return length
        return (1.5 + self.exact) * self.block + old


def _squared(q: Tensor, points: Tensor) -> Tensor:
    """q (..., S, d), points (..., K, d + 1) with squares -> squared distances (..., S, K)."""
    with torch.autocast(q.device.type, enabled=False):
        square = torch.linalg.vecdot(q, q).unsqueeze(-1)
        return (points[..., -1:].mT - 2 * q @ points[..., :-1].mT + square).clamp_min(0)


def _inverse_powers(kernel: Gravity, squared: Tensor) -> Tensor:
    return (kernel.eps()[:, None, None] + squared) ** (-0.5 * kernel.fixed)


def _log_weights(kernel: Gravity, q: Tensor, points: Tensor, log_m: Tensor) -> Tensor:
    """(..., S, K)"""
    return kernel.score(_squared(q, points), log_m, log_m)
