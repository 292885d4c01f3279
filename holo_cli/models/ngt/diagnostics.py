"""Per-layer snapshots of the particles, and the figures that training logs of them.

Legend: B rows, T positions, H heads, G sets of points per token, d coordinates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from holo_cli.layers.norm import rms_norm
from holo_cli.models.ngt.mixer import Particles
from holo_cli.models.ngt.repulsion import repulsion

if TYPE_CHECKING:
    from holo_cli.models.ngt.model import Model

SAMPLE = 256  # positions that `measures` uses: weights are T^2 per head


class Snapshot(NamedTuple):
    """One layer's particles and weights."""

    particles: Particles
    z: Tensor  # (B, T, G, H d), before rotation
    masses: Tensor  # (B, T, H)
    squared: Tensor  # (B, H, T, T), squared distances of the kernel
    weights: Tensor  # (B, H, T, T), rows sum to one


def snapshots(model: Model, tokens: Tensor) -> list[Snapshot]:
    """(B, T) int64 -> a snapshot per layer; O(T^2) memory per layer and head."""
    x = rms_norm(model.embedding(tokens))
    z = model.initial_coordinates(x)
    layers = []
    for block in model.gravity_blocks():
        mixer, u = block.mixer, block.read(x)
        x, z, _ = block(x, z)
        masses = mixer.masses(u)
        particles = mixer.particles(u, z, masses, 0)
        squared = mixer.kernel.squared(particles.q, particles.k)
        layers.append(Snapshot(particles, z, masses, squared, mixer.weights(particles)))
    return layers


def measures(model: Model, tokens: Tensor) -> dict[str, float]:
    """Figures of the first row, means over heads, by "layerN/name".

    distance: mean of d over past pairs; entropy: of a row of weights, in nats, mean over rows;
    mass_min, mass_max, mass_mean; the kernel's own (power, eps, gamma, beta); with a radius,
    radius and beyond, the share of past pairs farther apart than it; repulsion, unweighted.
    """
    out: dict[str, float] = {}
    for number, (block, layer) in enumerate(
        zip(model.gravity_blocks(), snapshots(model, tokens[:1, :SAMPLE]), strict=True), start=1
    ):
        mixer, name = block.mixer, f"layer{number}"
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
