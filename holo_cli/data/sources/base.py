"""The interface of text sources.

A row of the table in `holo_cli.data.sources.table` describes a dataset and names the function that
opens it: `open(request) -> Source`. Opening checks that the text is available and is cheap.

A source consists of one or several **streams** of documents, which can be read from any saved
position, so that an interrupted preparation resumes without reading (or downloading) everything
again. A stream is read in chunks; a position is between two chunks and is plain data for JSON. From
the same position a stream must yield the same documents in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from holo_cli.data.document import Document

CHUNK_DOCUMENTS, CHUNK_CHARACTERS = 256, 1_000_000

Position = Any
"""A position in a stream, as plain data for JSON; None is the beginning."""


@dataclass(frozen=True)
class Request:
    """The options of `holo prepare` that concern a source."""

    name: str
    source: str | None = None  # --source: a file, a folder, a glob, or "-" for standard input
    text_field: str = "text"
    encoding: str | None = None  # of files that are not UTF-8
    languages: tuple[str, ...] = ()  # --lang, as short codes
    scripts: Mapping[str, str] = field(default_factory=dict)  # code -> gsw_Latn, if given so
    subset: str | None = None  # --subset
    max_docs: int | None = None
    max_bytes: int | None = None  # UTF-8 bytes
    seed: int = 0
    offline: bool = False
    workers: int = 1  # parallel downloads
    chat: bool = False  # --chat: `source` has conversations
    by_language: bool = False  # one stream per language, if the source supports it
    pinned: Mapping[str, str] = field(default_factory=dict)  # repository -> revision to resume with
    notice: Callable[[str], None] = lambda text: None  # called with messages for the user
    scratch: Path | None = None  # folder for a copy of standard input
    # one of several --source of a set, all of them local: `name` is then a label for it
    one_of_several: bool = False
    # files that an earlier --source of the set has; opening a source adds its own
    taken: set[str] = field(default_factory=set, compare=False)


@dataclass(frozen=True)
class Chunk:
    """Consecutive documents, and the position after them."""

    documents: list[Document]
    after: Position
    counts: Mapping[str, int] = field(default_factory=dict)  # dropped while reading, by rule


@dataclass(frozen=True)
class Stream:
    """A stream of documents. `chunks(position)` reads from a position to the end.

    A stream of several files has `part`, which reads one of them, and `part_bytes`, their sizes (0
    where unknown): all parts in order are `chunks(None)`. Other streams are one part.
    """

    chunks: Callable[[Position], Iterator[Chunk]]
    name: str = ""
    language: str = ""  # of all documents, if known
    total_bytes: int | None = None  # approximate size of the text, for progress
    part_bytes: tuple[int, ...] = (0,)
    part: Callable[[int], Iterator[Chunk]] | None = None

    def chunks_of(self, part: int) -> Iterator[Chunk]:
        """The chunks of one part."""
        return self.chunks(None) if self.part is None else self.part(part)


@dataclass(frozen=True)
class Source:
    """An opened source. `balanced`: equal bytes of all streams, until the shortest ends."""

    name: str
    streams: tuple[Stream, ...]
    identity: dict[str, Any]  # changes when the text changes
    description: dict[str, Any] = field(default_factory=dict)  # licence, hub id ..., for meta.json
    total_bytes: int | None = None  # approximate size of the text within the limits
    balanced: bool = False
    chat: bool = False  # has conversations

    def documents(self, counts: Counter[str]) -> Iterator[Document]:
        """All documents, stream by stream; adds what reading drops to `counts`, by rule."""
        for stream in self.streams:
            for chunk in stream.chunks(None):
                counts.update(chunk.counts)
                yield from chunk.documents


@dataclass(frozen=True)
class SourceRow:
    """One dataset of the table, with the function that opens it."""

    name: str
    description: str
    size: str
    licence: str
    languages: tuple[str, ...]  # codes, or "any" for many
    access: str  # where the text comes from
    # "module:function", imported when needed
    opener: str = "holo_cli.data.sources.hub.source:open_hub"
    tokenizer: str = "bpe"  # the default
    raw: bool = False  # unfiltered web text: the filters are on by default
    takes_source: bool = False  # whether --source can name a local copy
    options: str = ""  # flags that every command needs
    example: str = ""  # flags of the example command
    row: Mapping[str, Any] = field(default_factory=dict)  # a made-up row, to show the columns

    def as_dict(self) -> dict[str, Any]:
        """The row in the form of `holo datasets --json`."""
        command = f"holo prepare {self.name}"
        return {
            "name": self.name,
            "description": self.description,
            "size": self.size,
            "licence": self.licence,
            "languages": list(self.languages),
            "access": self.access,
            "prepare": f"{command} {self.options}".strip(),
            "example": f"{command} {self.example or self.options}".strip(),
            "row": dict(self.row),
        }


def numbered_chunks(
    documents: Callable[[Counter[str]], Iterator[Document]],
) -> Callable[[Position], Iterator[Chunk]]:
    """`Stream.chunks` for documents that are cheap to read again (position: their number)."""

    def chunks(position: Position) -> Iterator[Chunk]:
        dropped: Counter[str] = Counter()
        stream = documents(dropped)
        done = int(position or 0)
        for _ in islice(stream, done):
            pass
        dropped.clear()
        held: list[Document] = []
        size = 0
        for document in stream:
            held.append(document)
            size += len(document.text)
            if len(held) >= CHUNK_DOCUMENTS or size >= CHUNK_CHARACTERS:
                done += len(held)
                yield Chunk(held, done, dict(dropped))
                dropped.clear()
                held, size = [], 0
        if held or dropped:
            yield Chunk(held, done + len(held), dict(dropped))

    return chunks
