"""Streams the rows of one data file with `datasets`, from any row on.

Files outside the hub (RedPajama's) are streamed with `requests`, because `datasets` needs further
packages for other servers.

Nothing is downloaded beforehand: parquet is read by ranges, json.gz from its start. To resume at a
row, the row groups of a parquet file before it are skipped; other files are read again up to it. A
position is therefore a row number, independent of the versions of libraries.

The silent retries of `datasets` (twenty, up to a minute apart) are switched off in favour of those
in `errors.py`, and so is its request to a server of statistics at each opening, of local files too.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from holo_cli.data.network import hub_endpoint
from holo_cli.data.sources.base import CHUNK_DOCUMENTS
from holo_cli.data.sources.hub.errors import (
    ATTEMPTS,
    backoff,
    is_transient,
    permanent_error,
    reason,
    retries_exhausted,
    transfer_errors,
)
from holo_cli.data.sources.hub.files import DataFile
from holo_cli.errors import DataError
from holo_cli.parsing import MAX_LOG_BYTES, ParseError, parse_object

_SHOWN = 8  # columns named in an error
_GZIP = 31  # wbits of the gzip format, with its checksum
_BLOCK = 1 << 24  # bytes unpacked at a time
Rows = list[dict[str, Any]]


def row_chunks(
    file: DataFile, columns: Sequence[str], what: str, row: int = 0
) -> Iterator[tuple[Rows, int]]:
    """(rows, number of the row after them) from `row` on, with retries after transient failures.

    DataError if a column is missing, the file is damaged, or the retries are exhausted.
    """
    failures = 0
    while True:
        try:
            rows = iter(_rows_from(file, columns, what, row))
            while taken := list(islice(rows, CHUNK_DOCUMENTS)):
                _check_columns(file, columns, taken[0], what)
                row += len(taken)
                failures = 0
                yield taken, row
            return
        except (*_decoding_errors(), *transfer_errors()) as error:
            failures += 1
            if isinstance(error, _decoding_errors()) and failures > 1:
                raise DataError(
                    f"{file.path} of {what} is damaged, or was altered in transit: "
                    f"{reason(error)}.",
                    next_step="Try again later, or use a local copy (--source FOLDER).",
                ) from error
            if not is_transient(error):
                raise permanent_error(f"{file.path} of {what}", error) from error
            if failures >= ATTEMPTS:
                raise retries_exhausted(f"{file.path} of {what}", error) from error
            time.sleep(backoff(failures))


def _rows_from(
    file: DataFile, columns: Sequence[str], what: str, row: int
) -> Iterable[dict[str, Any]]:
    if file.address.startswith(("http://", "https://")):
        return islice(_web_rows(file.address), row, None)
    import datasets

    _configure(datasets)
    kind = _kind(file.path)
    given: dict[str, Any] = {"data_files": [file.address], "split": "train", "streaming": True}
    stream = datasets.load_dataset(kind, **given)
    if kind != "parquet":
        return stream.skip(row) if row else stream
    _check_columns(file, columns, dict.fromkeys(stream.features), what)
    stream = datasets.load_dataset(kind, columns=list(columns), **given)
    if not row:
        return stream
    return _from_row_group(stream, file.address, row)


def _from_row_group(stream: Any, address: str, row: int) -> Iterable[dict[str, Any]]:
    """The rows from `row` on, without reading the row groups before it."""
    if not hasattr(stream, "reshard"):  # older versions of `datasets` read and discard
        return stream.skip(row)
    import fsspec  # type: ignore[import-untyped]
    import pyarrow.parquet

    with fsspec.open(address, "rb") as opened:
        metadata = pyarrow.parquet.read_metadata(opened)
    first, before = 0, 0
    while first < metadata.num_row_groups:
        size = metadata.row_group(first).num_rows
        if before + size > row:
            break
        first, before = first + 1, before + size
    groups = stream.reshard()  # one shard per row group
    parts = (
        groups.shard(num_shards=groups.num_shards, index=number)
        for number in range(first, groups.num_shards)
    )
    return islice(chain.from_iterable(parts), row - before, None)


def _web_rows(address: str) -> Iterator[dict[str, Any]]:
    """The rows of a json.gz file outside the hub, decompressed while downloading."""
    import requests

    unpack = zlib.decompressobj(wbits=_GZIP)
    held = b""
    with requests.get(address, stream=True, timeout=10) as answer:
        answer.raise_for_status()
        answer.raw.decode_content = False
        while packed := answer.raw.read(1 << 18):
            while packed:
                if unpack.eof:  # a file may have several members
                    unpack = zlib.decompressobj(wbits=_GZIP)
                *lines, held = (held + unpack.decompress(packed, _BLOCK)).split(b"\n")
                if len(held) > MAX_LOG_BYTES:
                    raise ParseError(f"a line larger than {MAX_LOG_BYTES:,} bytes")
                yield from (_web_row(line) for line in lines)
                packed = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
    if not unpack.eof:
        raise EOFError("unexpected end of file")
    if held:
        yield _web_row(held)


def _web_row(line: bytes) -> dict[str, Any]:
    return parse_object(line, limit=MAX_LOG_BYTES, lenient=True)


def _configure(datasets: Any) -> None:
    config = datasets.config
    config.HF_ENDPOINT = hub_endpoint()
    config.HF_UPDATE_DOWNLOAD_COUNTS = False
    config.STREAMING_READ_MAX_RETRIES = config.STREAMING_OPEN_MAX_RETRIES = 1
    for name in ("READ", "OPEN", "READ_SERVER_UNAVAILABLE", "READ_RATE_LIMIT"):
        if hasattr(config, f"STREAMING_{name}_RETRY_INTERVAL"):
            setattr(config, f"STREAMING_{name}_RETRY_INTERVAL", 0)


def _kind(path: str) -> str:
    if path.endswith(".parquet"):
        return "parquet"
    return "csv" if path.endswith(".csv") else "json"


def _check_columns(file: DataFile, columns: Sequence[str], row: dict[str, Any], what: str) -> None:
    for column in columns:
        if column not in row:
            there = list(row)
            shown = ", ".join(there[:_SHOWN]) + (", ..." if len(there) > _SHOWN else "")
            raise DataError(
                f"{file.path} of {what} has no column '{column}'; it has: {shown}.",
                next_step="Changed columns need a newer version of holo; or read the files as your "
                "own text: holo prepare mine --source FOLDER --text-field NAME.",
            )


def _decoding_errors() -> tuple[type[Exception], ...]:
    """What reading a damaged file raises."""
    import gzip

    import pyarrow

    damaged = (gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError, ParseError)
    return (pyarrow.ArrowInvalid, *damaged)
