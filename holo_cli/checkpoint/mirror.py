"""Copies of a run's checkpoints in an object store (`training.mirror`), and reading them back.

An object appears whole or not at all, a checkpoint may be several. So each copy goes under a name
of its own, `RUN_last/VERSION/...`, and then one small object, `RUN_last.json`, is made to point to
it; the copy before is deleted last. Whoever reads follows the pointer. Training does not wait:
links to the files as they are at that moment are uploaded by a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holo_cli.checkpoint.header import Count, complaint
from holo_cli.checkpoint.parts import files_of
from holo_cli.data.remote import clear_store_errors, filesystem, is_remote
from holo_cli.errors import CheckpointError, HoloError, UsageError
from holo_cli.parsing import ParseError, parse_object

_NAME = re.compile(r"(?!\.)[^/\\:\x00-\x1f]+(\.parts/[0-9a-f-]+\.safetensors)?")
_VERSION = "^[0-9a-f]{16}$"


class MirroredFile(BaseModel):
    """A file of a checkpoint, by its path beside the checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(max_length=500)
    bytes: Count


class Pointer(BaseModel):
    """Which copy of a checkpoint is the present one; its first file is the checkpoint itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str = Field(pattern=_VERSION)
    files: list[MirroredFile] = Field(min_length=1, max_length=100_000)


class Mirror:
    """Uploads of one run's checkpoints to a folder of a store, one after another."""

    def __init__(self, address: str, root: Path, run: str, warn: Callable[[str], None]) -> None:
        """`root` has the run's checkpoints; its lock must be held. `warn` is called, in the thread
        that uses this, for a copy that failed. Raises UsageError for an address that cannot be
        used."""
        self.address, self.warn = address.rstrip("/"), warn
        self.staging = root / f".{run}.mirror"
        if not is_remote(self.address):
            raise UsageError(
                f"training.mirror is '{address}', which is no address of an object store.",
                next_step="Use an address such as s3://bucket/runs.",
            )
        filesystem(self.address)
        shutil.rmtree(self.staging, ignore_errors=True)  # of a process that was killed
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mirror")
        self._waiting: dict[str, Path] = {}  # the newest of each checkpoint that waits
        self._uploads: list[Future[None]] = []

    def add(self, path: Path) -> None:
        """Upload the checkpoint as it is now, in place of one of that name that still waits."""
        staged = _staged(path, self.staging / secrets.token_hex(4))
        if (older := self._waiting.pop(path.name, None)) is not None:
            shutil.rmtree(older, ignore_errors=True)
        self._waiting[path.name] = staged
        self._uploads.append(self._thread.submit(self._upload, path.name))
        self._report(self._uploads, done=True)

    def finish(self) -> None:
        """Wait until everything is uploaded."""
        self._report(self._uploads, done=False)
        self._thread.shutdown()
        shutil.rmtree(self.staging, ignore_errors=True)

    def _report(self, uploads: list[Future[None]], *, done: bool) -> None:
        for upload in [one for one in uploads if not done or one.done()]:
            uploads.remove(upload)
            try:
                upload.result()
            except HoloError as error:
                self.warn(f"A checkpoint was not copied: {error.message} {error.next_step}")

    def _upload(self, name: str) -> None:
        staged = self._waiting.pop(name, None)
        if staged is None:  # a newer one took its place, and has an upload of its own
            return
        try:
            upload(staged / name, self.address)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _staged(path: Path, folder: Path) -> Path:
    """A folder with links to a checkpoint's files, or copies of them. Raises CheckpointError."""
    try:
        for file in files_of(path):
            target = folder / file.relative_to(path.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(file)
            except OSError:
                shutil.copyfile(file, target)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError(
            f"Cannot make a copy of {path} to upload: {error.strerror or error}.",
            next_step="Make room on that disk, or train without training.mirror.",
        ) from error
    return folder


def upload(path: Path, address: str) -> None:
    """Make the checkpoint at `path` the one of its name in a folder of a store. Raises DataError;
    what was there before is then still the present one."""
    files, base = filesystem(address)
    inside = [file.relative_to(path.parent).as_posix() for file in files_of(path)]
    listed = [MirroredFile(name=name, bytes=(path.parent / name).stat().st_size) for name in inside]
    pointer = Pointer(version=secrets.token_hex(8), files=listed)
    folder = f"{base}/{path.stem}"
    with clear_store_errors(f"{address}/{path.stem}"):
        for name in inside:
            target = f"{folder}/{pointer.version}/{name}"
            files.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
            files.put_file(str(path.parent / name), target)
        files.pipe_file(f"{folder}.json", pointer.model_dump_json().encode("utf-8"))
        for one in files.ls(folder, detail=False):  # also what an interrupted upload left
            if PurePosixPath(str(one)).name != pointer.version:
                with contextlib.suppress(FileNotFoundError):
                    files.rm(str(one), recursive=True)


def fetch(address: str, root: Path, kinds: Iterable[str]) -> Path:
    """A checkpoint of a store in a local folder below `root`; fetched again only when it changed.

    `address` is that of a run (ADDRESS/RUN; the first of `kinds` that is there) or of one
    checkpoint (ADDRESS/RUN_last). Raises CheckpointError, and DataError for what a store answers.
    """
    address = address.rstrip("/").removesuffix(".safetensors").removesuffix(".json")
    files, base = filesystem(address)
    with clear_store_errors(address):
        ends = [end for end in ("", *(f"_{kind}" for kind in kinds if kind))
                if files.exists(f"{base}{end}.json")]  # fmt: skip
    if not ends:
        raise CheckpointError(
            f"There is no checkpoint at {address}.",
            next_step="Give ADDRESS/RUN, where ADDRESS is what training.mirror was.",
        )
    place = f"{base}{ends[0]}"
    with clear_store_errors(address):
        pointer = _pointer(files.cat_file(f"{place}.json"), f"{address}{ends[0]}.json")
    digest = hashlib.sha256(f"{address}{ends[0]}".encode()).hexdigest()[:8]
    folder = root / ".remote" / f"{digest}-{pointer.version}"
    first = folder / pointer.files[0].name
    for file in pointer.files[1:] + pointer.files[:1]:  # the checkpoint itself last
        target = folder / file.name
        if target.exists() and target.stat().st_size == file.bytes:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        with clear_store_errors(address):
            files.get_file(f"{place}/{pointer.version}/{file.name}", str(part))
        if part.stat().st_size != file.bytes:
            raise CheckpointError(
                f"{address}{ends[0]} has {file.name} with {part.stat().st_size} bytes in place of "
                f"{file.bytes}.",
                next_step="Try again; or use another checkpoint of the run.",
            )
        part.replace(target)
    for other in folder.parent.glob(f"{digest}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return first


def _pointer(content: bytes, shown: str) -> Pointer:
    try:
        pointer = Pointer.model_validate(parse_object(content))
    except ParseError as error:
        reason = str(error)
    except ValidationError as error:
        reason = complaint(error)
    else:
        wrong = [file.name for file in pointer.files if not _NAME.fullmatch(file.name)]
        if not wrong:
            return pointer
        reason = f"the name {json.dumps(wrong[0])} cannot be used"
    raise CheckpointError(
        f"{shown} is no pointer to a checkpoint: {reason}.",
        next_step="Use another checkpoint of the run.",
    )
