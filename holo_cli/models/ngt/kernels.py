"""How weight decreases with distance: the four kernels.

A kernel gives the squared distance of two points and the log weight of a key for a query, and, for
when no radius is set, a fast form of the whole weighted mean: chunked inverse powers for `gravity`
(`gravity_attention.py`), softmax attention for `gaussian` and `lorentz`, whose scores are bilinear
in augmented coordinates. Evaluation with a hard radius has a form for each (`tiles.py`).

The mass m_i of the query multiplies a whole row of weights and cancels when the row is divided by
its sum, but for `classic`, which has masses inside the exponential.

Legend: B rows, H heads, S queries (the last S of L positions), d coordinates, e per head. Methods
that take `heads` work on (B, H, S, .) tensors without it, and with it, (n,) int64, on (n, S, .),
the i-th of which belongs to head heads[i].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from holo_cli.layers.causal import causal_attention
from holo_cli.models.ngt.config import POWER_LIMIT, Config
from holo_cli.models.ngt.gravity_attention import FLOOR, augment, gravity_attention, powers_
from holo_cli.models.ngt.tiles import ALONE, STEEPEST, TileForm


class Kernel(nn.Module, ABC):
    """A weight as a function of distance, with its parameters per head."""

    def squared(self, q: Tensor, k: Tensor, heads: Tensor | None = None) -> Tensor:
        """q (..., S, d), k (..., L, d) -> squared distances (..., S, L), at least 0."""
        return (_square(q) + _square(k).mT - 2 * _cross(q, k)).clamp_min(0)

    def length(self, squared: Tensor, heads: Tensor | None = None) -> Tensor:
        """A squared distance as a length that obeys the triangle inequality."""
        return squared.sqrt()

    @abstractmethod
    def score(
        self, squared: Tensor, m: Tensor, log_m: Tensor, heads: Tensor | None = None
    ) -> Tensor:
        """Log of each weight, (..., S, L), up to a constant per row.

        `squared` (..., S, L); `m` (..., S, 1), masses of the queries; `log_m` (..., L, 1), log
        masses of the keys.
        """

    def attention(self, q: Tensor, k: Tensor, m: Tensor, v: Tensor) -> Tensor | None:
        """q (B, H, S, d), k (B, H, L, d), m (B, H, L, 1), v (B, H, L, e) -> (B, H, S, e).

        None where the kernel has no form faster than `general_attention`.
        """
        return None

    def tile_form(self, q: Tensor, k: Tensor, square: Tensor) -> TileForm | None:
        """q (B, H, S, d), k (B, H, L, d), square (H,) of the radius -> a form without gradient.

        None where there is no such form.
        """
        return None

    @abstractmethod
    def flops(self, coords: int, width: int) -> float:
        """Forward FLOPs of one pair of tokens in one head; `width`: of a value."""

    @abstractmethod
    def figures(self) -> dict[str, Tensor]:
        """Learned values per head, in the units of the formulas."""


class Gravity(Kernel):
    """m_j / (eps + d^2)^(p/2), eps = config.eps + exp(s) with s learned per head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.min_eps = config.eps
        self.softening = nn.Parameter(torch.zeros(config.heads))
        self.fixed = config.power
        self.steepness = None
        if config.learn_power:  # p = POWER_LIMIT sigmoid(steepness)
            start = math.log(config.power / (POWER_LIMIT - config.power))
            self.steepness = nn.Parameter(torch.full((config.heads,), start))

    def eps(self) -> Tensor:
        """(H,)"""
        return self.min_eps + self.softening.exp()

    def power(self) -> Tensor:
        """(H,)"""
        if self.steepness is None:
            return torch.full_like(self.softening, self.fixed)
        return POWER_LIMIT * self.steepness.sigmoid()

    def score(
        self, squared: Tensor, m: Tensor, log_m: Tensor, heads: Tensor | None = None
    ) -> Tensor:
        eps, power = _per_head(self.eps(), heads), _per_head(self.power(), heads)
        return -0.5 * power * (eps + squared).log() + log_m.mT

    def tile_form(self, q: Tensor, k: Tensor, square: Tensor) -> TileForm:
        rows, eps, power = q.shape[0], self.eps().to(q.dtype), self.power()
        a, b = augment(q.flatten(0, 1), k.flatten(0, 1), eps.repeat(rows)[:, None, None])
        exact = q.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
        limit = 1 / (eps + square.to(eps.dtype))

        def rising(x: Tensor) -> Tensor:
            # products of fewer digits may come out below eps
            return (x if exact else x.clamp_min_(FLOOR)).reciprocal_()

        def weigh(x: Tensor, head: int | None) -> Tensor:
            if self.steepness is None:
                return powers_(x, 0.5 * self.fixed)
            p = power[head] if head is not None else power.repeat(rows)[:, None, None]
            return x.log_().mul_(0.5 * p).exp_()

        return TileForm(a, b.mT.contiguous(), len(eps), rising, weigh, limit)

    def of_one(self, q: Tensor, k: Tensor, log_m: Tensor | None, v: Tensor) -> Tensor:
        """The weighted mean for one query in few operations, for decoding; no gradient.

        q (B, H, 1, d), k (B, H, L, d + 1) from `with_squares`, log_m (B, H, L, 1) or None where all
        masses are 1, v (B, H, L, e) -> (B, H, 1, e).
        """
        batch = q.shape[0]
        with torch.autocast(q.device.type, enabled=False):
            q = q.flatten(0, 1)
            eps = self.eps().to(q.dtype)
            eps = (eps if batch == 1 else eps.repeat(batch))[:, None, None]
            a = torch.cat((q, q.new_full((len(q), 1, 1), -0.5)), -1)
            return self.of_prepared(a, _square(q) + eps, eps, k, log_m, v)

    def of_prepared(
        self, a: Tensor, start: Tensor, eps: Tensor, k: Tensor, log_m: Tensor | None, v: Tensor
    ) -> Tensor:
        """As `of_one`, of a = [q, -1/2] (B H, 1, d + 1), |q|^2 + eps and eps (B H, 1, 1)."""
        # -2 [q, -1/2] [k, |k|^2] = |k|^2 - 2 q.k
        x = torch.baddbmm(start, a, k.flatten(0, 1).mT, alpha=-2.0)
        # as in `squared`: never below a distance of zero, however few digits products have
        x = torch.maximum(x, eps, out=x).log_().unflatten(0, (v.shape[0], -1))
        if self.steepness is not None:
            score = x.mul_(-0.5 * self.power()[:, None, None])
        elif log_m is None:
            score = x.mul_(-0.5 * self.fixed)
        else:
            score, log_m = log_m.mT.add(x, alpha=-0.5 * self.fixed), None
        if log_m is not None:
            score = score + log_m.mT
        return torch.softmax(score, -1).to(v.dtype) @ v

    def attention(self, q: Tensor, k: Tensor, m: Tensor, v: Tensor) -> Tensor:
        rows = q.shape[0]
        u = with_masses(v, m)
        eps = self.eps().to(q.dtype).repeat(rows)[:, None, None]
        power: Tensor | float = self.fixed
        if self.steepness is not None:
            power = self.power().to(q.dtype).repeat(rows)[:, None, None]
        y = gravity_attention(q.flatten(0, 1), k.flatten(0, 1), u.flatten(0, 1), eps, power)
        return y.unflatten(0, q.shape[:2])

    def flops(self, coords: int, width: int) -> float:
        return 2.0 * (coords + 2) + 2.0 * (width + 1)

    def figures(self) -> dict[str, Tensor]:
        return {"power": self.power(), "eps": self.eps()}


class Gaussian(Kernel):
    """m_j exp(-gamma d^2): attention with q' = [2 gamma q, 1], k' = [k, log m - gamma |k|^2]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        # at first as steep as attention between unit-RMS vectors of this size
        start = -math.log(2 * config.dimensions**0.5)
        self.log_gamma = nn.Parameter(torch.full((config.heads,), start))

    def score(
        self, squared: Tensor, m: Tensor, log_m: Tensor, heads: Tensor | None = None
    ) -> Tensor:
        return log_m.mT - _per_head(self.log_gamma.exp(), heads) * squared

    def tile_form(self, q: Tensor, k: Tensor, square: Tensor) -> TileForm | None:
        gamma = self.log_gamma.exp()
        if (gamma * square).max() > STEEPEST:
            return None
        a, b = (x.flatten(0, 1) for x in self._augmented(q, k, gamma[:, None, None]))
        limit = -gamma * square
        outside = float("-inf")
        return TileForm(a, b, len(gamma), _same, _exponentials, limit, outside, ALONE)

    def _augmented(self, q: Tensor, k: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, S, c) and (B, H, L, c), whose products are -gamma d^2."""
        one = torch.ones_like
        a = (2 * gamma * q, one(q[..., :1]), -gamma * _square(q))
        return torch.cat(a, -1), torch.cat((k, -gamma * _square(k), one(k[..., :1])), -1)

    def attention(self, q: Tensor, k: Tensor, m: Tensor, v: Tensor) -> Tensor:
        gamma = self.log_gamma.exp()[:, None, None]
        bias = m.log() - gamma * _square(k)
        return _softmax_attention([2 * gamma * q, torch.ones_like(q[..., :1])], [k, bias], v)

    def flops(self, coords: int, width: int) -> float:
        return 2.0 * (coords + 1) + 2.0 * width

    def figures(self) -> dict[str, Tensor]:
        return {"gamma": self.log_gamma.exp()}


class Lorentz(Gaussian):
    """m_j exp(-gamma d_L^2) on a hyperboloid of curvature -1/beta, beta learned per head.

    A point z is lifted to [sqrt(beta + |z|^2), z]; d_L^2 = -2 beta - 2 <q, k>_L. With x = sqrt(beta
    + |q|^2) - sqrt(beta) and y likewise of k, d_L^2 = 2 (x y + sqrt(beta) (x + y) - q.k), which
    loses no digits where beta is large and space flat.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.log_beta = nn.Parameter(torch.full((config.heads,), math.log(config.beta)))

    def squared(self, q: Tensor, k: Tensor, heads: Tensor | None = None) -> Tensor:
        root = _per_head((0.5 * self.log_beta).exp(), heads)
        x, y = self._lift(q, root), self._lift(k, root).mT
        return (2 * (x * y + root * (x + y) - _cross(q, k))).clamp_min(0)

    def length(self, squared: Tensor, heads: Tensor | None = None) -> Tensor:
        """Along the hyperboloid, in units of its radius: arcosh(1 + d_L^2 / 2 beta)."""
        beta = _per_head(self.log_beta.exp(), heads)
        return 2 * torch.asinh((squared / (4 * beta)).sqrt())

    def _augmented(self, q: Tensor, k: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        root = (0.5 * self.log_beta).exp()[:, None, None]
        x, y, twice = self._lift(q, root), self._lift(k, root), 2 * gamma
        a = (twice * q, -twice * x, -twice * root * x, torch.ones_like(x))
        return torch.cat(a, -1), torch.cat((k, y, torch.ones_like(y), -twice * root * y), -1)

    def attention(self, q: Tensor, k: Tensor, m: Tensor, v: Tensor) -> Tensor:
        gamma = self.log_gamma.exp()[:, None, None]
        root = (0.5 * self.log_beta).exp()[:, None, None]
        x, y = self._lift(q, root), self._lift(k, root)
        # terms of the query alone cancel
        bias = m.log() - 2 * gamma * root * y
        twice = 2 * gamma
        return _softmax_attention([twice * q, -twice * x, torch.ones_like(x)], [k, y, bias], v)

    @staticmethod
    def _lift(z: Tensor, root: Tensor) -> Tensor:
        """sqrt(beta + |z|^2) - sqrt(beta), (..., 1), without cancellation."""
        square = _square(z)
        return square / ((root * root + square).sqrt() + root)

    def flops(self, coords: int, width: int) -> float:
        return 2.0 * (coords + 2) + 2.0 * width

    def figures(self) -> dict[str, Tensor]:
        return super().figures() | {"beta": self.log_beta.exp()}


class LegacyKernel(Kernel):
    """An earlier formula, for comparison only: exp of the score -gamma m_i m_j / (d^2 + eps).

    Its sign makes near tokens repel: weight increases with distance, and a token's weight on itself
    is the smallest.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.eps = config.eps
        self.log_gamma = nn.Parameter(torch.zeros(config.heads))

    def score(
        self, squared: Tensor, m: Tensor, log_m: Tensor, heads: Tensor | None = None
    ) -> Tensor:
        gamma = _per_head(self.log_gamma.exp(), heads)
        return -gamma * m * log_m.exp().mT / (squared + self.eps)

    def flops(self, coords: int, width: int) -> float:
        return 2.0 * coords + 2.0 * width

    def figures(self) -> dict[str, Tensor]:
        return {"gamma": self.log_gamma.exp()}


KERNELS: dict[str, type[Gravity | Gaussian | LegacyKernel]] = {
    "gravity": Gravity,
    "gaussian": Gaussian,
    "lorentz": Lorentz,
    "classic": LegacyKernel,
}


def make_kernel(config: Config) -> Kernel:
    """The kernel that a config names."""
    return KERNELS[config.kernel](config)


def _cross(q: Tensor, k: Tensor) -> Tensor:
    """q (..., S, d), k (..., L, d) -> (..., S, L), in their own dtype also under autocast."""
    with torch.autocast(q.device.type, enabled=False):
        return q @ k.mT


def _square(z: Tensor) -> Tensor:
    """|z|^2, (..., d) -> (..., 1), in z's own dtype: autocast lowers `vecdot` as a product."""
    with torch.autocast(z.device.type, enabled=False):
        return torch.linalg.vecdot(z, z).unsqueeze(-1)


def with_squares(k: Tensor) -> Tensor:
    """k (..., L, d) -> [k, |k|^2] (..., L, d + 1)."""
    return torch.cat((k, _square(k)), dim=-1)


def with_masses(v: Tensor, m: Tensor) -> Tensor:
    """v (..., L, e), m (..., L, 1) -> [m v, m] (..., L, e + 1) in v's dtype."""
    return torch.cat((v * m.to(v.dtype), m.to(v.dtype)), dim=-1)


def _same(x: Tensor) -> Tensor:
    return x


def _exponentials(x: Tensor, head: int | None) -> Tensor:
    return x.exp_()


def _per_head(values: Tensor, heads: Tensor | None) -> Tensor:
    """(H,) -> what broadcasts over (B, H, S, L), or with `heads` over (n, S, L)."""
    return (values if heads is None else values[heads])[:, None, None]


def _softmax_attention(q: list[Tensor], k: list[Tensor], v: Tensor) -> Tensor:
    """softmax(q' k'^T) v over the past; q' and k' are given in pieces to concatenate.

    Zero-padded to one width, as PyTorch's fused kernels require of queries, keys and values.
    """
    wide = max(v.shape[-1], sum(piece.shape[-1] for piece in q))
    y = causal_attention(_padded(q, wide, v), _padded(k, wide, v), _padded([v], wide, v), 1.0)
    return y[..., : v.shape[-1]]


def _padded(pieces: list[Tensor], width: int, like: Tensor) -> Tensor:
    missing = width - sum(piece.shape[-1] for piece in pieces)
    return nn.functional.pad(torch.cat(pieces, dim=-1), (0, missing)).to(like.dtype)
