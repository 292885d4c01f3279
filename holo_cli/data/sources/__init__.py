"""Sources of text by name: the table (`table.py`), and how a name becomes a `Source`.

Any name that is not in the table is a person's own text and goes together with `--source`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from holo_cli.data.sources.base import Request, Source, SourceRow
from holo_cli.data.sources.table import ROWS
from holo_cli.errors import UsageError, nearest

LOCAL_OPENER = "holo_cli.data.sources.local:open_local"


def source_names() -> list[str]:
    """The names in the table."""
    return [row.name for row in ROWS]


def datasets_table(name: str | None = None) -> list[dict[str, Any]]:
    """The table, or the one row of `name`, as plain data with the commands that prepare it."""
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
    """The licence of a dataset in the table that is fetched; empty for text that is not."""
    row = _row(name)
    return row.licence if row is not None and "hub" in row.opener else ""


def open_source(request: Request) -> Source:
    """The source of a name in the table, or of any name with `request.source`."""
    row = _row(request.name)
    if row is None and request.source is None:
        raise UsageError(
            f"There is no dataset '{request.name}'.",
            next_step=f"{nearest(request.name, source_names())} "
            "For text of your own, add --source FILE.",
        )
    if row is not None and request.source is not None and not row.takes_source:
        raise UsageError(
            f"'{row.name}' is a dataset of its own and takes no --source.",
            next_step="Give your text another name, for example: "
            f"holo prepare mine --source {request.source}",
        )
    if request.subset is not None and not (row and "hub" in row.opener):
        raise UsageError(f"{request.name} has no subsets.", next_step="Leave --subset out.")
    module, _, function = (row.opener if row else LOCAL_OPENER).partition(":")
    opener: Callable[[Request], Source] = getattr(importlib.import_module(module), function)
    return opener(request)


def default_tokenizer(names: Sequence[str]) -> str:
    """The tokenizer that suits these sources if nothing is asked for."""
    row = _row(names[0]) if len(names) == 1 else None
    return row.tokenizer if row else "bpe"


def default_filter(names: Sequence[str]) -> str:
    """The `--filter` that suits these sources if nothing is asked for.

    Raw web text is filtered; chosen or filtered texts and a person's own stay as they are.
    """
    return "default" if any((row := _row(name)) and row.raw for name in names) else "none"


def _row(name: str) -> SourceRow | None:
    return next((row for row in ROWS if row.name == name), None)
