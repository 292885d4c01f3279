"""Which tokens of a sequence are learnt, where it holds conversations in the chat format."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.chat_format import ChatMarks

if TYPE_CHECKING:
    from holo_cli.data.tokenizers import Tokenizer


class AnswerIndex:
    """Which tokens of a sequence are learnt: all of plain documents, the answers of conversations.

    A token belongs to an answer if the last mark before it is the assistant's; to a plain document
    if that is an end. The index holds the places of the marks, 9 bytes each.
    """

    def __init__(self, shards: Sequence[NDArray[Any]], marks: ChatMarks) -> None:
        """`shards`: the tokens, as one sequence. Reads them on first use."""
        self._shards, self._marks = shards, marks

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Where the marks are, and what they are: 0 an end, 1 the assistant, 2 another role."""
        marks = self._marks
        wanted = np.array([marks.end, marks.assistant, marks.system, marks.user])
        places, kinds, start = [np.empty(0, np.int64)], [np.empty(0, np.int8)], 0
        for shard in self._shards:
            at = np.flatnonzero(np.isin(shard, wanted))
            token = np.asarray(shard[at], dtype=np.int64)
            kind = np.where(token == marks.end, 0, np.where(token == marks.assistant, 1, 2))
            places.append(at + start)
            kinds.append(kind.astype(np.int8))
            start += len(shard)
        return np.concatenate(places), np.concatenate(kinds)

    def scored(self, start: int, count: int) -> NDArray[np.bool_]:
        """Whether each of the tokens start .. start + count - 1 is learnt, (count,)."""
        places, kinds = self._places
        at = np.arange(start, start + count)
        following = np.searchsorted(places, at)  # the first mark at or after each token
        before = np.where(following > 0, kinds[following - 1], 0) if len(places) else 0 * at
        learnt = before != 2
        if not len(places):
            return learnt
        own = np.minimum(following, len(places) - 1)
        learnt &= ~((places[own] == at) & (kinds[own] > 0))  # the marks themselves
        # a language marker before the first mark of a conversation
        begins = (places[own] == at + 1) & (kinds[own] > 0) & (before == 0)
        return learnt & ~begins


def token_sizes(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """The bytes of text of each id, (V,)."""
    return np.array([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])
