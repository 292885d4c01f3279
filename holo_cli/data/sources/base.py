"""What a source of text is, and what a person may ask of one.

A row of the table in `holo_cli.data.sources` says what a dataset is and names the function that
opens it: `open(request) -> Source`. Opening checks that the text can be had and costs little;
`Source.documents` may be called several times and must give the same documents in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holo_cli.data.document import Document


@dataclass(frozen=True)
class Request:
    """What was asked for, as far as it concerns where text comes from."""

    name: str
    source: str | None = None  # --source: a file, a folder, a glob, or "-" for standard input
    text_field: str = "text"
    encoding: str | None = None  # of files that are not UTF-8
    languages: tuple[str, ...] = ()  # --lang
    max_docs: int | None = None
    max_bytes: int | None = None  # UTF-8 bytes
    seed: int = 0
    offline: bool = False
    scratch: Path | None = None  # a folder for text that cannot be read twice (standard input)


@dataclass(frozen=True)
class Source:
    """An opened source. `documents(counts)` counts what it has to leave out, by rule."""

    name: str
    documents: Callable[[Counter[str]], Iterator[Document]]
    identity: dict[str, Any]  # changes when the text does; decides whether a set is up to date
    description: dict[str, Any] = field(default_factory=dict)  # licence, hub id ..., for meta.json
    total_bytes: int | None = None  # roughly how much `documents` will give, for progress


@dataclass(frozen=True)
class SourceRow:
    """One dataset in the table: what it is, and where the function lies that opens it."""

    name: str
    description: str
    size: str
    licence: str
    languages: tuple[str, ...]
    access: str  # how the text is got
    opener: str  # "module:function", imported when the source is opened
    tokenizer: str = "bpe"  # what suits it if nothing is asked for
    takes_source: bool = False  # whether --source may stand in for the usual place
    options: str = ""  # flags worth showing in the example command

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
            "prepare": command,
            "example": f"{command} {self.options}".strip(),
        }
