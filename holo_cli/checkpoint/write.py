"""Saving a checkpoint: one file, one consistent moment, never half of one.

Tensors go to the disk one after another, so saving needs no second copy of the model. A tensor
that has several names (a tied head) is stored once; the header remembers its other names.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from holo_cli.checkpoint.container import plan
from holo_cli.checkpoint.digest import DIGEST_KEY, METADATA_KEY, NONE, digest, text_digest
from holo_cli.checkpoint.find import KINDS, run_path
from holo_cli.checkpoint.header import Header
from holo_cli.checkpoint.parts import clear_parts
from holo_cli.checkpoint.read import MODEL_PREFIX
from holo_cli.checkpoint.tensor_bytes import is_finite, raw_bytes
from holo_cli.errors import CheckpointError
from holo_cli.files import atomic_file, remove_leftovers

# torch's dtypes by the format's names
FORMAT_NAMES: dict[torch.dtype, str] = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.int16: "I16", torch.uint16: "U16", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int32: "I32", torch.uint32: "U32", torch.float32: "F32",
    torch.int64: "I64", torch.uint64: "U64", torch.float64: "F64", torch.complex64: "C64",
}  # fmt: skip

_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's parameters and persistent buffers, named as a checkpoint names them."""
    return {MODEL_PREFIX + name: tensor for name, tensor in model.state_dict().items()}


def save(path: str | Path, header: Header, tensors: Mapping[str, Tensor]) -> int:
    """Write a checkpoint; returns its size in bytes.

    Until the last moment `path` holds the previous checkpoint. Raises CheckpointError when a
    model tensor is not finite, when there is no room, and for every other error of the disk; the
    previous checkpoint is then untouched and nothing is left behind. Temporaries that killed
    writers of the same run left are removed.
    """
    path = Path(path)
    check_values(path, tensors)
    stored, shared = share(tensors)
    leftovers = [run_path(path.parent, header.run, kind) for kind in KINDS] if header.run else []

    def metadata(digests: dict[str, str]) -> dict[str, str]:
        text = header.model_copy(update={"shared": shared, "digests": digests}).to_json()
        return {METADATA_KEY: text, DIGEST_KEY: text_digest(text)}

    size, _ = write_tensors(path, stored, metadata, leftovers)
    clear_parts(path)  # of an index that this file replaced
    return size


def share(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split off tensors that are the same memory: (stored, {further name: stored name}).

    Same means the same elements in the same order; views that merely overlap are stored apart.
    """
    stored: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    seen: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and key in seen:
            shared[name] = seen[key]
        else:
            seen[key] = name
            stored[name] = tensor
    return stored, shared


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Callable[[dict[str, str]], Mapping[str, str]],
    leftovers: list[Path] | None = None,
) -> tuple[int, dict[str, str]]:
    """Write a safetensors file atomically; returns its size in bytes and the tensors' digests.

    `metadata` makes the file's metadata from the digests, of the same length whatever they are:
    tensors are written after the head and only once, so the head is written again at the end.
    Raises CheckpointError.
    """
    kinds = {name: (FORMAT_NAMES[t.dtype], tuple(t.shape)) for name, t in tensors.items()}
    digests = dict.fromkeys(tensors, NONE)
    try:
        head, infos = plan(kinds, metadata(digests))
    except ValueError as error:
        raise CheckpointError(
            f"Cannot save {path}: {error}.",
            next_step="Use a tokenizer with a smaller vocabulary.",
        ) from error
    total = len(head) + sum(info.nbytes for info in infos)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in {path, *(leftovers or [])}:
            remove_leftovers(other)
        check_room(path, total)
        with atomic_file(path) as file:
            file.write(head)
            for info in infos:
                content = raw_bytes(tensors[info.name])
                digests[info.name] = digest(info.dtype, info.shape, content)
                file.write(content)
            final, _ = plan(kinds, metadata(digests))
            assert len(final) == len(head), "the tensors would not be where the head says"
            file.seek(0)
            file.write(final)
    except OSError as error:
        if error.errno in _FULL:
            raise no_room(path, total, None) from error
        raise CheckpointError(
            f"Cannot save {path}: {error.strerror or error}.",
            next_step="The previous checkpoint is untouched; check the folder's permissions "
            "and its disk, or start from a folder on another disk.",
        ) from error
    return total, digests


def check_values(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError where a weight is not a finite number."""
    for name, tensor in tensors.items():
        if not name.startswith(MODEL_PREFIX) or not tensor.is_floating_point():
            continue
        if not is_finite(tensor):
            raise CheckpointError(
                f"Not saving {path}: {name} holds values that are NaN or infinite.",
                next_step="Resume from the last good checkpoint with a lower learning rate (--lr).",
            )


def check_room(path: Path, needed: int) -> None:
    """Raises CheckpointError where the disk has no room for a checkpoint of `needed` bytes."""
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise no_room(path, needed, free)


def no_room(path: Path, needed: int, free: int | None) -> CheckpointError:
    """The error for a disk that is full, or too full to begin."""
    left = f"{megabytes(free)} are free" if free is not None else "the disk filled up"
    missing = needed - free if free is not None else needed
    return CheckpointError(
        f"No room to save {path}: it takes {megabytes(needed)} and {left}.",
        next_step=f"Free at least {megabytes(missing)} on that disk and `holo resume`; "
        "the previous checkpoint is untouched.",
    )


def megabytes(size: int) -> str:
    """A size in MB (10^6 bytes), rounded up to a tenth.

    >>> megabytes(31_415_926)
    '31.5 MB'
    """
    return f"{-(-size // 100_000) / 10:.1f} MB"
