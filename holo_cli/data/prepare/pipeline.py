"""From sources to the documents that are tokenized: mixed, normalized, cleaned, limited.

    mixture -> batch -> normalize -> language -> cleaning -> limits -> documents

Documents are processed in batches whose borders depend on the text alone. `state()` between two
batches is all that resuming needs: a Pipeline made with it yields the documents that this one would
have yielded.

The mixture learns what cleaning dropped, and that a source has reached its limit, always exactly
`LAG` batches later. So the order of the documents does not depend on how many batches are processed
at the same time.
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
    """Documents with the numbers of their streams and sources: (stream, source, document)."""

    entries: list[tuple[int, int, Document]] = field(default_factory=list)
    characters: int = 0

    def full(self) -> bool:
        return self.characters >= BATCH_CHARACTERS or len(self.entries) >= BATCH_DOCUMENTS


class Pipeline:
    """Iterates over batches of kept documents, in order. `counts`: drops by rule."""

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
        processes: int = 1,
    ) -> None:
        """`folder`: for the fingerprints of deduplication. `sample`: whether to use a text.

        `processes`: how many clean; the documents and their order do not depend on it.
        `state`: from `state()` of an earlier Pipeline over the same sources.
        """
        self._requests, self._sample = requests, sample
        self._cleaner = Cleaner(cleaning, folder, processes)
        self._counts: Counter[str] = Counter()
        self._taken = [[0, 0] for _ in requests]  # documents and bytes kept of each source
        self._ended: set[int] = set()  # sources that have reached their limit
        self._feedback: deque[dict[str, Any]] = deque()  # for the mixture, `LAG` batches later
        self._mixture = Mixture(sources, mix, state["mixture"] if state else None)
        if state is not None:
            self._counts.update(state["counts"])
            self._taken = [list(pair) for pair in state["taken"]]
            self._ended = set(state["ended"])
            self._feedback.extend(state["late"])
            self._cleaner.restore(state["cleaner"])

    @property
    def counts(self) -> Counter[str]:
        """All drops so far, by rule."""
        return self._mixture.counts + self._counts + Counter(self._cleaner.counts)

    def state(self) -> dict[str, Any]:
        """The state between two batches, as plain data for JSON."""
        return {
            "mixture": self._mixture.state(),
            "counts": dict(self._counts),
            "taken": [list(pair) for pair in self._taken],
            "ended": sorted(self._ended),
            "late": list(self._feedback),
            "cleaner": self._cleaner.state(),
        }

    def shares(self) -> dict[str, int]:
        """Bytes kept of each stream of the mixture, after the last batch."""
        while self._feedback:
            self._apply(self._feedback.popleft())
        return self._mixture.shares()

    def close(self) -> None:
        self._cleaner.close()

    def __iter__(self) -> Iterator[list[Document]]:
        """Yield the remaining batches; a batch may be empty."""
        while len(self._ended) < len(self._requests):
            if len(self._feedback) >= LAG:
                self._apply(self._feedback.popleft())
            batch = self._read()
            if not batch.entries:
                return
            yield self._process(batch)

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

    def _process(self, batch: _Batch) -> list[Document]:
        prepared = [
            normalized(document, self._requests[source].languages, self._counts)
            for _, source, document in batch.entries
        ]
        checked = iter(
            self._cleaner.check_batch([document for document in prepared if document is not None])
        )
        kept: list[Document] = []
        dropped: Counter[int] = Counter()  # bytes of each stream
        ended: list[int] = []
        for (stream, source, raw), document in zip(batch.entries, prepared, strict=True):
            if document is not None:
                document = next(checked)
            bounded = self._bounded(source, document, ended) if document is not None else None
            lost = raw.size - (bounded.size if bounded is not None else 0)
            if lost:
                dropped[stream] += lost
            if bounded is not None:
                kept.append(bounded)
                self._count(source, bounded)
        refunds = [list(pair) for pair in sorted(dropped.items())]
        self._feedback.append({"back": refunds, "ended": ended})
        return kept

    def _count(self, source: int, document: Document) -> None:
        if document.split != "val":  # limits do not apply to a source's own validation split
            self._taken[source][0] += 1
            self._taken[source][1] += document.size

    def _bounded(self, source: int, document: Document, ended: list[int]) -> Document | None:
        """The document, truncated at the limit of its source; None after the limit."""
        request, (documents, size) = self._requests[source], self._taken[source]
        if source in self._ended:
            return None
        if document.split == "val":
            return document
        text = document.text
        if request.max_docs is not None and documents >= request.max_docs:
            text = ""
        elif request.max_bytes is not None:
            text = _truncated(text, request.max_bytes - size)
            if document.messages and text is not document.text:
                text = ""  # a conversation is kept whole
        if text is document.text:
            return document
        if not text:
            if not document.split:  # else the validation split is still to come
                self._ended.add(source)
                ended.append(source)
            return None
        return replace(document, text=text)

    def _apply(self, feedback: dict[str, Any]) -> None:
        for stream, size in feedback["back"]:
            self._mixture.refund(stream, size)
        for source in feedback["ended"]:
            self._mixture.end(source)


def normalized(
    document: Document, languages: tuple[str, ...], counts: Counter[str]
) -> Document | None:
    """The document as it is cleaned; None if it is dropped before, which `counts` then tells."""
    messages = document.messages
    if messages:
        messages = tuple(one._replace(text=normalize(one.text, counts)) for one in messages)
        text = "\n".join(one.text for one in messages)
    else:
        text = normalize(document.text, counts)
    if not text or text.isspace() or any(not one.text.strip() for one in messages):
        counts["empty documents"] += 1
        return None
    language = _language(document.language, languages)
    if language is None:
        counts["other languages"] += 1
        return None
    if text == document.text and language == document.language:
        return document
    return replace(document, text=text, language=language, messages=messages)


def _language(known: str, wanted: tuple[str, ...]) -> str | None:
    """A document's language code, "" if unknown; None if it is not one of `wanted`."""
    code = known.lower().replace("_", "-").split("-")[0]
    code = code if LANGUAGE_CODE.fullmatch(code) else ""
    if not wanted:
        return code
    if not code:
        return wanted[0] if len(wanted) == 1 else ""
    return code if code in wanted else None


def _truncated(text: str, limit: int) -> str:
    if utf8_length(text) <= limit:
        return text
    return text.encode("utf-8")[: max(limit, 0)].decode("utf-8", errors="ignore")
