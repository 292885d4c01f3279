"""The validation split in two halves: one for tuning, one for reporting.

A learning rate that was chosen by the loss on some text is slightly overfitted to that text.
Reported losses are therefore measured on text that no choice has used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.answers import AnswerIndex
from holo_cli.data.dataset import PreparedData
from holo_cli.data.windows import TokenStream
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
    blocks = _blocks(data, context, data.split("val"))
    return blocks[::2], blocks[1::2]


def half_streams(data: PreparedData, context: int) -> tuple[TokenStream, TokenStream]:
    """The same halves, which know what of them is scored."""
    tune, test = halves(data, context)
    if data.chat is None:
        return TokenStream(tune), TokenStream(test)
    # of the whole split: a block may begin within a question
    learnt = AnswerIndex(data.split("val"), data.chat).scored(0, data.token_count("val"))
    masks = _blocks(data, context, [learnt])
    return _masked(tune, masks[::2]), _masked(test, masks[1::2])


def _masked(blocks: list[NDArray[Any]], masks: list[NDArray[Any]]) -> TokenStream:
    together = np.concatenate(masks)
    return TokenStream(blocks, lambda start, count: together[start : start + count])


def _blocks(data: PreparedData, context: int, parts: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The validation split, or something of each of its tokens, in blocks."""
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
