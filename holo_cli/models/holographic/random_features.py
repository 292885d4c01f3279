"""Fixed frequencies whose phases make plates an estimate of a chosen kernel.

A key of plate r is e^{i w_r . z} for a learned point z of d coordinates. The mean over plates of
conj(k(z)) k(z') is then an unbiased estimate of the characteristic function of the distribution
that the frequencies w are drawn from, at z' - z (Bochner; Rahimi & Recht 2007; Peng et al. 2021,
arXiv 2103.02143):

    gaussian   w normal                               exp(-r^2 / 2)
    gravity    w normal, scaled by sqrt(Gamma(p/2))    (1 + r^2 / p)^(-p/2), p = 8 as in ngt

The second is ngt's kernel: a power of the distance is a mixture of Gaussians over all widths
(docs/theory.md, 3.2), so its frequencies are normal ones of gamma-distributed variance. (Those of a
multivariate t would give Matern kernels, whose tails are light.)

Frequencies are orthogonal within d plates of a channel, which lowers the error (Yu et al. 2016,
arXiv 1610.09072). They are a function of the sizes alone, computed by Python's own generator, whose
numbers are the same everywhere: a checkpoint needs no copy of them.

Legend: R plates, f complex channels of a head, d coordinates.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

KernelName = Literal["gaussian", "gravity"]
POWER = 8  # p of gravity, even: Gamma(p/2) is then a sum of exponential variates
SEED = 20_210_302


def frequencies(
    kernel: KernelName,
    plates: int,
    channels: int,
    coords: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """(R, f, d); all heads and layers share them, since each has points of its own."""
    return _table(kernel, plates, channels, coords, dtype, device)


# to torch.compile a constant: it would follow the drawing of numbers, and cannot. This is what
# torch.compiler.assume_constant_result does, which imports the compiler with every start
frequencies._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=32)
def _table(
    kernel: KernelName,
    plates: int,
    channels: int,
    coords: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    generator = random.Random(SEED)
    drawn = [_of_channel(kernel, plates, coords, generator) for _ in range(channels)]
    # outside inference mode: a table cached while generating may serve a training step later
    with torch.inference_mode(False):
        table = torch.tensor(drawn, dtype=torch.float64, device="cpu").transpose(0, 1)
        return table.contiguous().to(dtype).to(device)


def kernel_value(kernel: KernelName, squared: Tensor) -> Tensor:
    """What the plates estimate, at squared distances."""
    if kernel == "gaussian":
        return (-squared / 2).exp()
    result: Tensor = (1 + squared / POWER) ** (-POWER / 2)
    return result


def _of_channel(
    kernel: KernelName, plates: int, coords: int, generator: random.Random
) -> list[list[float]]:
    """R frequencies of d numbers."""
    found: list[list[float]] = []
    while len(found) < plates:
        for direction in _directions(coords, generator):
            # the length of a normal vector, independent of its direction
            length = math.sqrt(sum(generator.gauss(0.0, 1.0) ** 2 for _ in range(coords)))
            if kernel == "gravity":
                shape = POWER // 2
                gamma = -sum(math.log(1.0 - generator.random()) for _ in range(shape))
                length *= math.sqrt(gamma / shape)
            found.append([length * a for a in direction])
    return found[:plates]


def _directions(count: int, generator: random.Random) -> list[list[float]]:
    """An orthonormal basis, evenly distributed: Gram-Schmidt of normal vectors."""
    basis: list[list[float]] = []
    while len(basis) < count:
        v = [generator.gauss(0.0, 1.0) for _ in range(count)]
        for _ in range(2):  # the second pass removes what rounding left
            for b in basis:
                along = sum(p * q for p, q in zip(b, v, strict=True))
                v = [p - along * q for p, q in zip(v, b, strict=True)]
        norm = math.sqrt(sum(p * p for p in v))
        if norm > 1e-6:
            basis.append([p / norm for p in v])
    return basis
