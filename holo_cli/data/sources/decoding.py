"""Bytes of a file to text: compression, encoding, and what is not text at all.

The first 64 kB decide. Text that is valid UTF-8 is read as such whatever `--encoding` says, so
that one flag serves a folder in which old and new files lie side by side. Files that are not are
read in the encoding given, or refused by name with the flag that would read them. Later invalid
bytes become U+FFFD, which cleaning removes and counts.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

from holo_cli.errors import DataError, UsageError

SNIFF = 65_536
BLOCK = 1 << 20
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_STRAY = 0.02  # share of bytes that may be invalid in a file that still counts as UTF-8
_GUESSES = ("cp949", "shift_jis", "gb18030", "cp1252")


class NotText(DataError):
    """A file that holds no text: binary, or in no encoding that could be guessed."""


def check_encoding(encoding: str | None) -> None:
    """Refuse an encoding that Python does not know."""
    if encoding is None:
        return
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise UsageError(
            f"There is no encoding '{encoding}'.", next_step="Korean files are often cp949."
        ) from error


def open_bytes(path: Path) -> BinaryIO:
    """The file for reading, decompressed if it is gzip or zstd (told by its first bytes)."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw))
    if magic == b"\x28\xb5\x2f\xfd":
        reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return io.BufferedReader(reader)
    return raw


def text_blocks(path: Path, encoding: str) -> Iterator[str]:
    """The text of a file in blocks of about a megabyte; bad bytes become U+FFFD."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    with open_bytes(path) as file, readable(path):
        while block := file.read(BLOCK):
            yield decoder.decode(block)
        yield decoder.decode(b"", final=True)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Damage to a compressed file (or to a disk) while reading it, told in one sentence."""
    try:
        yield
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DataError(
            f"{path} is damaged or cut short: {error}.", next_step="Get the file again."
        ) from error


def encoding_of(path: Path, given: str | None) -> str:
    """The codec to read a file with. Raises NotText, or DataError that names `--encoding`."""
    with open_bytes(path) as file, readable(path):
        head = file.read(SNIFF)
    return _codec(head, str(path), given, cut=len(head) == SNIFF)


def whole_text(data: bytes, name: str, given: str | None) -> str:
    """Bytes as the text they are, line ends as `\\n`, for what no cleaning follows.

    Nothing is replaced: one bad byte is refused, by a DataError with `name` in it.
    """
    codec = _codec(data, name, given, cut=False)
    try:
        text = data.decode(codec)
    except UnicodeError as error:
        raise DataError(
            f"{name} is not {codec.upper()} throughout: {error}.",
            next_step="Mend those bytes, or name the encoding it is in with --encoding.",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _codec(head: bytes, name: str, given: str | None, cut: bool) -> str:
    """The codec of a text by its first bytes; `cut` says that there may be more."""
    for bom, codec in _BOMS.items():
        if head.startswith(bom):
            return codec
    if b"\0" in head and not (given or "").lower().replace("_", "-").startswith(
        ("utf-16", "utf-32")
    ):
        raise NotText(
            f"{name} is a binary file, not text.",
            next_step="Name a text file: txt, md, jsonl, csv, tsv or parquet (also .gz or .zst).",
        )
    if _valid(head, "utf-8", cut) and not (given and head.isascii()):
        return "utf-8"
    if given:
        if not _valid(head, given, cut) and _stray(head, given) > _STRAY:
            raise DataError(
                f"{name} is not in the encoding {given}.",
                next_step=_advice(head, cut, "Leave --encoding out if the file is UTF-8."),
            )
        return given
    if _stray(head, "utf-8") <= _STRAY:
        return "utf-8"
    guess = next((codec for codec in _GUESSES if _valid(head, codec, cut)), None)
    if guess is None:
        raise NotText(
            f"{name} is not text in any encoding known here.",
            next_step="If it is text, name its encoding with --encoding.",
        )
    raise DataError(f"{name} is not UTF-8.", next_step=_advice(head, cut, ""))


def _valid(data: bytes, encoding: str, cut: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)(errors="strict").decode(data, final=not cut)
    except UnicodeError:
        return False
    return True


def _stray(data: bytes, encoding: str) -> float:
    """The share of bytes that do not belong to any valid character."""
    text = data.decode(encoding, errors="replace")
    return text.count("\ufffd") / max(len(data), 1)


def _advice(head: bytes, cut: bool, otherwise: str) -> str:
    guess = next((codec for codec in _GUESSES if _valid(head, codec, cut)), None)
    return f"It reads as {guess}: add --encoding {guess}." if guess else otherwise
