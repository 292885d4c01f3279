"""One preparation: what was asked for, and the stream of clean documents that follows from it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holo_cli.data.clean import clean
from holo_cli.data.document import Document
from holo_cli.data.meta import FORMAT
from holo_cli.data.sources.base import Request, Source
from holo_cli.data.tokenizers import spec_identity

LANGUAGE_CODE = re.compile(r"[a-z]{2,3}")


@dataclass(frozen=True)
class Progress:
    """Where a preparation is. `total_bytes` is an estimate, None where there is none."""

    stage: str  # "tokenizer" or "packing"
    documents: int
    bytes: int
    total_bytes: int | None
    seconds: float  # since the stage began

    @property
    def bytes_per_second(self) -> float:
        return self.bytes / self.seconds if self.seconds > 0 else 0.0


@dataclass
class Job:
    """One preparation: what was asked for, and the sources once they are open."""

    name: str
    requests: list[Request]
    out: Path
    tokenizer: str
    vocab_size: int
    val_fraction: float
    shard_bytes: int
    report: Callable[[Progress], None]
    sources: list[Source] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _stage: tuple[str, float] = ("", 0.0)

    @property
    def languages(self) -> tuple[str, ...]:
        return self.requests[0].languages

    def settings(self) -> dict[str, Any]:
        """What decides the bytes of the shards, as far as it was asked for."""
        first = self.requests[0]
        settings: dict[str, Any] = {
            "format": FORMAT,
            "names": [request.name for request in self.requests],
            "text_field": first.text_field,
            "encoding": first.encoding,
            "lang": sorted(self.languages),
            "max_docs": first.max_docs,
            "max_bytes": first.max_bytes,
            "val_fraction": self.val_fraction,
            "seed": first.seed,
            "tokenizer": spec_identity(self.tokenizer),
            "vocab_size": self.vocab_size if self.tokenizer == "bpe" else None,
            "shard_bytes": self.shard_bytes,
        }
        if self.sources:
            settings["identity"] = [source.identity for source in self.sources]
        return settings

    def total_bytes(self) -> int | None:
        sizes = [source.total_bytes for source in self.sources]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def tell(self, stage: str, documents: int, size: int) -> None:
        now = time.monotonic()
        if self._stage[0] != stage:
            self._stage = (stage, now)
        self.report(Progress(stage, documents, size, self.total_bytes(), now - self._stage[1]))

    def documents(self, counts: Counter[str]) -> Iterator[Document]:
        """The documents of all sources, cleaned and bounded, the same at every call."""
        for source, request in zip(self.sources, self.requests, strict=True):
            taken = size = 0
            for document in source.documents(counts):
                text = clean(document.text, counts)
                if not text.strip():
                    counts["empty documents"] += 1
                    continue
                language = _language(document.language, request.languages)
                if language is None:
                    counts["other languages"] += 1
                    continue
                if (
                    not document.split
                    and request.max_docs is not None
                    and taken >= request.max_docs
                ):
                    break
                if request.max_bytes is not None:
                    text = _bounded(text, request.max_bytes - size)
                    if not text:
                        break
                yield replace(document, text=text, language=language)
                taken += 1
                size += len(text.encode("utf-8"))


def _language(known: str, wanted: tuple[str, ...]) -> str | None:
    """A document's language as a code, "" if unknown; None if it is not one of those wanted."""
    code = known.lower().replace("_", "-").split("-")[0]
    code = code if LANGUAGE_CODE.fullmatch(code) else ""
    if not wanted:
        return code
    if not code:
        return wanted[0] if len(wanted) == 1 else ""
    return code if code in wanted else None


def _bounded(text: str, limit: int) -> str:
    data = text.encode("utf-8")
    return text if len(data) <= limit else data[: max(limit, 0)].decode("utf-8", errors="ignore")
