"""What a checkpoint can be exported to: weights, dir, hf, gguf.

weights   the same file without its training state: small, and all that generating needs
dir       config.json, model.safetensors with plain names, the tokenizer's own file; for reading
          elsewhere, and `load_model` reads it back
hf        a folder that `transformers` loads (hf_folder.py)
gguf      one file for llama.cpp, of the models that it has (gguf.py)

Each target appears whole under its name or not at all, and replaces nothing unless forced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from holo_cli.checkpoint.find import CONFIG_FILE, SUFFIX, WEIGHTS_FILE, is_exported
from holo_cli.checkpoint.read import MODEL_PREFIX, TensorFile
from holo_cli.checkpoint.rebuild import checked_config
from holo_cli.checkpoint.write import save, write_tensors
from holo_cli.config.model_schema import ModelConfig
from holo_cli.errors import CheckpointError, UsageError, nearest
from holo_cli.export.gguf import check_architecture, write_gguf
from holo_cli.export.hf_folder import write_hf
from holo_cli.files import atomic_folder, atomic_write_json

Target = Literal["weights", "dir", "hf", "gguf"]
TARGETS: tuple[str, ...] = get_args(Target)


@dataclass(frozen=True)
class ExportResult:
    """The path of an export, its size in bytes (of all files), and notes for the user."""

    path: Path
    bytes: int
    notes: tuple[str, ...] = ()


def export(
    checkpoint: str | Path,
    to: str = "weights",
    out: str | Path | None = None,
    *,
    force: bool = False,
) -> ExportResult:
    """Export the checkpoint at a path (see `find_checkpoint` for names).

    `out` None puts it beside the checkpoint: RUN_weights.safetensors, or a folder named like the
    checkpoint, with -hf for that target. Raises UsageError for an unknown target and for a model
    that `transformers` does not have; CheckpointError for a bad checkpoint, an existing target
    without `force`, and errors of the disk.
    """
    if to not in TARGETS:
        raise UsageError(f"There is no export to '{to}'.", next_step=nearest(to, TARGETS))
    with TensorFile(Path(checkpoint)) as file:
        config = checked_config(file)
        path = Path(out) if out is not None else _beside(file, to)
        _refuse_existing(file.path, path, force)
        if to == "weights":
            return _weights(file, path)
        if to == "gguf":
            return _gguf(file, config, path)
        if to == "hf":
            return _folder(path, force, partial(write_hf, file, config))
        return _folder(path, force, partial(_dir, file))


def _beside(file: TensorFile, to: str) -> Path:
    stem = file.path.name if file.path.is_dir() else file.path.stem
    if to == "weights":
        return file.path.with_name(f"{file.header.run or stem}_weights{SUFFIX}")
    if to == "gguf":
        return file.path.with_name(f"{stem}.gguf")
    if to == "hf" or file.path.is_dir():
        return file.path.with_name(f"{stem}-{to}")
    return file.path.with_name(stem)


def _refuse_existing(source: Path, path: Path, force: bool) -> None:
    if path.exists() and path.samefile(source):
        raise UsageError(
            f"{path} is the checkpoint itself.", next_step="Name another place with --out."
        )
    occupied = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if occupied and force and path.is_dir() and not is_exported(path):
        raise UsageError(
            f"{path} is a folder that holo did not export; --force would delete what is in it.",
            next_step="Name another place with --out.",
        )
    if occupied and not force:
        raise CheckpointError(
            f"{path} exists already.",
            next_step="Name another place with --out, or replace it with --force.",
        )


def _refuse_folder(path: Path, to: str, suffix: str) -> None:
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder, and --to {to} writes a file.",
            next_step=f"Write --out {path / f'NAME{suffix}'}, or --to dir.",
        )


def _gguf(file: TensorFile, config: ModelConfig, path: Path) -> ExportResult:
    check_architecture(file.header.model, config)
    _refuse_folder(path, "gguf", ".gguf")
    try:
        notes = write_gguf(file, config, path)
    except OSError as error:
        raise _cannot(path, error) from error
    return ExportResult(path, path.stat().st_size, notes)


def _cannot(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"Cannot export to {path}: {error.strerror or error}.",
        next_step="Name a place with more room, or that you can write to, with --out.",
    )


def _weights(file: TensorFile, path: Path) -> ExportResult:
    _refuse_folder(path, "weights", SUFFIX)
    tensors = file.read_all(MODEL_PREFIX)
    return ExportResult(path, save(path, file.header.weights_only(), tensors))


def _folder(path: Path, force: bool, write: Callable[[Path], tuple[str, ...]]) -> ExportResult:
    """Let `write` fill a folder that then takes its name; it returns its notes."""
    try:
        with atomic_folder(path, force=force) as folder:
            notes = write(folder)
            size = sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
    except OSError as error:
        raise _cannot(path, error) from error
    return ExportResult(path, size, notes)


def _dir(file: TensorFile, folder: Path) -> tuple[str, ...]:
    tensors = {
        name.removeprefix(MODEL_PREFIX): file.read(name)
        for name in file.shapes
        if name.startswith(MODEL_PREFIX) and name not in file.header.shared
    }
    _, digests = write_tensors(folder / WEIGHTS_FILE, tensors, lambda _: {"format": "pt"})
    header = file.header.weights_only().model_dump(mode="json", exclude={"tokenizer", "state"})
    header["shared"] = {
        name: kept for name, kept in header["shared"].items() if name.startswith(MODEL_PREFIX)
    }
    header["digests"] = {MODEL_PREFIX + name: value for name, value in digests.items()}
    atomic_write_json(folder / CONFIG_FILE, header)
    file.tokenizer().save(folder)
    return ()
