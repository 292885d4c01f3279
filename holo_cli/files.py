"""Atomic writes: no reader, crash or full disk ever leaves half a file under a name.

Everything is written beside its final name, flushed to the disk and renamed, so a name always
holds one complete version: the old one or the new one. A temporary is locked while it is written;
the lock dies with its process, so a file left by a killed process differs from a write in progress.
No torch here: data, checkpoints and commands all use these helpers.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from filelock import BaseFileLock

if sys.platform == "win32":

    def try_lock(file: IO[Any]) -> bool:
        """Always True: Windows itself refuses to delete a file that is open."""
        return True

else:
    import fcntl

    def try_lock(file: IO[Any]) -> bool:
        """Lock an open file for this process; False when another holds it. Freed at close."""
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def file_lock(path: Path, on_acquired: Callable[[int], None] | None = None) -> BaseFileLock:
    """A lock between processes on a file of its own, which the system frees when its holder dies.

    `acquire` never waits: it raises `filelock.Timeout` while another process, or another lock
    object, holds it, and OSError on a disk without locks. The file stays: deleting it would let two
    processes each lock a file of their own under the same name. `on_acquired` gets its descriptor.
    """
    from filelock import FileLock

    return FileLock(
        path, timeout=0, fallback_to_soft=False, preserve_lock_file=True, on_acquired=on_acquired
    )


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut. Windows does this by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network mounts have no fsync
            raise
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    """An unused hidden name in the same folder, and so on the same disk."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _leftovers(path: Path) -> Iterator[Path]:
    yield from path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.tmp")


def remove_leftovers(path: Path) -> None:
    """Delete the temporaries of `path` whose writer was killed; those being written stay."""
    for temporary in _leftovers(path):
        # Gone already, still open (Windows), or on a disk without locks: leave it.
        with contextlib.suppress(OSError):
            with temporary.open("rb") as file:
                abandoned = try_lock(file)
            if abandoned:
                temporary.unlink()


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing bytes; `path` shows them only when all are on the disk.

    On any error, an interrupt included, the temporary is deleted and the old file stays.
    Raises OSError as the system gives it; callers say what it means for the user.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            with contextlib.suppress(OSError):  # a disk without locks: then leftovers stay
                try_lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Replace a file by these bytes, or leave it as it was."""
    with atomic_file(path) as file:
        file.write(content)


def atomic_write_text(path: Path, text: str) -> None:
    """Replace a file by this text in UTF-8 with plain line ends, or leave it as it was."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Replace a file by a JSON document. Raises ValueError for NaN and infinity: JSON has none."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    atomic_write_text(path, text + "\n")


@contextmanager
def atomic_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Fill a folder beside `path`; it takes that name only when complete and on the disk.

    Raises FileExistsError when something other than an empty folder has the name, unless `force`.
    Replacing a full folder takes two renames; a crash between them leaves the old one under its
    temporary name.
    """
    if _occupied(path) and not force:
        raise FileExistsError(errno.EEXIST, "it exists already", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
        fsync_folder(temporary)
        _take_name(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(path.parent)


def _occupied(path: Path) -> bool:
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def _take_name(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.rename(path)
        return
    replaced = _beside(path)
    path.rename(replaced)
    try:
        temporary.rename(path)
    except OSError:
        replaced.rename(path)
        raise
    if replaced.is_dir():
        shutil.rmtree(replaced)
    else:
        replaced.unlink()
