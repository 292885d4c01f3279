"""The safetensors container: where each tensor lies in a file. No torch.

A file is an 8-byte little-endian length, that many bytes of JSON, then the tensors' bytes without
gaps (https://github.com/huggingface/safetensors#format). Reading is done here rather than by the
library so that each fault of a damaged or hostile file becomes one sentence before anything is
allocated, and so that header and tensors come from one open file: a trainer may rename a newer
checkpoint into place at any moment.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from holo_cli.checkpoint.header import METADATA_KEY, damaged, parse_json
from holo_cli.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the limit of the format itself
MAX_DIMENSIONS = 64  # as torch
LENGTH_BYTES = 8

# Bytes per element of the dtypes that torch also has; the names are the format's.
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One stored tensor: `begin` and `end` are byte offsets after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the head of a file says: tensors by name, metadata, and where the bytes begin."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int


def plan(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[TensorInfo]]:
    """The head of a new file, and its tensors in the order in which their bytes must follow.

    `tensors` gives (dtype, shape) by name. Wide dtypes come first and the head is padded to 8
    bytes, so that every tensor is aligned in a memory map. Raises ValueError when the head is
    larger than the format allows.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    infos = []
    begin = 0
    for name in sorted(tensors, key=lambda name: (-ITEM_BYTES[tensors[name][0]], name)):
        dtype, shape = tensors[name]
        end = begin + math.prod(shape) * ITEM_BYTES[dtype]
        infos.append(TensorInfo(name, dtype, shape, begin, end))
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    head = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    head += b" " * (-len(head) % 8)
    if len(head) > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {len(head)} bytes, {MAX_HEADER_BYTES} are allowed")
    return len(head).to_bytes(LENGTH_BYTES, "little") + head, infos


def parse(file: BinaryIO, path: Path) -> Layout:
    """Read and check the head of an open file: sizes, JSON, dtypes, shapes, offsets.

    Allocates no more than the head, which is at most the file's size. Raises CheckpointError.
    """
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise CheckpointError(
            f"The checkpoint {path} is empty (0 bytes).",
            next_step="Copy it again from where it came, or use another checkpoint.",
        )
    first = file.read(LENGTH_BYTES)
    if first.startswith(_PICKLES):
        raise CheckpointError(
            f"{path} is a PyTorch pickle; holo reads no pickles, since loading one runs its code.",
            next_step="Convert it to safetensors where it was made, or train with `holo train`.",
        )
    length = int.from_bytes(first, "little")
    if size < LENGTH_BYTES or not 2 <= length <= MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path} is not a safetensors file.",
            next_step="Give a checkpoint written by `holo train`; `holo inspect` shows the newest.",
        )
    if length > size - LENGTH_BYTES:
        raise damaged(path, f"its header should have {length} bytes and the file ends before that")
    try:
        entries = parse_json(file.read(length))
    except ValueError as error:  # a UnicodeDecodeError is one too
        raise damaged(path, "its header is not JSON") from error
    if not isinstance(entries, dict):
        raise damaged(path, "its header is not a JSON object")
    metadata = _metadata(entries.pop("__metadata__", {}), path)
    infos = [_tensor(name, entry, path) for name, entry in entries.items()]
    data_start = LENGTH_BYTES + length
    _check_offsets(infos, size - data_start, path)
    return Layout({info.name: info for info in infos}, metadata, data_start)


def holo_metadata(layout: Layout, path: Path) -> str:
    """The header's JSON, or the error for a safetensors file that some other program wrote."""
    if METADATA_KEY not in layout.metadata:
        raise CheckpointError(
            f"{path} is a safetensors file, but not one of holo's: it says nothing of a model.",
            next_step="Give a checkpoint written by `holo train`, or a folder by `holo export`.",
        )
    return layout.metadata[METADATA_KEY]


def _metadata(found: Any, path: Path) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise damaged(path, "its metadata is not a table of texts")
    return found


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _tensor(name: str, entry: Any, path: Path) -> TensorInfo:
    if not isinstance(entry, dict):
        raise damaged(path, f"the entry of tensor '{name}' is not an object")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise damaged(path, f"tensor '{name}' has the unknown dtype {dtype!r:.40}")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMENSIONS
        or not all(_is_size(length) for length in shape)
    ):
        raise damaged(path, f"tensor '{name}' has no proper shape")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(_is_size(offset) for offset in offsets)
    ):
        raise damaged(path, f"tensor '{name}' has no proper offsets")
    info = TensorInfo(name, dtype, tuple(shape), offsets[0], offsets[1])
    if info.nbytes != info.numel * ITEM_BYTES[dtype]:
        raise damaged(path, f"tensor '{name}' has a shape that does not fit its bytes")
    return info


def _check_offsets(infos: list[TensorInfo], data_bytes: int, path: Path) -> None:
    """Tensors must follow each other without gap or overlap, to the end of the file."""
    end = 0
    for info in sorted(infos, key=lambda info: (info.begin, info.end)):
        if info.begin != end:
            raise damaged(path, f"tensor '{info.name}' overlaps another or leaves a gap")
        end = info.end
    if end > data_bytes:
        raise damaged(path, f"it is cut off: {data_bytes} of {end} bytes of tensors are there")
    if end < data_bytes:
        raise damaged(path, f"{data_bytes - end} bytes follow its last tensor")
