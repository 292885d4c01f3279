"""Loads the checkpoint of a command, with its device and dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holo_cli.errors import UsageError, nearest
from holo_cli.imports import no_collections

if TYPE_CHECKING:
    import torch

    from holo_cli.cli.output import Output
    from holo_cli.inference.generation.loaded_model import LoadedModel

DTYPES = ("auto", "float32", "bfloat16")
WEIGHTS = ("stored", "int8")


def torch_dtype(name: str | None) -> torch.dtype | None:
    """`--dtype` as a torch dtype; None for auto, the dtype of the weights."""
    if name not in (None, *DTYPES):
        raise UsageError(
            f"--dtype must be one of {', '.join(DTYPES)}, not '{name}'.",
            next_step=nearest(str(name), DTYPES),
        )
    if name in (None, "auto"):
        return None
    import torch

    dtype: torch.dtype = getattr(torch, str(name))
    return dtype


def weights_kind(name: str | None) -> str:
    """`--weights`, checked; the default is as stored."""
    if name not in (None, *WEIGHTS):
        raise UsageError(
            f"--weights must be one of {', '.join(WEIGHTS)}, not '{name}'.",
            next_step=nearest(str(name), WEIGHTS),
        )
    return name or WEIGHTS[0]


def load_with_options(
    checkpoint: str | None,
    device: str | None,
    dtype: str | None,
    weights: str | None = None,
    compile_steps: bool | None = None,
) -> LoadedModel:
    """Loads a checkpoint; the options are checked before it is read."""
    kind, form = torch_dtype(dtype), weights_kind(weights)
    with no_collections():
        from holo_cli.inference.generation.loaded_model import load as load_checkpoint

    return load_checkpoint(
        checkpoint,
        device=device or "auto",
        dtype=kind,
        weights=form,
        compile_steps=bool(compile_steps),
    )


def note_newest(checkpoint: str | None, loaded: LoadedModel, out: Output) -> None:
    """Notes which checkpoint is used if none was named."""
    if checkpoint is None:
        header = loaded.header
        out.note(
            f"No --checkpoint was given: using the newest, {header.run} ({header.model}, "
            f"step {header.step})."
        )
