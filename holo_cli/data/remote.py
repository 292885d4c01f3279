"""Object stores, by the addresses of fsspec: s3://bucket/path, gs://, hf://, memory:// and so on.

Texts are read from there as a stream. A prepared set is mapped into memory and therefore has a
local copy: `local_copy` fetches it, `push` uploads one. Credentials and endpoints are those of the
store's own library: AWS_PROFILE or AWS_ENDPOINT_URL for s3, for example.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from holo_cli.data.meta import META, read_meta
from holo_cli.errors import DataError, UsageError
from holo_cli.files import file_lock
from holo_cli.paths import DATA

COPIES = DATA / ".remote"  # local copies of sets
WAIT_SECONDS = 24 * 3600.0  # for another process that fetches the same set
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_WEB = ("http", "https")
# how stores tell that a file has changed
_VERSIONS = (
    "ETag", "etag", "md5Hash", "sha256", "blob_id", "LastModified", "updated", "mtime", "created",
)  # fmt: skip
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs"}


def is_remote(text: object) -> bool:
    """Whether a text is an address of an object store; those of the web are not."""
    found = _ADDRESS.match(text) if isinstance(text, str) else None
    return found is not None and found[1].lower() not in _WEB


class Stat(NamedTuple):
    """The part of `os.stat_result` that readers of files need."""

    st_size: int


@dataclass(frozen=True)
class RemoteFile:
    """A file of an object store, with what the readers of local files use of a `Path`.

    `version` changes when the content does: its ETag, or the time of its last change.
    """

    files: Any  # the fsspec filesystem
    path: str
    address: str
    size: int
    version: str

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix

    @property
    def suffixes(self) -> list[str]:
        return PurePosixPath(self.path).suffixes

    def relative_to(self, root: PurePosixPath | Path) -> PurePosixPath:
        return PurePosixPath(self.path).relative_to(root.as_posix())

    def stat(self) -> Stat:
        return Stat(self.size)

    def open(self, mode: str = "rb") -> BinaryIO:
        """Raises OSError."""
        try:
            opened: BinaryIO = self.files.open(self.path, mode)
        except store_errors() as error:
            raise OSError(0, _reason(error)) from error
        return opened


SourcePath = Path | RemoteFile


def store_errors() -> tuple[type[Exception], ...]:
    """What the libraries of object stores raise. Those that were never imported raised nothing."""
    found: list[type[Exception]] = [OSError]
    for module, name in (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError")):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


@contextlib.contextmanager
def clear_store_errors(address: str) -> Iterator[None]:
    """Raise errors of an object store as DataError."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(
            f"There is nothing at {address}.", next_step="Check the address."
        ) from error
    except store_errors() as error:
        raise DataError(
            f"{address} could not be reached: {_reason(error)}.",
            next_step="Check the address, the network and the credentials of the store.",
        ) from error


def filesystem(address: str) -> tuple[Any, str]:
    """The filesystem of an address, and the path in it. Raises UsageError where a package is
    missing, or the kind of store is unknown."""
    import fsspec  # type: ignore[import-untyped]

    kind = address.partition("://")[0].lower()
    try:
        files, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = _PACKAGES.get(kind, "")
        raise UsageError(
            f"Reading {kind}:// needs a package that is not installed: {package or error}.",
            next_step=f"Install it: pip install {package or 'PACKAGE'}",
        ) from error
    except ValueError as error:
        raise UsageError(
            f"There is no kind of store '{kind}://'.",
            next_step="Use s3://, gs://, hf:// or a local path.",
        ) from error
    return files, str(path).rstrip("/")


def find_remote(address: str) -> tuple[PurePosixPath, list[RemoteFile]]:
    """The files at an address (a file, a folder with all below it, or a pattern), in order of their
    paths, and the folder that their names are relative to. Raises DataError."""
    files, path = filesystem(address)
    with clear_store_errors(address):
        if "*" in path or "?" in path or "[" in path:
            found = files.glob(path, detail=True)
        else:
            found = files.find(path, detail=True)
        infos = {str(name): info for name, info in found.items() if info["type"] == "file"}
    if not infos:
        raise DataError(f"There is nothing at {address}.", next_step="Check the address.")
    kind = address.partition("://")[0]
    remote = [
        RemoteFile(files, name, f"{kind}://{name.lstrip('/')}", int(info["size"]), _version(info))
        for name, info in sorted(infos.items())
    ]
    if list(infos) == [path]:
        return PurePosixPath(path).parent, remote
    root = PurePosixPath(path)
    while not all(PurePosixPath(one.path).is_relative_to(root) for one in remote):
        root = root.parent
    return root, remote


def _version(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in _VERSIONS if info.get(name)), "")


def _reason(error: Exception) -> str:
    text = (getattr(error, "strerror", None) or str(error)).strip().split("\n")[0]
    return text.rstrip(".") or type(error).__name__


# -- folders --------------------------------------------------------------------------------------


def push(folder: Path, address: str, last: str, names: Sequence[str] | None = None) -> None:
    """Upload the files of a folder (default: all without a leading dot), `last` after all others;
    until then the copy of it that is there is deleted. Raises DataError."""
    files, path = filesystem(address)
    chosen = names or sorted(
        one.name for one in folder.iterdir() if one.is_file() and not one.name.startswith(".")
    )
    with clear_store_errors(address):
        if files.exists(f"{path}/{last}"):
            files.rm_file(f"{path}/{last}")
        files.makedirs(path, exist_ok=True)
        for name in sorted(chosen, key=lambda name: (name == last, name)):
            files.put_file(str(folder / name), f"{path}/{name}")


def pull(address: str, folder: Path) -> None:
    """Fetch all files below an address into a folder; those of the same size are kept."""
    files, path = filesystem(address)
    with clear_store_errors(address):
        for name, info in files.find(path, detail=True).items():
            target = folder / PurePosixPath(str(name)).relative_to(path)
            if not (target.exists() and target.stat().st_size == info["size"]):
                _fetch(files, str(name), target)


def remove(address: str) -> None:
    """Delete what is below an address, if there is anything."""
    files, path = filesystem(address)
    with clear_store_errors(address):
        if files.exists(path):
            files.rm(path, recursive=True)


def local_copy(address: str) -> Path:
    """A prepared set of an object store in a local folder; fetched again only when it changed."""
    files, path = filesystem(address)
    name = PurePosixPath(path).name or "set"
    digest = hashlib.sha256(address.rstrip("/").encode("utf-8")).hexdigest()[:8]
    folder = (COPIES / f"{name}-{digest}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # the processes of one machine fetch it once
    with file_lock(folder / ".lock").acquire(timeout=WAIT_SECONDS), clear_store_errors(address):
        try:
            meta = files.cat_file(f"{path}/{META}")
        except FileNotFoundError as error:
            raise DataError(
                f"{address} is not a prepared set: it has no {META}.",
                next_step="Make it with: holo prepare NAME --out ADDRESS",
            ) from error
        here = folder / META
        if here.exists() and here.read_bytes() == meta:
            return folder
        here.unlink(missing_ok=True)
        for one in files.find(path):
            inner = PurePosixPath(str(one)).relative_to(path)
            if len(inner.parts) == 1 and inner.name != META:
                _fetch(files, str(one), folder / inner.name)
        _fetch(files, f"{path}/{META}", here)
    read_meta(folder)
    return folder


def _fetch(files: Any, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    files.get_file(path, str(part))
    part.replace(target)


def passed_over(files: Sequence[RemoteFile], kept: Sequence[RemoteFile]) -> Counter[str]:
    """Files that are not read, by suffix."""
    return Counter(one.suffix.lower() or "no suffix" for one in files if one not in kept)
