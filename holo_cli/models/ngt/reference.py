"""Gravity between tokens, one pair at a time (see `models/oracle.py`).

Distances are sums of squared differences, and weights are made one by one. The side stream holds
each token's points, (d,) each: those of all heads that are pulled, then those that pull.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from holo_cli.models.backbone import Backbone
from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.mixer import GravityMixer
from holo_cli.models.ngt.model import Model
from holo_cli.models.oracle import Claims, Inputs, Vectors, joined, norm, sigmoid, softplus, total

CASES: dict[str, dict[str, Any]] = {
    "gravity": {},
    "gravity-learned": {
        "learn_power": True,
        "power": 2.0,
        "lambda_repulsion": 0.01,
    },
    "gravity-weights": {"mass_in_value": False},
    "gravity-shared": {
        "separate_coords": False,
        "coords": 8,
        "power": 2.0,
        "mass_in_value": False,
    },
    "gravity-options": {
        "power": 3.0,
        "coords_from": "position+token",
        "conv": 4,
        "bigrams": 61,
        "tied": False,
        "rope_fraction": 0.5,
    },
    "gravity-soft": {"radius_mode": "soft", "radius": 2.0, "mass_in_value": False},
    "gravity-hard": {"radius_mode": "hard", "radius": 3.0, "tau": 0.5},
    "gravity-blocks": {
        "far_field": "blocks",
        "far_block": 4,
        "exact_blocks": 1,
        "mass_in_value": False,
    },
    "gravity-bodies": {
        "far_field": "blocks",
        "far_block": 3,
        "exact_blocks": 0,
        "separate_coords": False,
    },
    "gaussian": {"kernel": "gaussian", "mass_in_value": False},
    "lorentz": {"kernel": "lorentz"},
    "lorentz-hard": {"kernel": "lorentz", "radius_mode": "hard", "radius": 3.0},
    "classic": {"kernel": "classic"},
}

# near tokens are found as by "gravity"; blocks of so few tokens are too slow to train with
CLAIMS = {"gravity-blocks": Claims(recall=None), "gravity-bodies": Claims(recall=None)}


def _normal(points: Vectors, heads: int) -> Vectors:
    """A token's points, divided by the root mean square of the set they belong to."""
    out = []
    for n in range(0, len(points), heads):
        out += list(norm(torch.cat(points[n : n + heads])).chunk(heads))
    return out


def side(model: Backbone, tokens: Tensor, stream: Vectors) -> list[Vectors]:
    """Each token's points before the first layer."""
    assert isinstance(model, Model)
    d, points = model.config.dimensions, []
    for x in stream:
        z: Tensor = model.initial_coordinates.origin
        if model.initial_coordinates.token is not None:
            z = z + model.initial_coordinates.token.weight @ x
        points.append(_normal(list(z.split(d)), model.config.heads))
    return points


def _squared_distance(
    config: Config, mixer: GravityMixer, head: int, a: Tensor, b: Tensor
) -> Tensor:
    if config.kernel != "lorentz":
        return ((a - b) ** 2).sum()
    beta = dict(mixer.kernel.named_parameters())["log_beta"][head].exp()
    inner = a @ b - (beta + a @ a).sqrt() * (beta + b @ b).sqrt()
    return -2 * beta - 2 * inner


def _weight(
    config: Config, mixer: GravityMixer, head: int, squared: Tensor, m_i: Tensor, m_j: Tensor
) -> Tensor:
    """What j weighs for i, before the row is divided by its sum."""
    learned = {name: p[head] for name, p in mixer.kernel.named_parameters()}
    if config.mass_in_value:
        m_i = m_j = torch.ones_like(m_j)
    if config.kernel == "gravity":
        power: Any = config.power
        if config.learn_power:
            power = 16 * sigmoid(learned["steepness"])
        return m_j / (config.eps + learned["softening"].exp() + squared) ** (power / 2)
    gamma = learned["log_gamma"].exp()
    if config.kernel == "classic":
        return (-gamma * m_i * m_j / (squared + config.eps)).exp()
    return m_j * (-gamma * squared).exp()


def _share(config: Config, mixer: GravityMixer, head: int, squared: Tensor) -> Tensor:
    """What the radius leaves of another token's weight."""
    if mixer.radius_cutoff is None:
        return torch.ones_like(squared)
    radius = mixer.radius_cutoff.radius[head]
    if config.radius_mode == "hard" and not mixer.training:
        return (squared <= radius**2).to(squared.dtype)
    return sigmoid((radius**2 - squared) / config.tau)


class _Far(NamedTuple):
    """What a query meets: (weight, mean value) of bodies, and single tokens."""

    left: list[tuple[Tensor, Tensor]]
    tokens: list[int]


def _bodies(
    config: Config,
    mixer: GravityMixer,
    head: int,
    q: Tensor,
    k: Vectors,
    mass: Vectors,
    values: Vectors,
    i: int,
) -> _Far:
    """Older blocks than the one before the query's, of which the heaviest for it are opened."""
    size = config.far_block
    found = []
    for first in range(0, (i // size - 1) * size, size):
        inside = range(first, first + size)
        m = [torch.ones(()) if config.mass_in_value else mass[j] for j in inside]
        whole = total(m)
        centre = total([a * k[j] for a, j in zip(m, inside, strict=True)]) / whole
        away = [a * ((k[j] - centre) ** 2).sum() for a, j in zip(m, inside, strict=True)]
        squared = ((q - centre) ** 2).sum() + 0.5 * total(away) / whole
        w = _weight(config, mixer, head, squared, whole, whole)
        if config.mass_in_value:
            w = w * whole
        mean = total([mass[j] * values[j] for j in inside]) / whole
        found.append((w, mean, inside))
    order = sorted(range(len(found)), key=lambda n: -found[n][0].item())
    opened = order[: config.exact_blocks]
    left = [found[n][:2] for n in range(len(found)) if n not in opened]
    tokens = [j for n in opened for j in found[n][2]]
    return _Far(left, [*tokens, *range(max(0, (i // size - 1) * size), i + 1)])


def mix(mixer: GravityMixer, inputs: Inputs) -> Vectors:
    config, points = inputs.config, inputs.side
    assert isinstance(config, Config)
    heads, d, e = config.heads, mixer.coords, config.width // config.heads
    for t, x in enumerate(inputs):
        moves = (mixer.move.weight @ x).split(d)
        points[t] = _normal([z + move for z, move in zip(points[t], moves, strict=True)], heads)
    mass = [softplus(mixer.mass.weight @ x) + 1e-4 for x in inputs]
    value = inputs.values([mixer.value.weight @ x for x in inputs])
    taken: list[Vectors] = []
    for h in range(heads):
        q = [inputs.rotate(at[h], t) for t, at in enumerate(points)]
        k = [inputs.rotate(at[h - heads], t) for t, at in enumerate(points)]
        means = []
        for i in range(len(inputs)):
            whole, sums = torch.zeros(()), torch.zeros(e)
            tokens = list(range(i + 1))
            if config.far_field == "blocks":
                of_head = [x[h * e : (h + 1) * e] for x in value]
                far = _bodies(config, mixer, h, q[i], k, [x[h] for x in mass], of_head, i)
                for w, mean in far.left:
                    sums, whole = sums + w * mean, whole + w
                tokens = far.tokens
            for j in tokens:
                squared = _squared_distance(config, mixer, h, q[i], k[j])
                w = _weight(config, mixer, h, squared, mass[i][h], mass[j][h])
                if j != i:
                    w = w * _share(config, mixer, h, squared)
                sent = value[j][h * e : (h + 1) * e]
                sums = sums + w * (sent * mass[j][h] if config.mass_in_value else sent)
                whole = whole + w
            means.append(sums / whole)
        taken.append(means)
    return [mixer.out.weight @ y for y in joined(taken)]
