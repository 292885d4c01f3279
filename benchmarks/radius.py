"""Time of ngt's weighted mean with a hard radius and without one, on a checkpoint's coordinates.

    python benchmarks/radius.py --checkpoint NAME --data SET --cut 0.9 --threads 1
    python benchmarks/radius.py --checkpoint NAME --data SET --cut 0.9 --skippable

The first 4,096 tokens of the validation text go through the model; then each layer is timed in
interleaved rounds: a hard radius, none, and the slow reference `general_attention`. `--cut` sets
each head's radius so that it cuts this share of the past pairs; without it the learned radius is
used. `--skippable` measures instead, per layer, the share of work that blocks of 16 to 128 queries
could leave out. Prints a JSON row per layer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from holo_cli.checkpoint.rebuild import load_model
from holo_cli.data.dataset import PreparedData
from holo_cli.layers.norm import rms_norm
from holo_cli.models.backbone import Backbone
from holo_cli.models.ngt.diagnostics import gravity_mixers
from holo_cli.models.ngt.mixer import GravityMixer, Particles
from holo_cli.models.ngt.radius import RadiusCutoff, attention_within_radius, general_attention


def particles_of_layers(
    checkpoint: str, data: Path, length: int
) -> Iterator[tuple[GravityMixer, Particles]]:
    """Each layer with its particles for the first tokens of the validation text."""
    model, _, _ = load_model(checkpoint)
    assert isinstance(model, Backbone)
    text = PreparedData.open(data).split("val")[0][:length].astype("int64")
    tokens = torch.as_tensor(text)[None]
    x = rms_norm(model.embedding(tokens))
    z, stream = model.side_stream(tokens, x, None), model.value_stream(tokens, x)
    for block, mixer in zip(model.layers(), gravity_mixers(model), strict=True):
        u = block.read(x)
        x, z, _ = block(x, stream, z)
        yield mixer, mixer.particles(u, z, mixer.masses(u), 0)


def layers(args: argparse.Namespace) -> Iterator[tuple[GravityMixer, RadiusCutoff, Particles]]:
    """Each layer with its particles for the text, the radius set."""
    for mixer, p in particles_of_layers(args.checkpoint, args.data, args.tokens):
        cutoff = mixer.radius_cutoff
        if cutoff is None or not cutoff.cuts:
            raise SystemExit("The model has no hard radius. Train one with model.radius_mode=hard.")
        if args.cut is not None:
            pairs = mixer.kernel.squared(p.q, p.k)[0][:, past(args.tokens)]
            rank = max(1, round((1 - args.cut) * pairs.shape[1]))
            cutoff.radius.copy_(pairs.kthvalue(rank, dim=1).values.sqrt())
        yield mixer, cutoff, p


def past(tokens: int) -> Tensor:
    """(T, T) bool: keys before the query."""
    return torch.ones(tokens, tokens, dtype=torch.bool).tril(-1)


def timed(mixer: GravityMixer, cutoff: RadiusCutoff, p: Particles, rounds: int) -> dict[str, float]:
    """Medians in ms, and the time of no radius divided by that of a radius."""
    kernel, given = mixer.kernel, (p.q, p.k, p.m, p.m.log(), p.v)
    ways: dict[str, Callable[[], Tensor | None]] = {
        "radius": lambda: attention_within_radius(kernel, cutoff, *given),
        "none": lambda: kernel.attention(p.q, p.k, p.m, p.v),
        "reference": lambda: general_attention(kernel, cutoff, *given),
    }
    # processor time is free of other load, but counts both threads
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if number:  # the first round warms up
                times[name].append(clock() - start)
    row = {name: round(statistics.median(t) * 1e3, 1) for name, t in times.items()}
    ratios = [n / r for n, r in zip(times["none"], times["radius"], strict=True)]
    ends = {"": statistics.median(ratios), "_low": min(ratios), "_high": max(ratios)}
    row |= {f"none_by_radius{end}": round(x, 2) for end, x in ends.items()}
    return row | {"difference_in_float64": difference(mixer, cutoff, p)}


def difference(mixer: GravityMixer, cutoff: RadiusCutoff, p: Particles) -> float:
    """The largest between the tiles and the reference in float64.

    In float32 the two may fall on either side of the radius for a pair on its edge.
    """
    mixer.double()
    q, k, m, v = (x.double() for x in p)
    given = (mixer.kernel, cutoff, q, k, m, m.log(), v)
    off = (attention_within_radius(*given) - general_attention(*given)).abs().max().item()
    mixer.float()
    return float(f"{off:.1e}")


def skippable(mixer: GravityMixer, cutoff: RadiusCutoff, p: Particles) -> dict[str, float]:
    """Shares of the last 1,024 queries' work on all keys before them that could be left out.

    Queries and keys are sorted into clusters of one size by halving along the widest direction.
    `pairs_of_blocks_N`: blocks of N queries by N keys in which no pair is within the radius, as
    one who knows all distances would skip; `by_balls_N`: those that balls around both prove to be
    beyond it. `keys_N`: single keys that no query of N is within the radius of; `keys_by_balls_N`:
    those that a ball around the N queries proves to be.
    """
    queries = min(1024, p.q.shape[2] // 4)
    before = p.q.shape[2] - queries
    shares: dict[str, list[float]] = {}
    for head in range(p.q.shape[1]):
        pick = torch.tensor([head])
        q, k = p.q[0, head, before:], p.k[0, head, :before]
        square = cutoff.radius[head].square()
        reach = mixer.kernel.length(square, pick).item()
        near = mixer.kernel.squared(q[None], k[None], pick)[0] <= square

        def away(a: Tensor, b: Tensor, pick: Tensor = pick) -> Tensor:
            return mixer.kernel.length(mixer.kernel.squared(a[None], b[None], pick), pick)[0]

        for size in (16, 32, 64, 128):
            rows, columns = clusters(q, size), clusters(k, size)
            cells = near[rows.flatten()][:, columns.flatten()]
            of_keys = cells.unflatten(0, rows.shape).any(1)
            centres = q[rows].mean(1), k[columns].mean(1)
            balls = [
                torch.stack([away(c[None], x).max() for c, x in zip(centre, z, strict=True)])
                for centre, z in zip(centres, (q[rows], k[columns]), strict=True)
            ]
            found = {
                "pairs_of_blocks": of_keys.unflatten(1, columns.shape).any(2),
                "by_balls": away(*centres) <= reach + balls[0][:, None] + balls[1],
                "keys": of_keys,
                "keys_by_balls": away(centres[0], k) <= reach + balls[0][:, None],
            }
            for name, kept in found.items():
                shares.setdefault(f"{name}_{size}", []).append(1 - kept.double().mean().item())
    return {name: round(statistics.mean(values), 3) for name, values in shares.items()}


def clusters(x: Tensor, size: int) -> Tensor:
    """(n, d) -> indices (n / size, size) of points that are near each other."""

    def halves(index: Tensor) -> list[Tensor]:
        if len(index) <= size:
            return [index]
        y = x[index] - x[index].mean(0)
        widest = torch.linalg.eigh(y.mT @ y).eigenvectors[:, -1]
        order = index[(y @ widest).argsort()]
        middle = len(index) // size // 2 * size
        return halves(order[:middle]) + halves(order[middle:])

    return torch.stack(halves(torch.arange(len(x))))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--cut", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--skippable", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for number, (mixer, cutoff, p) in enumerate(layers(args), 1):
        far = mixer.kernel.squared(p.q, p.k)[0] > cutoff.radius.square()[:, None, None]
        row: dict[str, float] = {"layer": number, "threads": args.threads}
        row["cut"] = round(far[:, past(args.tokens)].double().mean().item(), 3)
        if args.skippable:
            row |= skippable(mixer, cutoff, p)
        else:
            row |= timed(mixer, cutoff, p, args.rounds)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
