"""`--out` with an address of an object store: the set is made in data/NAME and copied there."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from holo_cli.data import remote
from holo_cli.data.meta import META
from holo_cli.data.prepare.portions import MANIFEST, SHARDS, Portion
from holo_cli.names import existing
from holo_cli.paths import DATA


def local_folder(out: str | Path | None, name: str) -> Path:
    """The folder in which a set is made."""
    if out is None or remote.is_remote(out):
        return existing(DATA / name)
    return existing(out)


def name_of_address(address: str) -> str:
    """The last part of an address."""
    return PurePosixPath(address.rstrip("/")).name


def push_set(folder: Path, out: str | Path | None, files: list[str]) -> None:
    """Copy a complete set to `out`, if that is an address: the named files, then meta.json."""
    if isinstance(out, str) and remote.is_remote(out):
        remote.push(folder, out.rstrip("/"), META, [*files, META])
        remote.remove(f"{out.rstrip('/')}/{SHARDS}")


def push_portion(folder: Path, out: str | Path | None, portion: Portion) -> None:
    """Copy a finished shard to `out`, if that is an address."""
    if isinstance(out, str) and remote.is_remote(out):
        own = portion.folder(folder)
        remote.push(own, f"{out.rstrip('/')}/{SHARDS}/{own.name}", MANIFEST)


def pull_portions(folder: Path, out: str | Path | None) -> None:
    """Fetch all shards that are at `out`, if that is an address."""
    if isinstance(out, str) and remote.is_remote(out):
        remote.pull(f"{out.rstrip('/')}/{SHARDS}", folder / SHARDS)
