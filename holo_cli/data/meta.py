"""meta.json describes a prepared set. It is written last: a folder without it is incomplete."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holo_cli.errors import DataError
from holo_cli.parsing import read_json

FORMAT = 1
META = "meta.json"
Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

RECORD = np.dtype(
    [
        ("bytes", "<u8"),
        ("language", "S8"),
        ("source", "<u4"),
        ("words", "<u4"),
        ("score", "<f4"),
        ("perplexity", "<f4"),
    ]
)
"""One document in a `.docs.npy`: its UTF-8 bytes, its language (ISO 639-1 or empty), the index of
its source in `Meta.source_names`, its words (separated by white space), and the educational value
and the perplexity that the source gives (NaN if none). Sets of older versions lack `perplexity`."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class TokenizerMeta(_Model):
    """The tokenizer of the ids, stored beside meta.json in tokenizer.json."""

    kind: str
    fingerprint: str
    vocab_size: int = Field(ge=1)


class Shard(_Model):
    """Tokens in NAME.bin, document ends in NAME.idx, `RECORD`s in NAME.docs.npy."""

    name: str
    split: Split
    tokens: int = Field(ge=1)
    documents: int = Field(ge=1)
    bytes: int = Field(ge=0, description="UTF-8 bytes of the text; markers and ends count zero")
    words: int = Field(default=0, ge=0, description="of the text, separated by white space")
    sha256: str
    idx_sha256: str
    docs_sha256: str


class LanguageTotals(_Model):
    """The totals of one language in a split."""

    documents: int
    bytes: int
    tokens: int


class Meta(_Model):
    """The content of meta.json."""

    format: int = FORMAT
    name: str
    sources: list[dict[str, Any]]
    mixture: dict[str, int] = Field(default_factory=dict, description="bytes of each stream")
    settings: dict[str, Any]
    versions: dict[str, str]
    tokenizer: TokenizerMeta
    dtype: Literal["uint16", "uint32"]
    specials: dict[str, int]
    markers: bool
    chat: bool = Field(default=False, description="some documents are conversations")
    shards: list[Shard]
    languages: dict[Split, dict[str, LanguageTotals]]
    source_names: list[str]
    dropped: dict[str, int]
    seed: int
    seconds: float
    created: str

    def of(self, split: str) -> list[Shard]:
        """The shards of a split, in order."""
        return [shard for shard in self.shards if shard.split == split]

    def to_json(self) -> bytes:
        return (self.model_dump_json(indent=2) + "\n").encode("utf-8")


def read_meta(folder: Path) -> Meta:
    """Read meta.json. DataError if it is missing, of a newer version, or damaged."""
    path = folder / META
    try:
        # sets were prepared with seeds of any size before there was a range
        raw = read_json(path, any_integer=True)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is not a prepared set: it has no {META}.",
            next_step="Prepare it with `holo prepare`; an interrupted preparation resumes when the "
            "same command is run again.",
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}.", next_step="Prepare the set again with --force."
        ) from error
    version = raw.get("format") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise DataError(
            f"{folder} was prepared by a newer version of holo (format {version}; this "
            f"version reads format {FORMAT}).",
            next_step="Upgrade with pip install --upgrade holo-cli, or prepare the set again.",
        )
    try:
        meta = Meta.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or META
        raise DataError(
            f"{path} is damaged: {where}: {first['msg']}.",
            next_step="Prepare the set again with --force.",
        ) from error
    for split in SPLITS:
        if not meta.of(split):
            raise DataError(
                f"{path} is damaged: it names no shard of the split '{split}'.",
                next_step="Prepare the set again with --force.",
            )
    return meta
