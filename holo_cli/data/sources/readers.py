"""Reads local files by kind: yields texts, counts and skips rows that are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from holo_cli.data import segment
from holo_cli.data.remote import SourcePath
from holo_cli.data.sources.decoding import text_blocks
from holo_cli.data.sources.json_rows import read_json_rows
from holo_cli.data.sources.parquet_rows import read_parquet
from holo_cli.data.sources.rows import TextRow
from holo_cli.data.sources.table_rows import read_table

__all__ = ["TextRow", "read_json_rows", "read_parquet", "read_table", "read_text"]


def read_text(path: SourcePath, encoding: str) -> Iterator[TextRow]:
    """txt and md: split at two empty lines, or into pieces (see `segment`)."""
    blocks = text_blocks(path, encoding)
    for text in segment.documents(blocks, whole=not is_cut(path, "text", encoding)):
        yield text, ""


def is_cut(path: SourcePath, kind: str, encoding: str) -> bool:
    """Whether a file of a kind is one text, which is read in pieces."""
    if kind != "text":
        return False
    return segment.count_separators(text_blocks(path, encoding)) < segment.ENOUGH


def read_rows(
    path: SourcePath, kind: str, encoding: str, field: str, counts: Counter[str]
) -> Iterator[TextRow]:
    """The rows of a file of a `kind`: text, json, table or parquet."""
    if kind == "parquet":
        return read_parquet(path, field, counts)
    if kind == "json":
        return read_json_rows(path, encoding, field, counts)
    if kind == "table":
        return read_table(path, encoding, field, counts)
    return read_text(path, encoding)
