"""The whole of cleaning: filters each document, then removes duplicates of earlier ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holo_cli.data.cleaning.deduplicator import Deduplicator
from holo_cli.data.cleaning.judging import Judge, JudgingProcesses, stored
from holo_cli.data.cleaning.settings import CleaningSettings
from holo_cli.data.document import Document


class Cleaner:
    """Checks documents in order; stores their fingerprints in `folder`.

    `counts`: documents dropped by each rule. `state()` is small plain data for JSON, to be stored
    with the position in the text. `restore` returns to that state, whatever happened after it,
    also if the process was killed.
    """

    def __init__(self, settings: CleaningSettings, folder: Path, processes: int = 1) -> None:
        """Starts empty, whatever is in `folder`, which is created when needed.

        With several `processes`, so many others judge the documents of `check_batch`, with the
        same results, after the first few megabytes.
        """
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self._judge = JudgingProcesses(settings, processes) if processes > 1 else Judge(settings)
        self._deduplicator = Deduplicator(folder, settings.near) if settings.duplicates else None

    def check(self, document: Document) -> Document | None:
        """The document, or None if it is dropped."""
        return self.check_batch([document])[0]

    def check_batch(self, documents: Sequence[Document]) -> list[Document | None]:
        """`check` of each, in order; faster than single calls, with the same results."""
        if not self.settings.active:
            return list(documents)
        judged = stored(documents) or self._judge.judge(documents)
        broken = judged.broken
        if self._deduplicator is not None:
            left = [i for i, rule in enumerate(broken) if not rule]
            again = self._deduplicator.add(judged.exact, judged.near)
            for i, rule in zip(left, again, strict=True):
                broken[i] = rule
        self.counts.update(rule for rule in broken if rule)
        return [
            None if rule else document for document, rule in zip(documents, broken, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """The current state; the files that `restore` needs are synced when this returns."""
        remembered = self._deduplicator.state() if self._deduplicator is not None else 0
        return {"counts": dict(self.counts), "remembered": remembered}

    def restore(self, state: dict[str, Any]) -> None:
        """Return to `state`. DataError if the files are too short for it."""
        self.counts = Counter(state["counts"])
        if self._deduplicator is not None:
            self._deduplicator.restore(state["remembered"])

    def close(self) -> None:
        self._judge.close()
        if self._deduplicator is not None:
            self._deduplicator.close()
