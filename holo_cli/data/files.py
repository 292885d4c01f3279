"""Helpers for writing a prepared set: fsync, hashing, locking, and readable disk errors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import Timeout

from holo_cli.errors import DataError
from holo_cli.files import file_lock


def sync(file: BinaryIO) -> None:
    """Flush and fsync."""
    file.flush()
    os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def clear_disk_errors(folder: Path) -> Iterator[None]:
    """Raise OSError from writing under `folder` as DataError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"The disk is full: {folder} could not be written.",
                next_step="Free some space and run the same command again: it resumes from here.",
            ) from error
        raise DataError(
            f"{error.filename or folder} could not be written: {error.strerror or error}.",
            next_step="Check the permissions, or choose another folder with --out.",
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system releases it when this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = file_lock(folder / ".lock")
    try:
        lock.acquire()
    except Timeout:
        raise DataError(
            f"Another process is preparing {folder}.",
            next_step="Wait for it, or choose another folder with --out.",
        ) from None
    try:
        yield
    finally:
        lock.release()
