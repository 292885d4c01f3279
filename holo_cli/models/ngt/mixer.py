"""Tokens as particles: their coordinates, masses and attraction.

Per head a token has a query point, which is attracted, a key point, which attracts, a mass above
zero and a value. The points move from layer to layer, each token's by itself:

    z^(l+1) = RMSNorm(z^l + W h^l)

and are rotated by position when distances are computed, so that a distance depends on how far apart
two tokens are. They run beside the residual stream, passed on by `model.py`. The norm is over all
heads together: a point may be near the origin of its head or far from it, which is what makes a
hyperboloid differ from a plane.

Legend: B rows, S positions, C width, H heads, e = C / H, G sets of points per token (1 where query
and key are one point, else 2, queries first), d coordinates of a point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from holo_cli.layers.cache import KVCache
from holo_cli.layers.interfaces import NOTHING, Aux, Extras, Mixer
from holo_cli.layers.joined_weights import JoinedWeights
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.positions import Positions
from holo_cli.layers.precision import wide
from holo_cli.layers.rope import Rope
from holo_cli.models.ngt.blocks import BlocksState, FarBlocks
from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.kernels import Gravity, make_kernel, with_squares
from holo_cli.models.ngt.radius import (
    RadiusCutoff,
    attention_within_radius,
    general_attention,
    weights,
)
from holo_cli.models.ngt.repulsion import repulsion

MIN_MASS = 1e-4  # lower bound on masses, so that no row of weights sums to zero


class Particles(NamedTuple):
    """A kernel's inputs."""

    q: Tensor  # (B, H, S, d), rotated by position, float32 at least, as k and m
    k: Tensor  # (B, H, S, d)
    m: Tensor  # (B, H, S, 1), mass in the weight: ones where masses are in the values
    v: Tensor  # (B, H, S, e)


class InitialCoordinates(nn.Module):
    """The coordinates of the first layer: one learned point per head for all tokens, which position
    then rotates; with `position+token` a linear map of the embedding is added."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        size = config.sets * config.heads * config.dimensions
        self.sets = config.sets
        self.origin = nn.Parameter(torch.empty(size))
        from_token = config.coords_from == "position+token"
        self.token = nn.Linear(config.width, size, bias=False) if from_token else None

    @torch.no_grad()
    def initialise(self) -> None:
        # both sets start at the same points, so that near tokens are near in space
        sets = self.origin.view(self.sets, -1)
        nn.init.normal_(sets[0])
        sets[1:] = sets[0]
        if self.token is not None:
            nn.init.normal_(self.token.weight, std=self.token.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Embedded tokens (B, S, C) -> z^0 (B, S, G, H d), float32 at least."""
        z = self.origin.to(wide(self.origin.dtype))
        z = z.expand(*x.shape[:2], -1) if self.token is None else z + self.token(x)
        return rms_norm(z.unflatten(2, (self.sets, -1)))


class GravityMixer(Mixer):
    """The mean of past values, weighted by attraction.

    The side stream holds the coordinates z (B, S, G, H d), which each layer moves.
    """

    takes_extras: ClassVar[bool] = True
    joined: JoinedWeights | None = None  # (G H d + C + H, C): move, value and mass, for decoding

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, points = config.width, config.sets * config.heads
        self.heads, self.coords = config.heads, config.dimensions
        self.move = nn.Linear(width, points * self.coords, bias=False)
        self.move.weight.splits = config.sets  # type: ignore[attr-defined]  # matrices for Muon
        self.value = nn.Linear(width, width, bias=False)
        self.mass = nn.Linear(width, self.heads, bias=False)
        # a few scalars per token, not a map between spaces: nothing to orthogonalise
        self.mass.weight.no_muon = True  # type: ignore[attr-defined]
        self.out = nn.Linear(width, width, bias=False)
        self.rope = Rope(self.coords, config.rope_base, config.rope_fraction)
        self.kernel = make_kernel(config)
        self.radius_cutoff = RadiusCutoff(config) if config.radius_mode != "none" else None
        self.far = FarBlocks.of(config)
        self.keeps_squares = isinstance(self.kernel, Gravity) and self.radius_cutoff is None
        self.mass_in_value = config.mass_in_value
        # masses of 1 need no place in the state
        self.keeps_masses = not config.mass_in_value or self.far is not None
        self.by_mass = config.kernel != "classic"
        self.interval = config.repulsion_interval
        self.pairs = config.repulsion_pairs
        self.repulsion_weight = config.lambda_repulsion / config.layers

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.mass.weight)  # equal masses

    # -- training ---------------------------------------------------------------------------------

    def forward(self, x: Tensor, extras: Extras = NOTHING) -> tuple[Tensor, Aux]:
        """x (B, S, C), normalized -> output and repulsion."""
        z = extras.side = self.move_points(x, extras.side)
        m = self.masses(x)
        p = self.particles(x, z, m, 0, extras)
        aux: Aux = {}
        if self.repulsion_weight > 0 and x.shape[1] > 1:
            share = max(1, self.pairs // self.interval)
            loss = repulsion(self.key_points(z), m, share, training=self.training)
            aux["repulsion"] = loss * (self.repulsion_weight / self.interval)
        return self._join(self._attend(p, p.k, p.m, None, p.v)), aux

    def move_points(self, x: Tensor, z: Tensor) -> Tensor:
        """(B, S, C), (B, S, G, H d) -> the coordinates in this layer, before rotation."""
        return rms_norm(z + self.move(x).view(z.shape))

    def key_points(self, z: Tensor) -> Tensor:
        """(B, S, G, H d) -> key points (B, S, H, d)."""
        return z[:, :, -1].unflatten(2, (self.heads, self.coords))

    def masses(self, x: Tensor) -> Tensor:
        """(B, S, C) -> masses (B, S, H), float32 at least, above zero."""
        return nn.functional.softplus(self.mass(x).to(wide(x.dtype))) + MIN_MASS

    def particles(
        self, x: Tensor, z: Tensor, m: Tensor, start: Positions, extras: Extras = NOTHING
    ) -> Particles:
        """Tokens x at positions start.., coordinates z and masses m (B, S, H) -> particles."""
        points = z.flatten(2).unflatten(2, (-1, self.coords))  # (B, S, G H, d)
        rotated = self.rope(points, start).transpose(1, 2)
        m = m.transpose(1, 2).unsqueeze(-1)  # (B, H, S, 1)
        v = extras.values(self.value(x)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        if self.mass_in_value:
            v, m = v * m.to(v.dtype), torch.ones_like(m)
        sets = rotated.split(self.heads, dim=1)
        return Particles(sets[0], sets[-1], m, v)

    def weights(self, p: Particles) -> Tensor:
        """Weights (B, H, T, T) for pictures, measures and tests; O(T^2) memory."""
        if self.far is not None and self.far.needed(p.k.shape[2]):
            assert isinstance(self.kernel, Gravity)
            return self.far.weights(self.kernel, p.q, p.k, p.m)
        return weights(self.kernel, self.radius_cutoff, p.q, p.k, p.m, p.m.log())

    def _attend(
        self, p: Particles, k: Tensor, m: Tensor | None, log_m: Tensor | None, v: Tensor
    ) -> Tensor:
        """(B, H, S, e): the mean of values v (B, H, L, e) of tokens at k with masses m.

        One of `m` and `log_m`, each (B, H, L, 1), may be None.
        """
        if self.far is not None and m is not None:
            assert isinstance(self.kernel, Gravity)
            return self.far.attention(self.kernel, p.q, k, m, v)
        if self.radius_cutoff is None and p.q.shape[2] > 1:
            mass = log_m.exp() if m is None and log_m is not None else m
            assert mass is not None
            y = self.kernel.attention(p.q, k, mass, v)
            if y is not None:
                return y
        if log_m is None:
            assert m is not None
            log_m = m.log()
        cutoff = self.radius_cutoff
        if cutoff is not None and cutoff.cuts and not torch.is_grad_enabled():
            return attention_within_radius(self.kernel, cutoff, p.q, k, p.m, log_m, v)
        return general_attention(self.kernel, cutoff, p.q, k, p.m, log_m, v)

    def _join(self, y: Tensor) -> Tensor:
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    # -- decoding ---------------------------------------------------------------------------------

    def readers(self) -> list[nn.Linear]:
        """The layers that read x."""
        return [self.move, self.value, self.mass]

    def store_by_columns(self) -> None:
        """Make one matrix of those that read x, stored by columns; they become views of it."""
        self.joined = JoinedWeights.of(self.readers()) or self.joined

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        """Moved or cast, each parameter has a tensor of its own."""
        self.joined = None
        return super()._apply(fn, recurse)

    @property
    def mixed_lengths(self) -> bool:
        # a radius finds the token itself at the end; the classic force is not zero without a mass;
        # blocks of time begin and end at the same token in all rows
        return self.radius_cutoff is None and self.by_mass and self.far is None

    def step_obstacle(self) -> str | None:
        if self.radius_cutoff is not None:
            return "model.radius_mode finds a token by its place at the end of the text"
        if not self.by_mass:
            return "the force of model.kernel = classic is not zero where there is no token yet"
        return None if self.far is None else "model.far_field makes blocks as the text grows"

    def init_state(self, batch: int) -> KVCache | BlocksState:
        return KVCache() if self.far is None else self.far.init_state()

    def step(
        self, x: Tensor, state: KVCache | BlocksState, extras: Extras = NOTHING
    ) -> tuple[Tensor, KVCache | BlocksState]:
        """`forward` after `state`, which holds rotated key coordinates (with their squares where
        one query has a fast form), log masses where they differ, and values, and with `far` the
        bodies."""
        z = extras.side = self.move_points(x, extras.side)
        length = state.tokens.length if isinstance(state, BlocksState) else state.length
        p = self.particles(x, z, self.masses(x), length, extras)
        if isinstance(state, BlocksState):
            assert self.far is not None
            assert isinstance(self.kernel, Gravity)
            state = self.far.append(state, p.k, p.m.log(), p.v)
            return self._join(self.far.attend(self.kernel, p.q, state)), state
        masses = [p.m.log()] if self.keeps_masses else []
        state = state.append(with_squares(p.k) if self.keeps_squares else p.k, *masses, p.v)
        k, *masses, v = state.views()
        log_m = masses[0] if masses else None
        if (seen := state.seen()) is not None:  # nothing attracts from where a row has no token
            log_m = torch.zeros_like(k[..., :1]) if log_m is None else log_m
            log_m = log_m.masked_fill(~seen.mT, float("-inf"))
        if isinstance(self.kernel, Gravity) and self.keeps_squares:
            if x.shape[1] == 1 and not torch.is_grad_enabled():
                return self._join(self.kernel.of_one(p.q, k, log_m, v)), state
            k = k[..., : self.coords]
        m = torch.ones_like(k[..., :1]) if log_m is None else None
        return self._join(self._attend(p, k, m, log_m, v)), state

    def state_bytes(self, length: int) -> int:
        size = self.out.weight.element_size()
        if self.far is not None:
            width = self.out.in_features
            return self.far.state_bytes(length, self.heads, self.coords, width, size)
        # coordinates and masses are float32 at least
        return length * (
            self.heads * (self.coords + self.keeps_masses + self.keeps_squares) * max(4, size)
            + self.out.in_features * size
        )

    def flops(self, length: float) -> float:
        if self.far is not None:
            length = self.far.pairs(length)
        return (
            length * self.heads * self.kernel.flops(self.coords, self.out.in_features // self.heads)
        )
