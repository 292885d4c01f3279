"""The GGUF container, version 3: a head of typed values, a table of tensors, and their bytes.

Written here rather than by the `gguf` package, which opens its files itself and so could leave half
of one; the tests read the files with it. Numbers are little-endian, shapes innermost first, and
every tensor begins at a multiple of 32 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from torch import Tensor

from holo_cli.checkpoint.tensor_bytes import raw_bytes
from holo_cli.files import atomic_file

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
F32 = 0  # the number of float32 among the tensor types


class ValueType(NamedTuple):
    """A type of values in the head: its number, and its form for `struct`; "" for texts."""

    number: int
    form: str


U32, I32 = ValueType(4, "<I"), ValueType(5, "<i")
FLOAT32, BOOL, TEXT = ValueType(6, "<f"), ValueType(7, "<?"), ValueType(8, "")
ARRAY = 9
Values = Mapping[str, tuple[ValueType, Any]]  # a list of values is an array


def write_gguf_file(path: Path, values: Values, tensors: Mapping[str, Tensor]) -> int:
    """Write a file of float32 tensors; returns its size. Raises OSError."""
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    with atomic_file(path) as file:
        file.write(MAGIC + struct.pack("<IQQ", VERSION, len(floats), len(values)))
        for key, (kind, value) in values.items():
            file.write(_text(key) + _value(kind, value))
        offset = 0
        for name, tensor in floats.items():
            shape = tuple(reversed(tensor.shape))
            file.write(_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
            file.write(struct.pack("<IQ", F32, offset))
            offset += _aligned(4 * tensor.numel())
        for tensor in floats.values():
            _pad(file)
            file.write(raw_bytes(tensor))
        _pad(file)
        return file.tell()


def _pad(file: BinaryIO) -> None:
    file.write(bytes(_aligned(file.tell()) - file.tell()))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _text(value: str) -> bytes:
    content = value.encode("utf-8")
    return struct.pack("<Q", len(content)) + content


def _value(kind: ValueType, value: Any) -> bytes:
    if isinstance(value, Sequence) and not isinstance(value, str):
        head = struct.pack("<IIQ", ARRAY, kind.number, len(value))
        return head + b"".join(_plain(kind, part) for part in value)
    return struct.pack("<I", kind.number) + _plain(kind, value)


def _plain(kind: ValueType, value: Any) -> bytes:
    return struct.pack(kind.form, value) if kind.form else _text(value)
