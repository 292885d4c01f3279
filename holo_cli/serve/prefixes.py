"""States kept for prompts that begin as an earlier one did: the next turn of a conversation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from holo_cli.inference.generation.engine import PrefixCache

MOST_ENTRIES = 256  # a lookup compares with each
MOST_ANSWERS = 1024


class Prefixes:
    """States after token sequences, least recently used ones dropped beyond `budget` bytes.

    Also remembers by which tokens an answer was written: encoded again, its text may give others,
    and the kept state would not fit. Used by the computing thread alone, but for `answer`.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._entries: OrderedDict[tuple[int, ...], tuple[PrefixCache, int]] = OrderedDict()
        self._answers: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, ids: Sequence[int]) -> PrefixCache | None:
        """The state after the longest beginning of `ids` that is known."""
        fitting = (c for c, _ in self._entries.values() if c.is_prefix_of(ids))
        best = max(fitting, key=lambda cache: len(cache.ids), default=None)
        if best is not None:
            self._entries.move_to_end(best.ids)
        return best

    def keep(self, cache: PrefixCache) -> None:
        """Keeps a state, and drops what no longer fits."""
        size = cache.state.nbytes()
        if size > self.budget:
            return
        if (known := self._entries.pop(cache.ids, None)) is not None:
            self.bytes -= known[1]
        self._entries[cache.ids] = (cache, size)
        self.bytes += size
        while self.bytes > self.budget or len(self._entries) > MOST_ENTRIES:
            _, (_, dropped) = self._entries.popitem(last=False)
            self.bytes -= dropped

    def keep_answer(self, text: str, ids: Sequence[int]) -> None:
        """Remembers the tokens of an answer."""
        self._answers[text] = tuple(ids)
        self._answers.move_to_end(text)
        if len(self._answers) > MOST_ANSWERS:
            self._answers.popitem(last=False)

    def answer(self, text: str) -> tuple[int, ...] | None:
        """The tokens that an answer was written by, if it was written here."""
        return self._answers.get(text)
