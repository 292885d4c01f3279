"""Opens files, and unpacks gzip and zstd as a stream: a small archive may hold more than memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import zstandard

from holo_cli.data.remote import SourcePath, store_errors
from holo_cli.errors import DataError

MAX_WINDOW = 1 << 31  # bytes: zstd --long=31, the largest there is
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte from 0x50 to 0x5f


def open_bytes(path: SourcePath) -> BinaryIO:
    """Open a file for reading; gzip and zstd (by their magic numbers) are decompressed."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw))
    if magic == _ZSTD or _skippable(magic):
        unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        frames = cast(BinaryIO, _Frames(raw))  # reading and closing is all that it takes
        reader = unpacker.stream_reader(frames, read_across_frames=True)
        return io.BufferedReader(reader)
    return raw


@contextlib.contextmanager
def readable(path: SourcePath) -> Iterator[None]:
    """Raise errors from reading a damaged file as DataError."""
    try:
        yield
    except (EOFError, zlib.error, zstandard.ZstdError, *store_errors()) as error:  # type: ignore[misc]
        if isinstance(error, gzip.BadGzipFile) and str(error).startswith("Not a gzipped file"):
            raise DataError(
                f"{path} has other bytes after its packed text.",
                next_step="Unpack it with gzip -d, which leaves them out.",
            ) from error
        raise DataError(
            f"{path} is damaged or truncated: {error}.",
            next_step="Get the file again.",
        ) from error


def _skippable(magic: bytes) -> bool:
    """Whether a zstd frame without text begins here, as parallel packers write them."""
    return magic[1:] == _SKIPPABLE and magic[0] >> 4 == 5


class _Frames:
    """A packed file as `zstandard` reads it, which takes the end of a file for the end of a frame.

    This follows the frames and their blocks (RFC 8878, section 3.1) and raises EOFError if the file
    ends within one.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self.raw = raw
        self._state = "frame"  # what comes next: "frame", "header", "block", "checksum" or "size"
        self._skip = 0  # bytes before it
        self._held = b""  # the beginning of it
        self._descriptor = 0
        self._broken = False  # not zstd: the decompressor says so

    def read(self, size: int = -1) -> bytes:
        data = self.raw.read(size)
        if not data and size:
            if not self._broken and (self._skip or self._held or self._state != "frame"):
                raise EOFError("it ends within a frame")
            return data
        self._follow(data)
        return data

    def close(self) -> None:
        self.raw.close()

    def _follow(self, data: bytes) -> None:
        at = 0
        while not self._broken:
            step = min(self._skip, len(data) - at)
            self._skip -= step
            at += step
            wanted = {"frame": 4, "size": 4, "header": 1, "block": 3, "checksum": 4}[self._state]
            taken = data[at : at + wanted - len(self._held)]
            self._held += taken
            at += len(taken)
            if len(self._held) < wanted:
                return
            field, self._held = self._held, b""
            self._next(field)

    def _next(self, field: bytes) -> None:
        number = int.from_bytes(field, "little")
        if self._state == "frame":
            self._state = "header" if field == _ZSTD else "size"
            self._broken = field != _ZSTD and not _skippable(field)
        elif self._state == "size":
            self._state, self._skip = "frame", number
        elif self._state == "header":
            single, content = number >> 5 & 1, number >> 6
            sizes = (single, 2, 4, 8)[content] + (0, 1, 2, 4)[number & 3]
            self._descriptor = number
            self._state, self._skip = "block", sizes + 1 - single
        elif self._state == "block":
            run = number >> 1 & 3 == 1  # one byte, repeated
            self._skip = 1 if run else number >> 3
            if number & 1:
                self._state = "checksum" if self._descriptor >> 2 & 1 else "frame"
        else:
            self._state = "frame"
