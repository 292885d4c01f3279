"""The format of a compressed file.

    8 bytes     signature; a change of line ends or of the eighth bit damages it visibly
    1 byte      format version
    4 bytes     length of the header;  4 bytes: CRC-32 of the header
    header      numbers, digests and names (`Archive`), then for each chunk: bytes of its payload
                (varint), CRC-32 of the payload and of its text
    payloads    one after another (bit_coder.py)

All numbers are little-endian. Every chunk can be decoded without the others. Sizes are checked
before anything is decoded, so that a truncated file is found at once.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import accumulate, pairwise

from holo_cli.errors import DataError
from holo_cli.inference.compression.bit_coder import Undecodable, read_varint, varint
from holo_cli.printable import one_line

SIGNATURE = b"\x89HOLOZ\r\n"
VERSION = 1
_FRONT = struct.Struct("<BII")
_DIGESTS = struct.Struct("<8s16s")
_CRCS = struct.Struct("<II")
_LONGEST = 255  # bytes of a name


@dataclass(frozen=True)
class ArchiveChunk:
    """`payload` bytes on the disk, and the CRC-32 of them and of the text they stand for."""

    payload: int
    payload_crc: int
    text_crc: int


@dataclass(frozen=True)
class Archive:
    """Everything but the payloads.

    Every chunk but the last has `chunk_tokens` tokens; `context` is the length of the windows,
    after which the state starts afresh, 0 if it is carried through the chunk. `rows` chunks are
    coded side by side. `checkpoint` is the digest of the weights (8 bytes), `digest` that of the
    text (16 bytes), both the beginning of a sha256.
    """

    text: int
    tokens: int
    chunk_tokens: int
    context: int
    rows: int
    checkpoint: bytes
    digest: bytes
    run: str
    kind: str
    lang: str  # of the marker before each chunk, "" for none
    made: str  # by which versions, on which device
    chunks: tuple[ArchiveChunk, ...] = ()

    def tokens_of(self, chunk: int) -> int:
        return min(self.chunk_tokens, self.tokens - chunk * self.chunk_tokens)


def pack(archive: Archive, payloads: list[bytes]) -> bytes:
    """The content of a file."""
    numbers = (
        archive.text, archive.tokens, archive.chunk_tokens, archive.context, archive.rows,
        len(archive.chunks),
    )  # fmt: skip
    parts = [
        *map(varint, numbers),
        _DIGESTS.pack(archive.checkpoint, archive.digest),
    ]  # fmt: skip
    for name in (archive.run, archive.kind, archive.lang, archive.made):
        encoded = name.encode("utf-8")[:_LONGEST]
        parts.append(bytes([len(encoded)]) + encoded)
    for chunk in archive.chunks:
        parts.append(varint(chunk.payload))
        parts.append(_CRCS.pack(chunk.payload_crc, chunk.text_crc))
    header = b"".join(parts)
    front = SIGNATURE + _FRONT.pack(VERSION, len(header), zlib.crc32(header))
    return b"".join([front, header, *payloads])


def unpack(content: bytes, name: str) -> tuple[Archive, list[bytes]]:
    """The parts of a file; `name` is for messages. Raises DataError for anything that `pack` did
    not make: another kind of file, a newer version, damage, a missing end."""
    start = len(SIGNATURE) + _FRONT.size
    if not content.startswith(SIGNATURE[: len(content)]) or not content:
        raise DataError(
            f"{name} was not made by `holo compress`.",
            next_step="Give a file that `holo compress` wrote.",
        )
    if len(content) < start:
        raise _truncated(name)
    version, length, crc = _FRONT.unpack_from(content, len(SIGNATURE))
    if version > VERSION:
        raise DataError(
            f"{name} has format {version} of a newer holo (this version reads format {VERSION}).",
            next_step="Update holo: pip install --upgrade holo-cli",
        )
    header = content[start : start + length]
    if len(header) < length:
        raise _truncated(name)
    if version < 1 or zlib.crc32(header) != crc:
        raise _damaged(name, "its header does not match its checksum")
    try:
        archive = _archive(header)
    except (Undecodable, struct.error, UnicodeDecodeError, IndexError) as error:
        raise _damaged(name, "its header is malformed") from error
    _check(archive, name)
    body = content[start + length :]
    ends = list(accumulate((chunk.payload for chunk in archive.chunks), initial=0))
    if len(body) < ends[-1]:
        raise _truncated(name)
    if len(body) > ends[-1]:
        raise _damaged(name, "there are bytes after its end")
    payloads = [body[a:b] for a, b in pairwise(ends)]
    return archive, payloads


def check_payload(chunk: ArchiveChunk, payload: bytes, number: int, name: str) -> None:
    """Raises DataError for a payload with a wrong checksum; chunks are numbered from 0."""
    if zlib.crc32(payload) != chunk.payload_crc:
        raise _damaged(name, f"chunk {number} does not match its checksum")


def _archive(header: bytes) -> Archive:
    at = 0
    numbers = []
    for _ in range(6):
        number, at = read_varint(header, at)
        numbers.append(number)
    text, tokens, chunk_tokens, context, rows, count = numbers
    checkpoint, digest = _DIGESTS.unpack_from(header, at)
    at += _DIGESTS.size
    names = []
    for _ in range(4):
        length = header[at]
        names.append(header[at + 1 : at + 1 + length].decode("utf-8"))
        at += 1 + length
    chunks = []
    for _ in range(count):
        payload, at = read_varint(header, at)
        chunks.append(ArchiveChunk(payload, *_CRCS.unpack_from(header, at)))
        at += _CRCS.size
    run, kind, lang, made = map(one_line, names)
    return Archive(
        text, tokens, chunk_tokens, context, rows, checkpoint, digest, run, kind, lang, made,
        tuple(chunks),
    )  # fmt: skip


def _check(archive: Archive, name: str) -> None:
    expected = -(-archive.tokens // archive.chunk_tokens) if archive.chunk_tokens else 0
    sound = (
        len(archive.chunks) == expected
        and archive.tokens <= archive.text
        and bool(archive.rows) == bool(archive.chunks)
        and bool(archive.text) == bool(archive.chunks)
    )
    if not sound:
        raise _damaged(name, "its header contradicts itself")


def _truncated(name: str) -> DataError:
    return DataError(
        f"{name} is truncated: its end is missing.", next_step="Copy it again from where it came."
    )


def _damaged(name: str, what: str) -> DataError:
    return DataError(f"{name} is damaged: {what}.", next_step="Copy it again from where it came.")
