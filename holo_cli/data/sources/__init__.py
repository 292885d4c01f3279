"""Opens sources of text by name: a dataset of `table.py`, or any other name with `--source`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from holo_cli.data.sources.base import Request, Source, SourceRow
from holo_cli.data.sources.table import ROWS
from holo_cli.errors import UsageError, nearest
from holo_cli.names import quoted

LOCAL_OPENER = "holo_cli.data.sources.local:open_local"


def source_names() -> list[str]:
    """The names of the datasets."""
    return [row.name for row in ROWS]


def datasets_table(name: str | None = None) -> list[dict[str, Any]]:
    """The table, or the row of `name`, as plain data with the commands that prepare it."""
    if name is None:
        return [row.as_dict() for row in ROWS]
    row = _row(name)
    if row is None:
        raise UsageError(
            f"There is no dataset '{name}'.",
            next_step=f"{nearest(name, source_names())} `holo datasets` lists them.",
        )
    return [row.as_dict()]


def licence_of(name: str) -> str:
    """The licence of a dataset that is downloaded; "" for other text."""
    row = _row(name)
    return row.licence if row is not None and "hub" in row.opener else ""


def open_source(request: Request) -> Source:
    """Open the dataset `request.name`, or the files of `request.source`. UsageError if invalid."""
    row = None if request.one_of_several else _row(request.name)
    if row is None and request.source is None:
        raise UsageError(
            f"There is no dataset '{request.name}'.",
            next_step=f"{nearest(request.name, source_names())} Your own text needs --source FILE.",
        )
    if row is not None and request.source is not None and not row.takes_source:
        raise UsageError(
            f"'{row.name}' is the name of a dataset that does not support --source.",
            next_step="Give your text another name, for example: "
            f"holo prepare mine --source {quoted(request.source)}",
        )
    if request.subset is not None and not (row and "hub" in row.opener):
        raise UsageError(f"{request.name} has no subsets.", next_step="Remove --subset.")
    module, _, function = (row.opener if row else LOCAL_OPENER).partition(":")
    opener: Callable[[Request], Source] = getattr(importlib.import_module(module), function)
    return opener(request)


def default_tokenizer(names: Sequence[str]) -> str:
    """The default `--tokenizer` for these sources."""
    row = _row(names[0]) if len(names) == 1 else None
    return row.tokenizer if row else "bpe"


def default_filter(names: Sequence[str]) -> str:
    """The default `--filter` for these sources: only raw web text is filtered."""
    return "default" if any((row := _row(name)) and row.raw for name in names) else "none"


def _row(name: str) -> SourceRow | None:
    return next((row for row in ROWS if row.name == name), None)
