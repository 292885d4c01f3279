"""What a source of text is, and what a person may ask of one.

A row of the table in `holo_cli.data.sources.table` says what a dataset is and names the function
that opens it: `open(request) -> Source`. Opening checks that the text can be had and costs little.

A source is one or several **streams**: streams of documents that can be read from any noted
position, so that a preparation that was killed goes on where it was without reading (or fetching)
everything again. A stream is read in chunks; a position lies between two chunks and is plain data
for JSON. Read from the same position, a stream must give the same documents in the same order.
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
"""A place in a stream, as plain data for JSON; None is the beginning."""


@dataclass(frozen=True)
class Request:
    """What was asked for, as far as it concerns where text comes from."""

    name: str
    source: str | None = None  # --source: a file, a folder, a glob, or "-" for standard input
    text_field: str = "text"
    encoding: str | None = None  # of files that are not UTF-8
    languages: tuple[str, ...] = ()  # --lang, as short codes
    scripts: Mapping[str, str] = field(default_factory=dict)  # code -> gsw_Latn, where so written
    subset: str | None = None  # --subset
    max_docs: int | None = None
    max_bytes: int | None = None  # UTF-8 bytes
    seed: int = 0
    offline: bool = False
    workers: int = 1  # files fetched at once
    by_language: bool = False  # one stream per language, where the source can
    pinned: Mapping[str, str] = field(default_factory=dict)  # repository -> revision to go on with
    notice: Callable[[str], None] = lambda text: None  # what a person should know beforehand
    scratch: Path | None = None  # a folder for text that cannot be read twice (standard input)


@dataclass(frozen=True)
class Chunk:
    """Documents that follow one another, and where reading goes on after them."""

    documents: list[Document]
    after: Position
    counts: Mapping[str, int] = field(default_factory=dict)  # what reading them left out, by rule


@dataclass(frozen=True)
class Stream:
    """A stream of documents. `chunks(position)` reads from there to the end."""

    chunks: Callable[[Position], Iterator[Chunk]]
    name: str = ""
    language: str = ""  # of every document, where that is known
    total_bytes: int | None = None  # roughly how much text it holds, for progress


@dataclass(frozen=True)
class Source:
    """An opened source. `whole`: its streams are in balance and end with the shortest."""

    name: str
    streams: tuple[Stream, ...]
    identity: dict[str, Any]  # changes when the text does; decides whether a set is up to date
    description: dict[str, Any] = field(default_factory=dict)  # licence, hub id ..., for meta.json
    total_bytes: int | None = None  # roughly how much it will give under its limits
    balanced: bool = False

    def documents(self, counts: Counter[str]) -> Iterator[Document]:
        """All of it, stream by stream; `counts` grows by what reading leaves out, by rule."""
        for stream in self.streams:
            for chunk in stream.chunks(None):
                counts.update(chunk.counts)
                yield from chunk.documents


@dataclass(frozen=True)
class SourceRow:
    """One dataset in the table: what it is, and where the function lies that opens it."""

    name: str
    description: str
    size: str
    licence: str
    languages: tuple[str, ...]  # codes, or "any" for more than can be listed
    access: str  # how the text is got
    # "module:function", imported when needed
    opener: str = "holo_cli.data.sources.hub.source:open_hub"
    tokenizer: str = "bpe"  # what suits it if nothing is asked for
    raw: bool = False  # web text that wants the filters
    takes_source: bool = False  # whether --source may stand in for the usual place
    options: str = ""  # flags that the shortest command needs
    example: str = ""  # flags worth showing in the example command
    row: Mapping[str, Any] = field(default_factory=dict)  # made up here, to show the columns

    def as_dict(self) -> dict[str, Any]:
        """The row as `holo datasets` shows it."""
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


def counted(
    documents: Callable[[Counter[str]], Iterator[Document]],
) -> Callable[[Position], Iterator[Chunk]]:
    """`Stream.chunks` of documents that are cheap to read again: a position is their number."""

    def chunks(position: Position) -> Iterator[Chunk]:
        left_out: Counter[str] = Counter()
        stream = documents(left_out)
        done = int(position or 0)
        for _ in islice(stream, done):
            pass
        left_out.clear()
        held: list[Document] = []
        size = 0
        for document in stream:
            held.append(document)
            size += len(document.text)
            if len(held) >= CHUNK_DOCUMENTS or size >= CHUNK_CHARACTERS:
                done += len(held)
                yield Chunk(held, done, dict(left_out))
                left_out.clear()
                held, size = [], 0
        if held or left_out:
            yield Chunk(held, done + len(held), dict(left_out))

    return chunks
