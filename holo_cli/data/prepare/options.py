"""The options of one preparation, and the documents and settings that follow from them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holo_cli.data.cleaning import CleaningSettings
from holo_cli.data.document import Document
from holo_cli.data.meta import FORMAT
from holo_cli.data.mixture import SEQUENCE
from holo_cli.data.prepare.pipeline import Pipeline
from holo_cli.data.sources.base import Request, Source
from holo_cli.data.tokenizers import spec_identity


@dataclass(frozen=True)
class PrepareProgress:
    """The progress of a preparation. `total_bytes` is an estimate, None if unknown."""

    stage: str  # "tokenizer", "packing" or "shard"
    documents: int
    bytes: int
    total_bytes: int | None
    seconds: float  # since the stage began

    @property
    def bytes_per_second(self) -> float:
        return self.bytes / self.seconds if self.seconds > 0 else 0.0


@dataclass
class PrepareOptions:
    """The options of one preparation, and its sources once they are open."""

    name: str
    requests: list[Request]
    out: Path
    tokenizer: str
    vocab_size: int
    val_fraction: float
    shard_bytes: int
    report: Callable[[PrepareProgress], None]
    warn: Callable[[str], None]
    scratch: Path  # a temporary folder, deleted at the end
    mix: str | dict[str, float] = SEQUENCE
    cleaning: CleaningSettings = field(default_factory=lambda: CleaningSettings.of("none"))
    filter: str = "none"  # what `cleaning` was parsed from
    processes: int = 1  # that clean
    sources: list[Source] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _stage: tuple[str, float] = ("", 0.0)
    _passes: int = 0

    @property
    def languages(self) -> tuple[str, ...]:
        return self.requests[0].languages

    @property
    def chat(self) -> bool:
        """Whether a source has conversations."""
        return any(source.chat for source in self.sources)

    def settings(self) -> dict[str, Any]:
        """The settings that determine the bytes of the shards, for meta.json and progress.json."""
        first = self.requests[0]
        settings: dict[str, Any] = {
            "format": FORMAT,
            "names": [request.name for request in self.requests],
            "text_field": first.text_field,
            "encoding": first.encoding,
            "lang": sorted(first.scripts.get(code, code) for code in self.languages),
            "subset": first.subset,
            "max_docs": first.max_docs,
            "max_bytes": first.max_bytes,
            "val_fraction": self.val_fraction,
            "seed": first.seed,
            "tokenizer": spec_identity(self.tokenizer),
            "vocab_size": self.vocab_size if self.tokenizer == "bpe" else None,
            "shard_bytes": self.shard_bytes,
            "mix": self.mix,
            "filter": self.cleaning.to_dict(),
        }
        if any(request.chat for request in self.requests):
            settings["chat"] = [request.chat for request in self.requests]
        if self.sources:
            settings["identity"] = [source.identity for source in self.sources]
        return settings

    def total_bytes(self) -> int | None:
        sizes = [source.total_bytes for source in self.sources]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def report_progress(self, stage: str, documents: int, size: int) -> None:
        now = time.monotonic()
        if self._stage[0] != stage:
            self._stage = (stage, now)
        elapsed = now - self._stage[1]
        self.report(PrepareProgress(stage, documents, size, self.total_bytes(), elapsed))

    def pipeline(
        self,
        folder: Path | None = None,
        *,
        sample: Callable[[str], bool] | None = None,
        mix: str | dict[str, float] | None = None,
        state: dict[str, Any] | None = None,
    ) -> Pipeline:
        """A pipeline over all documents, from the beginning or from the `state` of an earlier one.

        `folder` holds the fingerprints of deduplication (default: a temporary folder).
        """
        if folder is None:
            self._passes += 1
            folder = self.scratch / f"pass{self._passes}"
        return Pipeline(
            self.sources,
            self.requests,
            self.cleaning,
            folder,
            mix=self.mix if mix is None else mix,
            sample=sample,
            state=state,
            processes=self.processes,
        )

    def documents(
        self,
        counts: Counter[str],
        sample: Callable[[str], bool] | None = None,
        mix: str | dict[str, float] | None = None,
    ) -> Iterator[Document]:
        """All documents, the same at every call; at the end `counts` holds the drops by rule."""
        pipeline = self.pipeline(sample=sample, mix=mix)
        try:
            for batch in pipeline:
                yield from batch
            counts.clear()
            counts.update(pipeline.counts)
        finally:
            pipeline.close()
