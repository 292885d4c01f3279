"""The validation split in two halves: one for tuning, one for reporting.

A learning rate that was chosen by the loss on some text is slightly overfitted to that text.
Reported losses are therefore measured on text that no choice has used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.batches import documents
from holo_cli.data.dataset import PreparedData
from holo_cli.data.windows import DocumentSubset, TokenStream
from holo_cli.errors import DataError
from holo_cli.wording import counted

BLOCK = 4096  # tokens of a block, about; fewer in a small validation split
LEAST_BLOCKS = 8


def halves(data: PreparedData, context: int) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """The tokens of the tuning half and of the test half, as lists of blocks in order.

    Blocks alternate between the halves, so that both contain every long document and every
    language. Each block holds whole windows of `context` tokens, except perhaps the last. The
    halves depend on the tokens and the context alone. Raises DataError for too few tokens.
    """
    blocks = _blocks(data, context)
    return blocks[::2], blocks[1::2]


def half_streams(
    data: PreparedData, context: int
) -> tuple[TokenStream | DocumentSubset, TokenStream | DocumentSubset]:
    """The same halves as streams; of a set with conversations every second one, which know what of
    them is scored."""
    if data.chat is None:
        tune, test = halves(data, context)
        return TokenStream(tune), TokenStream(test)
    starts, lengths = documents(data, "val")
    if len(starts) < 2:
        raise DataError(
            f"The validation split of {data.path} has {counted(len(starts), 'conversation')}: too "
            "few for a tuning half and a test half.",
            next_step="Prepare it with a larger --val-fraction.",
        )
    stream = data.stream("val")
    tune_half, test_half = (
        DocumentSubset(stream, starts[half::2], lengths[half::2]) for half in (0, 1)
    )
    return tune_half, test_half


def _blocks(data: PreparedData, context: int) -> list[NDArray[Any]]:
    parts = data.split("val")
    tokens = np.concatenate(parts) if data.token_count("val") else np.empty(0)
    windows = min(BLOCK // context, len(tokens) // (LEAST_BLOCKS * context)) or 1
    size = windows * context
    blocks = [tokens[at : at + size] for at in range(0, len(tokens), size)]
    if len(blocks) < 2:
        raise DataError(
            f"The validation split of {data.path} has {counted(len(tokens), 'token')}: too few "
            "for a tuning "
            f"half and a test half of at least {counted(context, 'token')} each.",
            next_step="Prepare it with a larger --val-fraction, or compare with a shorter "
            "--context.",
        )
    return blocks
