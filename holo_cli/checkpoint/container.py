"""The safetensors container: reading one, and the head of a new one. No torch.

The `safetensors` library reads (https://github.com/huggingface/safetensors#format). It checks JSON,
shapes and offsets before it allocates anything; its `pread` backend gives header and tensors from
one open file, although a trainer may rename a newer checkpoint into place at any moment, and leaves
nothing mapped. Files that are no container at all are recognised here.

The head is written here because the library's writer copies all tensors of a GPU to the host
at once, does not say how large the file will be, and leaves a temporary with a random name in the
folder when its process is killed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from holo_cli.checkpoint.digest import (
    DIGEST_KEY,
    LENGTH_BYTES,
    METADATA_KEY,
    Verified,
    digest,
    text_digest,
    verify,
)
from holo_cli.checkpoint.header import damaged
from holo_cli.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the limit of the format itself
MAX_DIMENSIONS = 64  # as torch

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
    """One stored tensor, without its values; `dtype` is the format's name of it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * ITEM_BYTES[self.dtype]


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
        info = TensorInfo(name, *tensors[name])
        end = begin + info.nbytes
        infos.append(info)
        entries[name] = {
            "dtype": info.dtype, "shape": list(info.shape), "data_offsets": [begin, end],
        }  # fmt: skip
        begin = end
    head = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    head += b" " * (-len(head) % 8)
    if len(head) > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {len(head)} bytes, {MAX_HEADER_BYTES} are allowed")
    return len(head).to_bytes(LENGTH_BYTES, "little") + head, infos


class Container:
    """An open safetensors file: `tensors` and `metadata` by name; values on demand.

    `framework` is that of `read`: "pt" imports torch, "np" (for the header alone) does not.
    Raises OSError where the file cannot be opened, and CheckpointError for everything in it.
    """

    def __init__(self, path: Path, framework: Literal["pt", "np"]) -> None:
        self.path = path
        _check_head(path)
        try:
            self._file = safe_open(path, framework, backend="pread")
        except SafetensorError as error:
            reason = str(error).removeprefix("Error while deserializing header: ")
            if reason.startswith("incomplete metadata"):
                reason = "the file is cut off, or longer than its tensors"
            raise damaged(path, f"invalid container: {reason}") from error
        self.metadata: dict[str, str] = self._file.metadata() or {}
        self.tensors = {name: self._info(name) for name in self._file.offset_keys()}

    def _info(self, name: str) -> TensorInfo:
        stored = self._file.get_slice(name)
        info = TensorInfo(name, stored.get_dtype(), tuple(stored.get_shape()))
        if info.dtype not in ITEM_BYTES:
            raise damaged(self.path, f"tensor '{name}' has the unknown dtype {info.dtype}")
        if len(info.shape) > MAX_DIMENSIONS:
            raise damaged(self.path, f"tensor '{name}' has {len(info.shape)} dimensions")
        return info

    def read(self, name: str) -> Any:
        """A tensor in memory of its own."""
        try:
            return self._file.get_tensor(name)
        except SafetensorError as error:
            raise damaged(self.path, f"tensor '{name}' cannot be read ({error})") from error

    def rows(self, name: str, first: int, count: int, crc32: str | None) -> Any:
        """Some rows of a tensor, which is read whole and compared with its digest."""
        tensor = self.checked(name, crc32)
        return tensor[first : first + count].clone() if tensor.ndim else tensor

    def checked(self, name: str, crc32: str | None) -> Any:
        """A tensor; raises CheckpointError where it differs from the digest."""
        from holo_cli.checkpoint.tensor_bytes import raw_bytes

        tensor, info = self.read(name), self.tensors[name]
        if crc32 is not None and digest(info.dtype, info.shape, raw_bytes(tensor)) != crc32:
            raise damaged(self.path, f"the tensor '{name}' differs from its digest")
        return tensor

    def verify(self, digests: Mapping[str, str] | None = None) -> Verified:
        """Every tensor against its digest, by default that of the header. Raises OSError."""
        return verify(self.path, digests)

    def holo_metadata(self) -> str:
        """The header's JSON, or the error for a safetensors file of another program."""
        if METADATA_KEY not in self.metadata:
            raise CheckpointError(
                f"{self.path} is a safetensors file, but not one of holo's: it names no model.",
                next_step="Give a checkpoint written by `holo train`, or a folder by "
                "`holo export`.",
            )
        return self.metadata[METADATA_KEY]

    def check_header(self, has_digests: bool) -> None:
        """Raise CheckpointError where the header differs from its digest.

        A header with digests of tensors has one of its own and the other way round, so that damage
        to a key does not pass for a file that is older than digests.
        """
        stored = self.metadata.get(DIGEST_KEY)
        if (stored is not None) != has_digests:
            raise damaged(self.path, "its header has lost a digest")
        if stored is not None and stored != text_digest(self.metadata[METADATA_KEY]):
            raise damaged(self.path, "its header differs from the header's digest")


def _check_head(path: Path) -> None:
    """Raise CheckpointError for files that are no container at all."""
    with path.open("rb") as file:
        first = file.read(LENGTH_BYTES)
        size = file.seek(0, 2)
    if size == 0:
        raise CheckpointError(
            f"The checkpoint {path} is empty (0 bytes).",
            next_step="Copy it again from where it came, or use another checkpoint.",
        )
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
