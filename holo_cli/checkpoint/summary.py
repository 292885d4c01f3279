"""What `holo inspect` shows of a checkpoint, as plain data. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holo_cli.checkpoint.parts import parts_of
from holo_cli.checkpoint.read import MODEL_PREFIX, TensorFile


def inspect_checkpoint(path: str | Path, *, verify: bool = True) -> dict[str, Any]:
    """Everything but the tensors' values, JSON-able.

    With `verify` every tensor is read: `verified` has `digests` (how many tensors have one),
    `damaged` (names of those that differ from it) and `not_finite` (values by tensor); else None.

    `parts`: files that hold the tensors beside this one, 0 for a checkpoint of one file.
    `parameters` counts the elements under "model/", a shared tensor once; `bytes` is the size of
    all tensors; the tokenizer is described and not built, since that may need files that are not
    here. Raises CheckpointError.
    """
    with TensorFile(Path(path), "np") as file:
        header, infos = file.header, list(file.container.tensors.values())
        found = file.verify() if verify else None
        exported = file.path.is_dir()
        parts = len(parts_of(file.path)) if not exported else 0
    weights = [info for info in infos if exported or info.name.startswith(MODEL_PREFIX)]
    return {
        "path": str(path),
        "format": header.format,
        "model": header.model,
        "needs": header.needs,
        "preset": header.preset,
        "recipe": header.recipe,
        "run": header.run,
        "kind": header.kind,
        "step": header.step,
        "tokens": header.tokens,
        "val_loss": header.losses.val,
        "losses": header.losses.model_dump(),
        "parameters": sum(info.numel for info in weights),
        "bytes": sum(info.nbytes for info in infos),
        "parts": parts,
        "config": header.config,
        "tokenizer": {
            "kind": header.tokenizer.get("kind"),
            "specials": header.tokenizer.get("specials"),
            "vocab_size": header.config["model"].get("vocab_size"),
        },
        "data": header.data.model_dump(exclude=None if header.data.sets else {"sets"}),
        "history": header.history,
        "stages": [row.model_dump() for row in header.stages],
        "origins": [origin.model_dump() for origin in header.origins],
        "versions": header.versions,
        "created": header.created,
        "shared": header.shared,
        "verified": found
        and {
            "digests": found.checked,
            "damaged": found.damaged,
            "not_finite": found.not_finite,
        },
        "tensors": [
            {
                "name": info.name,
                "shape": list(info.shape),
                "dtype": info.dtype,
                "bytes": info.nbytes,
            }
            for info in infos
        ],
    }
