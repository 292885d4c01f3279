"""How much could plates recall, were everything around them perfect? A simulation without training.

    python -m benchmarks.plate_ceiling

Pairs of a key and one of 32 values stand at random positions of a text. All are stored without
decay, a key is asked for at the end, and of the 32 values the one with the largest product with the
reading counts. Values are normal vectors over two heads of 16 complex channels. Keys are

    free      independent uniform phases on every plate: the best that learned maps can do
    gaussian, gravity   points of 8 normal coordinates a head, of standard deviation --spread, read
              at the fixed frequencies of `model.phases`
    shared    gaussian, all channels of a plate at one frequency: random features in the usual form
    routed-1, routed-2   free, but a pair is written to one or two of the plates alone, and read
              from the same, which its key chooses (perfectly: equal keys, equal plates)

and turn with position over the first `share` of the channels: plate by plate as in the model, but
of each plate for routed keys, since a pair whose plates all turn could not be found. With `quiet`
the reader leaves out what turns, which a magnitude per channel of the query would allow.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from holo_cli.models.holographic.phasors import phase_rates
from holo_cli.models.holographic.random_features import KernelName, frequencies

HEADS, CHANNELS, VALUES, COORDS = 2, 16, 32, 8


def phases(kind: str, plates: int, items: int, spread: float, make: torch.Generator) -> Tensor:
    """(N, H, R, f)"""
    if kind == "free" or kind.startswith("routed"):
        shape = (items, HEADS, plates, CHANNELS)
        return 2 * math.pi * torch.rand(shape, generator=make)
    kernel: KernelName = "gravity" if kind == "gravity" else "gaussian"
    w = frequencies(kernel, plates, CHANNELS, COORDS, torch.float32, torch.device("cpu"))
    if kind == "shared":
        w = w[:, :1].expand_as(w)
    z = spread * torch.randn(items, HEADS, COORDS, generator=make)
    return torch.einsum("rfd,nhd->nhrf", w, z)


def right(
    kind: str, plates: int, share: float, length: int, items: int,
    spread: float, quiet: bool, trials: int,
) -> float:  # fmt: skip
    """Share of the trials in which the right value is chosen."""
    make = torch.Generator().manual_seed(0)
    rate = torch.tensor(phase_rates(plates * CHANNELS, share)).view(plates, CHANNELS)
    routes = int(kind.rpartition("-")[2]) if kind.startswith("routed") else plates
    if routes < plates:
        rate = torch.tensor(phase_rates(CHANNELS, share)).expand(plates, CHANNELS)
    heard = (rate == 0).float() if quiet else torch.ones_like(rate)
    found = 0
    for _ in range(trials):
        code = torch.view_as_complex(torch.randn(VALUES, HEADS, CHANNELS, 2, generator=make))
        value = torch.randint(VALUES, (items,), generator=make)
        at = torch.randperm(length // 2, generator=make)[:items] * 2
        key = phases(kind, plates, items, spread, make)
        scores = torch.rand(items, HEADS, plates, generator=make)
        chosen = scores >= scores.topk(min(routes, plates), dim=-1).values[..., -1:]  # (N, H, R)
        stored = key + at[:, None, None, None] * rate
        query = key[0] + length * rate  # of the first pair
        plate = torch.einsum(
            "nhrf,nhf->hrf",
            torch.polar(chosen[..., None].expand_as(stored).float(), stored),
            code[value],
        )
        read = torch.polar(chosen[0, ..., None].expand_as(query).float(), -query) * plate * heard
        read = read.sum(1)  # (H, f)
        score = (code.conj() * read).real.sum((1, 2))
        found += int(score.argmax() == value[0])
    return found / trials


def main() -> None:
    parser = argparse.ArgumentParser(description="Ceilings of recall from plates, simulated.")
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--spread", type=float, default=1.0)
    parser.add_argument("--keys", default="free,gaussian,gravity,shared")
    options = parser.parse_args()
    kinds = options.keys.split(",")
    for length, items in ((64, 16), (256, 16)):
        print(f"\nT {length}, {items} pairs: % right, share 1 / .5 / .25 / 0; quiet at .25\n")
        print("| keys | " + " | ".join(f"{r} plates" for r in (1, 4, 8, 16)) + " |")
        print("|---|" + "---|" * 4)
        for kind in kinds:
            cells = []
            for plates in (1, 4, 8, 16):
                cases = [(1.0, False), (0.5, False), (0.25, False), (0.0, False), (0.25, True)]
                *shares, quiet = (
                    round(
                        100
                        * right(
                            kind, plates, share, length, items,
                            options.spread, left_out, options.trials,
                        )
                    )
                    for share, left_out in cases
                )  # fmt: skip
                cells.append(" / ".join(str(x) for x in shares) + f"; {quiet}")
            print(f"| {kind} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
