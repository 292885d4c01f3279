"""All of cleaning in one object: judge each document, then look for it among the earlier ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holo_cli.data.cleaning import fingerprint
from holo_cli.data.cleaning.deduplicator import Deduplicator
from holo_cli.data.cleaning.document_filter import DocumentFilter
from holo_cli.data.cleaning.settings import CleaningSettings
from holo_cli.data.document import Document


class Cleaner:
    """Decides in the order of the documents; what it must remember of them lies under `folder`.

    `counts` says how many documents each rule dropped. `state()` is small and JSON-able: note it
    together with the position in the text at which it was taken. `restore` goes back to that
    moment, whatever was done, or half done when the process was killed, after it.
    """

    def __init__(self, settings: CleaningSettings, folder: Path) -> None:
        """Begins with nothing, whatever lies in `folder`, which is made when it is needed."""
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self._filter = DocumentFilter(settings)
        self._deduplicator = Deduplicator(folder, settings.near) if settings.duplicates else None

    def check(self, document: Document) -> Document | None:
        """The document, or None if it is dropped (and counted)."""
        return self.check_batch([document])[0]

    def check_batch(self, documents: Sequence[Document]) -> list[Document | None]:
        """`check` of each, in order; much faster than one by one, with the same answers."""
        if not self.settings.active:
            return list(documents)
        broken = [self._filter.judge(document) for document in documents]
        if self._deduplicator is not None:
            left = [i for i, rule in enumerate(broken) if not rule]
            texts = [fingerprint.folded(documents[i].text) for i in left]
            exact = [fingerprint.exact(text) for text in texts]
            near = fingerprint.signatures(texts if self.settings.near else [])
            for i, rule in zip(left, self._deduplicator.add(exact, near), strict=True):
                broken[i] = rule
        self.counts.update(rule for rule in broken if rule)
        return [
            None if rule else document for document, rule in zip(documents, broken, strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """This moment. What `restore` needs on the disk is there when this returns."""
        remembered = self._deduplicator.state() if self._deduplicator is not None else 0
        return {"counts": dict(self.counts), "remembered": remembered}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to the moment of `state`; DataError where the files lack what it needs."""
        self.counts = Counter(state["counts"])
        if self._deduplicator is not None:
            self._deduplicator.restore(state["remembered"])

    def close(self) -> None:
        """Let go of the files."""
        if self._deduplicator is not None:
            self._deduplicator.close()
