"""How the weight of ngt's trained heads is spread over near and far tokens.

    python -m benchmarks.gravity_mass --checkpoint NAME --data SET --tokens 4096

The first tokens of the validation text go through the model; of the second half of the queries,
per layer and as means over heads and queries, the share of the weight (each query's adds up to 1)

    largest_K   on the K keys of the largest weight
    nearest_K   on the K keys of the smallest distance
    recent_N    on the query's own block of time and the one before it, of N tokens each
    blocks_K    on those and the K other blocks of N tokens (`--block`) that have the most weight
    ranked_K    the same with blocks ranked by what one body in the place of each would weigh
    bound_K     the same ranked by mass / (eps + max(0, |q - c| - r)^2)^(p/2)

Prints a JSON row per layer.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.radius import particles_of_layers
from holo_cli.models.ngt.kernels import Gravity
from holo_cli.models.ngt.mixer import GravityMixer, Particles

NUMBERS = (1, 8, 32, 128)
BLOCKS = (0, 1, 2, 4, 8, 16)


def shares(kernel: Gravity, p: Particles, head: int, block: int) -> dict[str, Tensor]:
    """(queries,) each, of one head of the first row."""
    length = p.q.shape[2]
    first = length // 2
    pick = torch.tensor([head])
    q, k = p.q[0, head, first:], p.k[0, head]
    squared = kernel.squared(q[None], k[None], pick)[0]
    later = torch.ones(length - first, length, dtype=torch.bool).triu(first + 1)
    score = kernel.score(squared[None], p.m[:, head], p.m[:, head].log(), pick)[0]
    w = score.masked_fill_(later, float("-inf")).softmax(-1)
    squared.masked_fill_(later, float("inf"))
    out: dict[str, Tensor] = {}
    best = w.topk(max(NUMBERS), dim=1).values.cumsum(1)
    near = w.gather(1, squared.topk(max(NUMBERS), dim=1, largest=False).indices).cumsum(1)
    for number in NUMBERS:
        out[f"largest_{number}"] = best[:, number - 1]
        out[f"nearest_{number}"] = near[:, number - 1]
    # whole blocks: what is left over at the end counts as recent
    per_block = w[:, : length // block * block].unflatten(1, (-1, block)).sum(2)
    own = torch.arange(first, length)[:, None] // block
    old = torch.arange(per_block.shape[1]) < own - 1
    far = per_block * old
    recent = 1 - far.sum(1)
    out[f"recent_{block}"] = recent
    estimate, bound = ranks(kernel, q, k, p.m[0, head], head, block)
    for name, rank in (("blocks", far), ("ranked", estimate), ("bound", bound)):
        order = rank.masked_fill(~old, -1).argsort(1, descending=True)
        found = far.gather(1, order).cumsum(1)
        for number in BLOCKS[1:]:
            last = min(number, found.shape[1]) - 1
            out[f"{name}_{number}"] = recent + found[:, last]
    return out


def ranks(
    kernel: Gravity, q: Tensor, k: Tensor, m: Tensor, head: int, block: int
) -> tuple[Tensor, Tensor]:
    """(queries, blocks) each: the weight of one body, and the bound on the block's weight."""
    whole = k.shape[0] // block * block
    k, m = k[:whole].unflatten(0, (-1, block)), m[:whole].unflatten(0, (-1, block))
    mass = m.sum(1)
    centre = (m * k).sum(1) / mass
    square = (m * k.square().sum(-1, keepdim=True)).sum(1) / mass
    reach = (k - centre[:, None]).norm(dim=-1).amax(1)
    eps, half = kernel.eps()[head], 0.5 * kernel.power()[head]
    mean_square = q.square().sum(-1, keepdim=True) - 2 * q @ centre.mT + square.mT
    away = (torch.cdist(q, centre) - reach).clamp_min(0)
    return mass.mT * (eps + mean_square) ** -half, mass.mT * (eps + away.square()) ** -half


def row(mixer: GravityMixer, p: Particles, block: int) -> dict[str, float]:
    """Means over heads and queries."""
    assert isinstance(mixer.kernel, Gravity)
    found = [shares(mixer.kernel, p, head, block) for head in range(mixer.heads)]
    return {
        name: round(torch.stack([f[name] for f in found]).double().mean().item(), 4)
        for name in found[0]
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--block", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    layers = particles_of_layers(args.checkpoint, args.data, args.tokens)
    for number, (mixer, p) in enumerate(layers, 1):
        print(json.dumps({"layer": number, **row(mixer, p, args.block)}), flush=True)


if __name__ == "__main__":
    main()
