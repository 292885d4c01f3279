"""ngt in its slow obvious form: the oracle that the fast one is tested against.

One position, one head, one layer at a time, by the formulas, in the dtype of the weights; shares no
code with the fast path and reads only its weights. Distances are sums of squared differences, and
weights are made one by one. Also holds what the contract suite needs to know about this model:
`CASES` and `disable`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.layers.mlp import MLP
from holo_cli.models.base import LanguageModel
from holo_cli.models.ngt.mixer import GravityMixer
from holo_cli.models.ngt.model import GravityBlock, Model

# Config overrides on top of the suite's small shapes: every path of the model once.
CASES: dict[str, dict[str, Any]] = {
    "gravity": {},
    "gravity-learned": {
        "learn_power": True,
        "power": 2.0,
        "lambda_repulsion": 0.01,
        "mass_in_value": True,
    },
    "gravity-shared": {"separate_coords": False, "coords": 8, "power": 2.0},
    "gravity-options": {
        "power": 3.0,
        "coords_from": "position+token",
        "conv": 4,
        "bigrams": 61,
        "tied": False,
        "rope_fraction": 0.5,
    },
    "gravity-soft": {"radius_mode": "soft", "radius": 2.0},
    "gravity-hard": {"radius_mode": "hard", "radius": 3.0, "tau": 0.5},
    "gaussian": {"kernel": "gaussian"},
    "lorentz": {"kernel": "lorentz"},
    "lorentz-hard": {"kernel": "lorentz", "radius_mode": "hard", "radius": 3.0},
    "classic": {"kernel": "classic"},
}


def disable(model: LanguageModel) -> None:
    """Switch the mixing of tokens off, for good: gravity writes nothing into the stream."""
    for module in model.modules():
        if isinstance(module, GravityMixer):
            nn.init.zeros_(module.out.weight)
            module.out.weight.requires_grad_(False)


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T, V), row by row."""
    assert isinstance(model, Model)
    return torch.stack([_row(model, row) for row in tokens])


def _norm(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean() + 1e-6).sqrt()


def _normal(points: list[Tensor], heads: int) -> list[Tensor]:
    """A token's points, divided by the root mean square of the set they belong to."""
    out = []
    for n in range(0, len(points), heads):
        together = _norm(torch.cat(points[n : n + heads]))
        out += list(together.chunk(heads))
    return out


def _turn(z: Tensor, position: int, base: float, fraction: float) -> Tensor:
    """The pairs (i, i + d/2) turned as complex numbers by position * base^(-i / rotated)."""
    half = len(z) // 2
    rotated = round(half * fraction)
    angles = [position * base ** (-i / rotated) for i in range(rotated)] + [0.0] * (half - rotated)
    angle = torch.tensor(angles, dtype=z.dtype)
    pair = torch.complex(z[:half], z[half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((pair.real, pair.imag))


def _squared_distance(model: Model, mixer: GravityMixer, head: int, a: Tensor, b: Tensor) -> Tensor:
    if model.config.kernel != "lorentz":
        return ((a - b) ** 2).sum()
    beta = dict(mixer.kernel.named_parameters())["log_beta"][head].exp()
    inner = a @ b - (beta + a @ a).sqrt() * (beta + b @ b).sqrt()
    return -2 * beta - 2 * inner


def _weight(
    model: Model, mixer: GravityMixer, head: int, squared: Tensor, m_i: Tensor, m_j: Tensor
) -> Tensor:
    """What j weighs for i, before the row is divided by its sum."""
    config = model.config
    learned = {name: p[head] for name, p in mixer.kernel.named_parameters()}
    if config.mass_in_value:
        m_i = m_j = torch.ones_like(m_j)
    if config.kernel == "gravity":
        power: Any = config.power
        if config.learn_power:
            power = 16 / (1 + (-learned["steepness"]).exp())
        return m_j / (config.eps + learned["softening"].exp() + squared) ** (power / 2)
    gamma = learned["log_gamma"].exp()
    if config.kernel == "classic":
        return (-gamma * m_i * m_j / (squared + config.eps)).exp()
    return m_j * (-gamma * squared).exp()


def _share(model: Model, mixer: GravityMixer, head: int, squared: Tensor) -> Tensor:
    """What the radius leaves of another token's weight."""
    if mixer.radius_cutoff is None:
        return torch.ones_like(squared)
    radius = mixer.radius_cutoff.radius[head]
    if model.config.radius_mode == "hard" and not model.training:
        return (squared <= radius**2).to(squared.dtype)
    return 1 / (1 + (-(radius**2 - squared) / model.config.tau).exp())


def _mix(model: Model, mixer: GravityMixer, inputs: list[Tensor], at: list[list[Tensor]]) -> None:
    """Replaces each of `inputs` by what its token takes from the past; moves `at`, in place."""
    config = model.config
    heads, d, e = config.heads, mixer.coords, config.width // config.heads
    turn = (config.rope_base, config.rope_fraction)
    for t, x in enumerate(inputs):
        shift = mixer.move.weight @ x
        at[t] = _normal([z + shift[n * d : (n + 1) * d] for n, z in enumerate(at[t])], heads)
    mass = [(1 + (mixer.mass.weight @ x).exp()).log() + 1e-4 for x in inputs]
    value = [mixer.value.weight @ x for x in inputs]
    heard: list[list[Tensor]] = [[] for _ in inputs]
    for h in range(heads):
        q = [_turn(points[h], t, *turn) for t, points in enumerate(at)]
        k = [_turn(points[h - heads], t, *turn) for t, points in enumerate(at)]
        for i in range(len(inputs)):
            total, sums = torch.zeros(()), torch.zeros(e)
            for j in range(i + 1):
                squared = _squared_distance(model, mixer, h, q[i], k[j])
                w = _weight(model, mixer, h, squared, mass[i][h], mass[j][h])
                if j != i:
                    w = w * _share(model, mixer, h, squared)
                sent = value[j][h * e : (h + 1) * e]
                sums = sums + w * (sent * mass[j][h] if config.mass_in_value else sent)
                total = total + w
            heard[i].append(sums / total)
    for t, parts in enumerate(heard):
        inputs[t] = mixer.out.weight @ torch.cat(parts)


def _embed(model: Model, row: Tensor) -> list[Tensor]:
    config = model.config
    stream = [model.embedding.token.weight[token] for token in row]
    if model.embedding.pair is not None:
        before = torch.cat((torch.tensor([-1]), row[:-1]))
        for t, (a, b) in enumerate(zip(before.tolist(), row.tolist(), strict=True)):
            number = (a + 1) * config.vocab_size + b
            if (config.vocab_size + 1) * config.vocab_size > config.bigrams:
                number = (number * 2_654_435_761 % 2**31) // 8
            stream[t] = stream[t] + model.embedding.pair.weight[number % config.bigrams]
    return [_norm(x) for x in stream]


def _read(block: GravityBlock, stream: list[Tensor]) -> list[Tensor]:
    """What a block's mixer sees: the normalised stream, convolved where there is a convolution."""
    inputs = [_norm(x) for x in stream]
    if block.conv is None:
        return inputs
    mixed = []
    for t in range(len(inputs)):
        taps = range(min(block.conv.taps, t + 1))
        x = torch.stack([block.conv.weight[k] * inputs[t - k] for k in taps]).sum(0)
        mixed.append(x / (1 + (-x).exp()))
    return mixed


def _row(model: Model, row: Tensor) -> Tensor:
    config = model.config
    d = config.dimensions
    stream = _embed(model, row)
    at: list[list[Tensor]] = []
    for x in stream:
        z: Tensor = model.initial_coordinates.origin
        if model.initial_coordinates.token is not None:
            z = z + model.initial_coordinates.token.weight @ x
        at.append(_normal([z[n : n + d] for n in range(0, len(z), d)], config.heads))
    for block in model.gravity_blocks():
        assert isinstance(block.mlp, MLP)
        taken = _read(block, stream)
        _mix(model, block.mixer, taken, at)
        for t in range(len(stream)):
            stream[t] = stream[t] + taken[t]
            hidden = (block.mlp.up.weight @ _norm(stream[t])).clamp_min(0) ** 2
            stream[t] = stream[t] + block.mlp.down.weight @ hidden
    out = torch.stack([model.head.weight @ _norm(x) for x in stream])
    return config.soft_cap * torch.tanh(out / config.soft_cap) if config.soft_cap else out
