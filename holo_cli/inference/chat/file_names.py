"""Files named in a conversation: whatever is typed becomes a path or a HoloError."""

from __future__ import annotations

from pathlib import Path

from holo_cli.errors import HoloError, UsageError
from holo_cli.names import existing

SUFFIX = ".json"


def to_write(typed: str | Path) -> Path:
    """The path to save to, with .json added if the name has no suffix. Raises HoloError for a name
    that cannot be a file's."""
    path = _expanded(typed)
    path = path if path.suffix else path.with_name(path.name + SUFFIX)
    _is_file_or_free(path)
    return path


def to_read(typed: str | Path) -> Path:
    """The path to load from: as typed, or with .json added if only that exists. Raises HoloError
    for a name that cannot be a file's."""
    path = _expanded(typed)
    if not path.suffix and not _is_file_or_free(path):
        path = existing(path.with_name(path.name + SUFFIX))
    _is_file_or_free(path)
    return path


def _expanded(typed: str | Path) -> Path:
    if "\0" in str(typed):
        raise UsageError(
            "A file name cannot contain a null character.", next_step="Choose another file name."
        )
    path = existing(typed)
    first = Path(path.parts[0]) if len(path.parts) > 1 else None
    if first is not None and str(first).startswith("~") and not first.is_dir():
        raise HoloError(f"There is no folder '{first}'.", next_step="Check the path.")
    if path.name in ("", ".."):
        raise UsageError(f"{path} is a folder.", next_step="Add a file name.")
    return path


def _is_file_or_free(path: Path) -> bool:
    """True for a file, False for an unused name; HoloError for a folder or a name that the system
    refuses."""
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder.", next_step="Add a file name.")
        return path.exists()
    except OSError as error:  # too long, or in a folder that may not be read
        raise HoloError(
            f"{path} cannot be used: {error.strerror or error}.",
            next_step="Choose another file name.",
        ) from error
