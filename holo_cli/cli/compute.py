"""What commands that run a model need to set up: the checkpoint, its device and number format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holo_cli.errors import UsageError, nearest

if TYPE_CHECKING:
    import torch

    from holo_cli.cli.output import Output
    from holo_cli.inference.generation.loaded_model import LoadedModel

DTYPES = ("auto", "float32", "bfloat16")


def torch_dtype(name: str | None) -> torch.dtype | None:
    """`--dtype` as torch has it; None for auto: compute as the weights are."""
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


def load(checkpoint: str | None, device: str | None, dtype: str | None) -> LoadedModel:
    """The checkpoint a person named, ready to write. Checks the flags before anything is read."""
    kind = torch_dtype(dtype)
    from holo_cli.inference.generation.loaded_model import load as load_checkpoint

    return load_checkpoint(checkpoint, device=device or "auto", dtype=kind)


def tell_newest(checkpoint: str | None, loaded: LoadedModel, out: Output) -> None:
    """Say which checkpoint was taken where none was named."""
    if checkpoint is None:
        header = loaded.header
        out.note(f"No --checkpoint: {header.run} ({header.model}, step {header.step}), the newest.")
