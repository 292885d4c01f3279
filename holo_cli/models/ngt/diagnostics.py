"""Per-layer snapshots of the particles, and the figures that training logs of them.

Legend: B rows, T positions, H heads, G sets of points per token, d coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from holo_cli.layers.norm import rms_norm
from holo_cli.models.backbone import Backbone
from holo_cli.models.ngt.mixer import GravityMixer, Particles
from holo_cli.models.ngt.repulsion import repulsion

SAMPLE = 256  # positions that `measures` uses: weights are T^2 per head


class Snapshot(NamedTuple):
    """One layer's particles and weights."""

    particles: Particles
    z: Tensor  # (B, T, G, H d), before rotation
    masses: Tensor  # (B, T, H)
    squared: Tensor  # (B, H, T, T), squared distances of the kernel
    weights: Tensor  # (B, H, T, T), rows sum to one


def gravity_mixers(model: Backbone) -> list[GravityMixer]:
    """The mixers, first to last."""
    return [b.mixer for b in model.layers() if isinstance(b.mixer, GravityMixer)]


def snapshots(model: Backbone, tokens: Tensor) -> list[Snapshot]:
    """(B, T) int64 -> a snapshot per layer; O(T^2) memory per layer and head."""
    x = rms_norm(model.embedding(tokens))
    z = model.side_stream(tokens, x, None)
    stream = model.value_stream(tokens, x)
    layers = []
    for block, mixer in zip(model.layers(), gravity_mixers(model), strict=True):
        u = block.read(x)
        x, z, _ = block(x, stream, z)
        masses = mixer.masses(u)
        particles = mixer.particles(u, z, masses, 0)
        squared = mixer.kernel.squared(particles.q, particles.k)
        layers.append(Snapshot(particles, z, masses, squared, mixer.weights(particles)))
    return layers


def measures(model: Backbone, tokens: Tensor) -> dict[str, float]:
    """Figures of the first row, means over heads, by "layerN/name".

    distance: mean of d over past pairs; entropy: of a row of weights, in nats, mean over rows;
    mass_min, mass_max, mass_mean; the kernel's own (power, eps, gamma, beta); with a radius,
    radius and beyond, the share of past pairs farther apart than it; repulsion, unweighted.
    """
    out: dict[str, float] = {}
    layers = snapshots(model, tokens[:1, :SAMPLE])
    for number, (mixer, layer) in enumerate(zip(gravity_mixers(model), layers, strict=True), 1):
        name = f"layer{number}"
        length = layer.squared.shape[-1]
        w = layer.weights.double()
        figures = {
            "entropy": -(w * w.clamp_min(1e-300).log()).sum(-1).mean(),
            "mass_min": layer.masses.min(),
            "mass_max": layer.masses.max(),
            "mass_mean": layer.masses.mean(),
        }
        figures |= {key: value.mean() for key, value in mixer.kernel.figures().items()}
        if mixer.radius_cutoff is not None:
            figures["radius"] = mixer.radius_cutoff.radius.abs().mean()
        if length > 1:
            past = layer.squared.new_ones(length, length).tril(-1).bool()
            figures["distance"] = layer.squared[..., past].sqrt().mean()
            if mixer.radius_cutoff is not None:
                square = mixer.radius_cutoff.radius.square()[:, None]
                figures["beyond"] = (layer.squared[..., past] > square).double().mean()
            figures["repulsion"] = repulsion(mixer.key_points(layer.z), layer.masses, mixer.pairs)
        out |= {f"{name}/{key}": value.item() for key, value in figures.items()}
    return out
