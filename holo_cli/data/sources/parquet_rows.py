"""parquet files, row by row."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from holo_cli.data.remote import SourcePath
from holo_cli.data.sources.decoding import BLOCK, SNIFF
from holo_cli.data.sources.formats import refuse_other_formats
from holo_cli.data.sources.rows import LANGUAGE_FIELDS, TextRow, no_column
from holo_cli.data.sources.unpacking import open_bytes, readable
from holo_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow


def read_parquet(path: SourcePath, field: str, counts: Counter[str]) -> Iterator[TextRow]:
    """Text in the column `field` ("meta.text" for a field of a struct), language in "language" or
    "lang"; bytes that are not UTF-8 become U+FFFD. Rows without text are counted and skipped.

    Raises UsageError for a column that is not there or is no text, DataError for a damaged file.
    """
    with _whole(path) as raw:
        _refuse_others(raw, str(path))
        yield from _rows(path, raw, field, counts)


def _rows(path: SourcePath, raw: BinaryIO, field: str, counts: Counter[str]) -> Iterator[TextRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(raw) as file:
            schema = file.schema_arrow
            keys = _path_to(path, field, schema)
            languages = [f for f in LANGUAGE_FIELDS if _is_text(schema, f)]
            columns = list(dict.fromkeys([keys[0], *languages]))
            found = False
            # few rows: a column that repeats a long text takes its full size only here
            for batch in file.iter_batches(batch_size=64, columns=columns):
                texts = _texts(batch.column(keys[0]), keys[1:])
                codes = [_texts(batch.column(name), []) for name in languages]
                for row, text in enumerate(texts):
                    if text is None:
                        counts["bad lines"] += 1
                    else:
                        found = True
                        yield text, next((code[row] for code in codes if code[row]), None) or ""
            if not found and file.metadata.num_rows:
                raise DataError(
                    f"The column '{field}' of {path} is empty in every row.",
                    next_step="Name the text column with --text-field.",
                )
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable parquet file: {str(error).rstrip('.')}.",
            next_step="Get the file again.",
        ) from error


def _refuse_others(raw: BinaryIO, name: str) -> None:
    head = raw.read(SNIFF)
    raw.seek(0)
    if not head.startswith(b"PAR"):
        refuse_other_formats(head, name)


def _path_to(path: SourcePath, field: str, schema: pyarrow.Schema) -> list[str]:
    """The names that lead to a text column: one, or those of nested structs."""
    import pyarrow

    keys = [field] if field in schema.names else field.split(".")
    kind: Any = pyarrow.struct(list(schema))
    for key in keys:
        names = [kind.field(i).name for i in range(kind.num_fields)] if _is_struct(kind) else []
        if key not in names:
            raise no_column(path, field, _names(schema))
        if names.count(key) > 1:
            raise UsageError(
                f"{path} has {names.count(key)} columns with the name '{key}'.",
                next_step="Name another column with --text-field, or rename them.",
            )
        kind = kind.field(names.index(key)).type
    if not _is_string(kind):
        raise UsageError(
            f"The column '{field}' of {path} is of type {str(kind)[:80]}, not text.",
            next_step="Name the text column with --text-field.",
        )
    return keys


def _names(fields: Any, prefix: str = "") -> list[str]:
    """The columns, and for structs their fields, dotted."""
    names = []
    for field in fields:
        inner = _names(field.type, f"{prefix}{field.name}.") if _is_struct(field.type) else []
        names += inner or [f"{prefix}{field.name}"]
    return names


def _is_struct(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_struct(kind))


def _is_text(schema: pyarrow.Schema, name: str) -> bool:
    return schema.names.count(name) == 1 and _is_string(schema.field(name).type)


def _is_string(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _texts(column: Any, keys: list[str]) -> list[str | None]:
    """The texts of a column of a batch; None where a row has none."""
    import pyarrow
    from pyarrow import compute

    for key in keys:
        column = compute.struct_field(column, key)
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # files may hold strings that are not UTF-8, which as strings cannot be read at all
    raw = column.cast(pyarrow.large_binary()).to_pylist()
    return [None if value is None else value.decode("utf-8", errors="replace") for value in raw]


@contextlib.contextmanager
def _whole(path: SourcePath) -> Iterator[BinaryIO]:
    """A seekable file: a compressed file is decompressed to a temporary file first."""
    with open_bytes(path) as file, tempfile.TemporaryFile() as unpacked:
        if isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO):
            yield file
            return
        while True:
            with readable(path):
                block = file.read(BLOCK)
            if not block:
                break
            unpacked.write(block)  # a full disk is no damage of the file
        unpacked.seek(0)
        yield unpacked
