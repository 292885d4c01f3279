"""How Muon's updates are made nearly orthogonal: polynomials, time of both forms, distance.

    python -m benchmarks.orthogonal --polynomials
    python -m benchmarks.orthogonal --width 512 --layers 8 --heads 8 --rounds 5 [--threads 2]

The first computes the polynomials of `training/orthogonal.py`; the second times the updates of a
transformer of that shape in turns, with and without the matrices of heads, in bfloat16 or float32,
and says how far they are from the polar factor.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from torch import Tensor

from holo_cli.training.orthogonal import orthogonalise, polar_factor

LOW = 0.01  # singular values below this share of the bound stay below one
SCALE = 0.9  # of the last polynomial: updates as large as those of five published steps


def best_polynomial(low: float, high: float) -> tuple[float, float, float]:
    """(a, b, c): a x + b x^3 + c x^5 nearest to 1 on [low, high] by its largest error.

    Remez' exchange: the error takes its largest value at both ends and at the two extrema between.
    """
    inner = np.array([(3 * low + high) / 4, (low + 3 * high) / 4])
    a = b = c = 0.0
    for _ in range(100):
        x = np.array([low, inner[0], inner[1], high])
        system = np.stack((x, x**3, x**5, [1, -1, 1, -1]), axis=1)
        a, b, c, _ = (float(v) for v in np.linalg.solve(system, np.ones(4)))
        root = np.sqrt(9 * b * b - 20 * a * c)
        inner = np.sqrt((-3 * b + np.array([-1.0, 1.0]) * root) / (10 * c))
    return a, b, c


def polynomials(steps: int = 3) -> list[tuple[float, float, float]]:
    """One for each step, on the interval that the ones before make of [LOW, 1]."""
    low, high, found = LOW, 1.0, []
    for _ in range(steps):
        a, b, c = best_polynomial(low, high)
        found.append((a, b, c))
        values = np.linspace(low, high, 200_001)
        values = a * values + b * values**3 + c * values**5
        low, high = float(values.min()), float(values.max())
    a, b, c = found[-1]
    return [*found[:-1], (SCALE * a, SCALE * b, SCALE * c)]


def batches(width: int, layers: int, heads: int, *, by_head: bool) -> list[Tensor]:
    """Gaussian matrices of the shapes that Muon meets in a transformer, a batch for each shape."""
    squares = layers * (1 if by_head else 4)
    found = [torch.randn(squares, width, width), torch.randn(2 * layers, width, 4 * width)]
    if by_head:
        found.append(torch.randn(3 * heads * layers, width // heads, width))
    return found


def distance(matrices: Tensor, steps: int, dtype: torch.dtype) -> float:
    """1 - cosine between an update and the polar factor, mean over the matrices."""
    near = orthogonalise(matrices, steps, dtype).double().flatten(1)
    true = polar_factor(matrices.double()).flatten(1)
    return float(1 - torch.cosine_similarity(near, true).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--polynomials", action="store_true")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    args = parser.parse_args()
    if args.polynomials:
        for a, b, c in polynomials():
            print(f"({a:.5f}, {b:.5f}, {c:.5f})")
        return
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    forms = [(steps, by_head) for by_head in (False, True) for steps in (5, 3)]
    sizes = {h: batches(args.width, args.layers, args.heads, by_head=h) for h in (False, True)}
    times: dict[tuple[int, bool], list[float]] = {form: [] for form in forms}
    for turn in range(args.rounds + 1):  # the first warms up
        for steps, by_head in forms:
            started = time.process_time()
            for batch in sizes[by_head]:
                orthogonalise(batch, steps, dtype)
            if turn:
                times[steps, by_head].append(time.process_time() - started)
    before = times[5, False]
    for form in forms:
        ratios = [old / new for old, new in zip(before, times[form], strict=True)]
        print(
            f"{form[0]} steps{', by head' if form[1] else ''}: "
            f"{1e3 * statistics.median(times[form]):.0f} ms of processor time, "
            f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    for batch in sizes[True]:
        shape = " x ".join(str(n) for n in batch.shape[1:])
        near = [distance(batch[:2], steps, dtype) for steps in (5, 3)]
        print(f"{shape}: 1 - cosine to the polar factor {near[0]:.4f} (5), {near[1]:.4f} (3)")


if __name__ == "__main__":
    main()
