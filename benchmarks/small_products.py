"""Products of a few rows with a weight matrix, as decoding makes them, in several forms.

    python -m benchmarks.small_products --rows 1 4 16

One JSON object for each shape and number of rows: microseconds of processor time, the least of five
turns. So many copies of each matrix are read in turn that none stays in the processor's cache.
`rows` is what a linear layer does, `columns` the same with the matrix stored by columns (what
`holo generate` uses), `transposed` computes (W x^T)^T, `padded` adds rows of zeros up to 64, and
`packed` lets oneDNN lay out the matrix.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.experiment.machine import describe_machine

SHAPES = ((1536, 512), (512, 512), (2048, 512), (512, 2048), (8192, 512))  # of the presets `25m`
READ_BYTES = 120e6  # more than a cache holds
TURNS = 5
PADDED = 64

Product = Callable[[Tensor, Tensor], Tensor]


def padded(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(F.pad(x, (0, 0, 0, PADDED - x.shape[0])), weight)[: x.shape[0]]


def packed(x: Tensor, weight: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return out


# each form: how a matrix is stored, and the product with it
FORMS: dict[str, tuple[Callable[[Tensor], Tensor], Product]] = {
    "rows": (Tensor.contiguous, F.linear),
    "columns": (lambda weight: weight.t().contiguous().t(), F.linear),
    "transposed": (Tensor.contiguous, lambda x, weight: torch.mm(weight, x.t()).t()),
    "padded": (Tensor.contiguous, padded),
    "packed": (Tensor.to_mkldnn, packed),
}


def microseconds(product: Product, x: Tensor, weights: Sequence[Tensor]) -> float:
    """Of one product: the least of the turns."""
    best = float("inf")
    for turn in range(TURNS + 1):
        begun = time.process_time()
        for weight in weights:
            product(x, weight)
        if turn:  # the first is warming up
            best = min(best, (time.process_time() - begun) / len(weights))
    return best * 1e6


@torch.no_grad()
def measured(outputs: int, inputs: int, rows: int) -> dict[str, float]:
    """Microseconds of each form that this machine has, after a check that all agree."""
    copies = max(2, round(READ_BYTES / (4 * outputs * inputs)))
    matrices = [torch.randn(outputs, inputs) for _ in range(copies)]
    x = torch.randn(rows, inputs)
    expected = x.double() @ matrices[0].double().t()
    found = {}
    for name, (store, product) in FORMS.items():
        if name == "packed" and not torch.backends.mkldnn.is_available():
            continue
        stored = [store(matrix) for matrix in matrices]
        torch.testing.assert_close(product(x, stored[0]).double(), expected, atol=1e-3, rtol=1e-3)
        found[name] = round(microseconds(product, x, stored), 1)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for outputs, inputs in SHAPES:
        for rows in options.rows:
            times = measured(outputs, inputs, rows)
            row = {"outputs": outputs, "inputs": inputs, "rows": rows, "us": times}
            print(json.dumps(row), flush=True)
    print(json.dumps({"row": "machine", **describe_machine()}), flush=True)


if __name__ == "__main__":
    main()
