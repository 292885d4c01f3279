"""Digests of a checkpoint's tensors, and the values in them that are no numbers. No torch.

A digest is the CRC-32 of a tensor's dtype and shape and of its bytes as they are stored. It finds
every flipped bit and every run of damage up to 32 bits long, and other damage but for one in 2^32;
it costs a fifth of reading a file that is in memory (benchmarks/digests.py), and zlib is
everywhere. It is against disks and copies that fail, not against a person who forges: that person
writes the digest too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from holo_cli.parsing import parse_object

METADATA_KEY = "holo"  # of a safetensors file: the header's JSON
DIGEST_KEY = "holo_crc32"  # beside it: CRC-32 of that JSON, 8 hex digits
CHUNK = 16 << 20  # bytes read at once
NONE = "0" * 8  # in place of a digest that is not known yet
LENGTH_BYTES = 8  # at the start of a file: the length of its head

# of the dtypes that have infinities or NaN: an integer of the same width, the bits of the exponent
_EXPONENTS: dict[str, tuple[str, int]] = {
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F32": ("<u4", 0x7F800000),
    "F64": ("<u8", 0x7FF0000000000000),
    "F8_E5M2": ("u1", 0x7C),
}


def text_digest(text: str) -> str:
    """CRC-32 of a text, 8 hex digits."""
    return f"{zlib.crc32(text.encode('utf-8')):08x}"


def digest(dtype: str, shape: Sequence[int], content: memoryview | bytes) -> str:
    """The digest of a tensor, 8 hex digits; `dtype` is the format's name."""
    return f"{zlib.crc32(content, zlib.crc32(_seed(dtype, shape))):08x}"


def _seed(dtype: str, shape: Sequence[int]) -> bytes:
    return f"{dtype} {list(shape)}".encode("ascii")


def not_finite_in_bytes(dtype: str, content: bytes) -> int:
    """How many values of a tensor's bytes (or a part of them) are NaN or infinite."""
    if dtype not in _EXPONENTS:
        return 0
    integer, exponent = _EXPONENTS[dtype]
    values = np.frombuffer(content, dtype=integer)
    return int(np.count_nonzero((values & values.dtype.type(exponent)) == exponent))


@dataclass
class Verified:
    """What reading all tensors of a file showed."""

    checked: int = 0  # tensors with a digest
    damaged: list[str] = field(default_factory=list)  # tensors that differ from theirs
    not_finite: dict[str, int] = field(
        default_factory=dict
    )  # values by tensor, where there are any


def verify(path: Path, digests: Mapping[str, str] | None = None) -> Verified:
    """Read the tensors of a safetensors file in pieces; names are the file's own.

    `digests` None: those of the header in the same open file, which a trainer may have renamed into
    place since the caller looked. The file has been opened as a `Container` before, so that its
    head is known to be sound. Raises OSError.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        entries = parse_object(file.read(length))
        metadata = entries.pop("__metadata__", {})
        if digests is None:
            digests = parse_object(metadata[METADATA_KEY]).get("digests", {})
        found = Verified(checked=len(digests))
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            file.seek(LENGTH_BYTES + length + begin)
            wrong = 0
            value = zlib.crc32(_seed(entry["dtype"], entry["shape"]))
            for part in _parts(file, end - begin):
                wrong += not_finite_in_bytes(entry["dtype"], part)
                value = zlib.crc32(part, value)
            if wrong:
                found.not_finite[name] = wrong
            if digests and digests.get(name) != f"{value:08x}":
                found.damaged.append(name)
    return found


def _parts(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        part = file.read(min(size, CHUNK))
        if not part:
            raise OSError("the file ended while it was read")
        size -= len(part)
        yield part
