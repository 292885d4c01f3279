"""Writing a checkpoint in parts: each process its part, and one the index that makes them valid.

See `parts.py` for the form. Nothing here talks to other processes: `training/sharded_saving.py`
does, by torch.distributed.checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from holo_cli.checkpoint.digest import DIGEST_KEY, METADATA_KEY, text_digest
from holo_cli.checkpoint.header import PARTS_FORMAT, Header
from holo_cli.checkpoint.parts import (
    PartFile,
    PartsIndex,
    StoredTensor,
    TensorPiece,
    clear_parts,
    parts_folder,
)
from holo_cli.checkpoint.write import check_values, write_tensors

# what PyTorch's HuggingFaceStorageReader looks for in a part
_OFFSETS_KEY = "DCP_SHARDING_INFO"


def write_part(
    path: Path, part: str, tensors: Mapping[str, Tensor], first: Mapping[str, int]
) -> tuple[int, dict[str, str]]:
    """Write one part of the checkpoint at `path`; its size in bytes and its tensors' digests.

    `first`: the row of the whole tensor with which each of them begins. Raises CheckpointError like
    `save`.
    """
    check_values(path, tensors)
    offsets = {
        name: {"saved_offsets": [first[name], *[0] * (tensor.ndim - 1)] if tensor.ndim else []}
        for name, tensor in tensors.items()
    }
    metadata = {"DCP_VERSION": "1.0", _OFFSETS_KEY: json.dumps(offsets)}
    return write_tensors(parts_folder(path) / part, tensors, lambda digests: metadata)


def write_index(
    path: Path,
    header: Header,
    parts: Sequence[PartFile],
    tensors: Mapping[str, tuple[str, Sequence[int], Sequence[TensorPiece]]],
    shared: Mapping[str, str],
) -> None:
    """Make the parts, which are all on the disk, the checkpoint at `path`; delete those before.

    `tensors`: dtype, shape and pieces of each; `shared`: further names of tensors.
    """
    index = PartsIndex(
        parts=list(parts),
        tensors={
            name: StoredTensor(
                dtype=dtype, shape=list(shape), pieces=sorted(pieces, key=lambda p: p.first)
            )
            for name, (dtype, shape, pieces) in tensors.items()
        },
    )
    changes = {"format": PARTS_FORMAT, "shared": dict(shared), "digests": {}}
    text = header.model_copy(update=changes).to_json()
    metadata = {METADATA_KEY: text, DIGEST_KEY: text_digest(text), **index.metadata()}
    write_tensors(path, {}, lambda digests: metadata)
    clear_parts(path, keep={part.name for part in parts})
