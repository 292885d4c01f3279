"""The validation part in two halves: one to choose settings by, one to report.

A rate or a setting that is chosen by the loss on some text fits that text a little. What is
reported is therefore measured on text that chose nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.dataset import PreparedData
from holo_cli.errors import DataError

BLOCK = 4096  # tokens that stay together, about; less in a small validation part
LEAST_BLOCKS = 8


def halves(data: PreparedData, context: int) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """The tokens of the tune half and of the test half, as lists of blocks in order.

    Blocks go to the halves in turn, so that both have of every document and language that is long
    enough, and hold whole windows of `context` tokens (the last one excepted). They depend on the
    tokens and the context alone. Raises DataError where the validation part is too small.
    """
    tokens = np.concatenate(data.split("val")) if data.token_count("val") else np.empty(0)
    windows = min(BLOCK // context, len(tokens) // (LEAST_BLOCKS * context)) or 1
    size = windows * context
    blocks = [tokens[at : at + size] for at in range(0, len(tokens), size)]
    if len(blocks) < 2:
        raise DataError(
            f"The validation part of {data.path} has {len(tokens):,} tokens: too few for a half to "
            f"choose settings by and a half to report, of at least {context:,} tokens each.",
            next_step="Prepare it with a larger --val-fraction, or compare with a shorter "
            "--context.",
        )
    return blocks[::2], blocks[1::2]
