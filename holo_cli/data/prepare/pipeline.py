"""The documents of a options as they go to the tokens: read, mixed, normalised, cleaned, bounded.

    mixture -> batch -> normalise -> language -> cleaning -> limits -> documents

Work goes batch by batch. Where batches begin depends on nothing but the text, and `state()`
between two of them is all that is needed to go on there: a pipeline made with it gives the same
documents that this one would have given.

Unusual: what cleaning drops, and that a name has reached its limit, is told to the mixture not at
once but `LAG` batches later, always. So the order of the documents does not depend on how many
batches are being worked on at the same time.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holo_cli.data.cleaning import Cleaner, CleaningSettings
from holo_cli.data.document import Document, utf8_length
from holo_cli.data.mixture import Mixture
from holo_cli.data.normalize import normalize
from holo_cli.data.sources.base import Request, Source

LANGUAGE_CODE = re.compile(r"[a-z]{2,3}")
BATCH_CHARACTERS, BATCH_DOCUMENTS = 1_000_000, 1024
LAG = 2


@dataclass
class _Batch:
    """What was read together: (stream, source, document)."""

    entries: list[tuple[int, int, Document]] = field(default_factory=list)
    characters: int = 0

    def full(self) -> bool:
        return self.characters >= BATCH_CHARACTERS or len(self.entries) >= BATCH_DOCUMENTS


class Pipeline:
    """Batches of documents that are kept, in order. `counts`: what was left out, by rule."""

    def __init__(
        self,
        sources: Sequence[Source],
        requests: Sequence[Request],
        cleaning: CleaningSettings,
        folder: Path,
        *,
        mix: str | dict[str, float] = "sequence",
        sample: Callable[[str], bool] | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        """`folder` is where cleaning keeps what it must remember. `sample` chooses some texts.

        `state` is what an earlier pipeline over the same sources gave.
        """
        self._requests, self._sample = requests, sample
        self._cleaner = Cleaner(cleaning, folder)
        self._counts: Counter[str] = Counter()
        self._taken = [[0, 0] for _ in requests]  # documents and bytes kept, of each name
        self._ended: set[int] = set()  # names that have reached their limit
        self._late: deque[dict[str, Any]] = deque()  # what the mixture is yet to be told
        self._mixture = Mixture(sources, mix, state["mixture"] if state else None)
        if state is not None:
            self._counts.update(state["counts"])
            self._taken = [list(pair) for pair in state["taken"]]
            self._ended = set(state["ended"])
            self._late.extend(state["late"])
            self._cleaner.restore(state["cleaner"])

    @property
    def counts(self) -> Counter[str]:
        """All that was left out so far, by rule."""
        return self._mixture.counts + self._counts + Counter(self._cleaner.counts)

    def state(self) -> dict[str, Any]:
        """This moment, between two batches, as plain data for JSON."""
        return {
            "mixture": self._mixture.state(),
            "counts": dict(self._counts),
            "taken": [list(pair) for pair in self._taken],
            "ended": sorted(self._ended),
            "late": list(self._late),
            "cleaner": self._cleaner.state(),
        }

    def shares(self) -> dict[str, int]:
        """Bytes kept of each stream of the mixture, once there is no batch left."""
        while self._late:
            self._tell(self._late.popleft())
        return self._mixture.shares()

    def close(self) -> None:
        """Let go of the files of cleaning."""
        self._cleaner.close()

    def __iter__(self) -> Iterator[list[Document]]:
        """The batches that follow; each may be empty."""
        while len(self._ended) < len(self._requests):
            if len(self._late) >= LAG:
                self._tell(self._late.popleft())
            batch = self._read()
            if not batch.entries:
                return
            yield self._work(batch)

    # -- the steps --------------------------------------------------------------------------------

    def _read(self) -> _Batch:
        batch = _Batch()
        while not batch.full():
            entry = self._mixture.next()
            if entry is None:
                break
            text = entry[2].text
            if not text or text.isspace():
                self._counts["empty documents"] += 1
                self._mixture.refund(entry[0], entry[2].size)
                continue
            if self._sample is not None and not self._sample(text):
                self._count(entry[1], entry[2])
                continue
            batch.entries.append(entry)
            batch.characters += len(text)
        return batch

    def _work(self, batch: _Batch) -> list[Document]:
        prepared = [self._normalised(source, document) for _, source, document in batch.entries]
        checked = iter(
            self._cleaner.check_batch([document for document in prepared if document is not None])
        )
        kept: list[Document] = []
        back: Counter[int] = Counter()
        ended: list[int] = []
        for (stream, source, raw), document in zip(batch.entries, prepared, strict=True):
            if document is not None:
                document = next(checked)
            bounded = self._bounded(source, document, ended) if document is not None else None
            lost = raw.size - (bounded.size if bounded is not None else 0)
            if lost:
                back[stream] += lost
            if bounded is not None:
                kept.append(bounded)
                self._count(source, bounded)
        self._late.append({"back": [[s, n] for s, n in sorted(back.items())], "ended": ended})
        return kept

    def _normalised(self, source: int, document: Document) -> Document | None:
        text = normalize(document.text, self._counts)
        if not text or text.isspace():
            self._counts["empty documents"] += 1
            return None
        language = _language(document.language, self._requests[source].languages)
        if language is None:
            self._counts["other languages"] += 1
            return None
        if text is document.text and language == document.language:
            return document
        return replace(document, text=text, language=language)

    def _count(self, source: int, document: Document) -> None:
        if document.split != "val":  # limits leave a source's own validation part whole
            self._taken[source][0] += 1
            self._taken[source][1] += document.size

    def _bounded(self, source: int, document: Document, ended: list[int]) -> Document | None:
        """The document, cut at the limit of its name; None behind it."""
        request, (documents, size) = self._requests[source], self._taken[source]
        if source in self._ended:
            return None
        if document.split == "val":
            return document
        text = document.text
        if request.max_docs is not None and documents >= request.max_docs:
            text = ""
        elif request.max_bytes is not None:
            text = _at_most(text, request.max_bytes - size)
        if text is document.text:
            return document
        if not text:
            if not document.split:  # else its validation part is still to come
                self._ended.add(source)
                ended.append(source)
            return None
        return replace(document, text=text)

    def _tell(self, late: dict[str, Any]) -> None:
        for stream, size in late["back"]:
            self._mixture.refund(stream, size)
        for source in late["ended"]:
            self._mixture.end(source)


def _language(known: str, wanted: tuple[str, ...]) -> str | None:
    """A document's language as a code, "" if unknown; None if it is not one of those wanted."""
    code = known.lower().replace("_", "-").split("-")[0]
    code = code if LANGUAGE_CODE.fullmatch(code) else ""
    if not wanted:
        return code
    if not code:
        return wanted[0] if len(wanted) == 1 else ""
    return code if code in wanted else None


def _at_most(text: str, limit: int) -> str:
    if utf8_length(text) <= limit:
        return text
    return text.encode("utf-8")[: max(limit, 0)].decode("utf-8", errors="ignore")
