"""Where the files of a hub dataset are: on the hub at one revision, in its cache, or in a folder.

A repository's files are listed once, at the commit that its branch has at that moment; everything
is read from that commit, today and after an interruption, so a dataset that changes meanwhile does
not mix two versions. Small datasets are fetched whole into the hub's own cache (`HF_HOME`), and a
fetched file is compared with the hash that the hub gives for it: the sha256 of a large file, the
git blob id of a small one. Without a network the cache alone is looked at.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from holo_cli.data.network import hub_endpoint
from holo_cli.data.sources.hub.errors import permanent_error, retry
from holo_cli.data.sources.hub.subsets import Part
from holo_cli.errors import DataError

_OF = re.compile(r"-of-(\d+)")


@dataclass(frozen=True)
class DataFile:
    """One file: `address` is what is opened (hf://, https://, or a path)."""

    path: str  # in the repository
    address: str
    split: str = ""
    size: int | None = None
    sha256: str = ""
    blob: str = ""  # git's id of the content, for files that are not in large-file storage


@dataclass(frozen=True)
class Listing:
    """The files of a part, in the order in which they are read, and the commit they are of."""

    revision: str
    files: tuple[DataFile, ...]


def on_the_hub(part: Part, code: str, pinned: str = "") -> Listing:
    """The files at the branch's present commit, or at the commit `pinned`."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=hub_endpoint())

    def ask() -> tuple[str, list[RepoFile]]:
        revision = str(
            api.dataset_info(part.repository, revision=pinned or part.revision, timeout=10).sha
        )
        found: list[RepoFile] = []
        folders = {_folder(pattern) for pattern in _patterns(part, code).values()}
        for folder in sorted(folders):
            entries = api.list_repo_tree(
                part.repository,
                path_in_repo=folder or None,
                recursive=True,
                repo_type="dataset",
                revision=revision,
            )
            found += [entry for entry in entries if isinstance(entry, RepoFile)]
        return revision, found

    try:
        revision, entries = retry(ask, what=part.repository)
    except FileNotFoundError as error:  # a folder that is not there
        raise permanent_error(part.repository, code, error) from error
    files = [
        DataFile(
            path=entry.path,
            address=f"hf://datasets/{part.repository}@{revision}/{entry.path}",
            size=entry.size,
            sha256=entry.lfs.sha256 if entry.lfs else "",
            blob="" if entry.lfs else entry.blob_id,
        )
        for entry in entries
    ]
    return Listing(revision, _chosen(part, code, files, "on the hub"))


def on_the_web(part: Part, code: str) -> Listing:
    """The files that a list on the web names (RedPajama-V2 lies outside the hub)."""
    import requests

    address = part.listing.format(code=code)

    def ask() -> str:
        answer = requests.get(address, timeout=10)
        answer.raise_for_status()
        return answer.text

    names = retry(ask, what=address).split()
    if not names:
        raise DataError(f"{address} names no files.", next_step="Try again later.")
    revision = hashlib.sha256("\n".join(names).encode()).hexdigest()
    files = (DataFile(f"{name}.json.gz", part.address.format(name=name)) for name in names)
    return Listing(revision, tuple(files))


def in_a_folder(part: Part, code: str, folder: Path) -> Listing:
    """A copy of the repository in a folder, or in a folder of that name inside it."""
    inside = folder / part.repository
    root = inside if inside.is_dir() else folder
    if not root.is_dir():
        raise DataError(f"There is no folder {folder}.", next_step="Check --source.")
    files = [
        DataFile(path.relative_to(root).as_posix(), str(path), size=path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    chosen = _chosen(part, code, files, f"in {folder}")
    state = [(f.path, f.size, Path(f.address).stat().st_mtime_ns) for f in chosen]
    return Listing(hashlib.sha256(repr(state).encode()).hexdigest(), chosen)


def in_the_cache(part: Part, code: str, pinned: str = "") -> Listing:
    """What was fetched before, by whatever program, into the hub's cache."""
    folder = _cached(part, pinned)
    if folder is None:
        raise DataError(
            f"{part.repository} is not in the cache of the hub, and no network is to be used.",
            next_step="Leave --offline out once, or use a copy of its files (--source FOLDER), "
            "or holo prepare stories.",
        )
    listing = in_a_folder(part, code, folder)
    for pattern in _patterns(part, code).values():
        there = [f.path for f in listing.files if fnmatch.fnmatchcase(f.path, pattern)]
        of = _OF.search(there[0])
        if of is not None and len(there) < int(of[1]):
            raise DataError(
                f"Only {len(there)} of {int(of[1])} files of {part.repository} are in the cache.",
                next_step="Leave --offline out once, so that the others are fetched.",
            )
    return replace(listing, revision=folder.name)


def _cached(part: Part, pinned: str) -> Path | None:
    """The folder of a repository in the hub's cache: the commit asked for, else the newest."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return None
    revisions = [
        revision
        for repository in found.repos
        if (repository.repo_type, repository.repo_id) == ("dataset", part.repository)
        for revision in repository.revisions
        if not pinned or revision.commit_hash == pinned
    ]
    newest = max(revisions, key=lambda r: (part.revision in r.refs, r.last_modified), default=None)
    return newest.snapshot_path if newest is not None else None


def fetched(part: Part, listing: Listing, workers: int) -> Listing:
    """The same files, now in the hub's cache and checked; `workers` of them at a time."""
    with ThreadPoolExecutor(max(1, min(workers, 8))) as pool:
        paths = pool.map(lambda file: _fetch(part, listing.revision, file), listing.files)
        files = [
            replace(file, address=str(path))
            for file, path in zip(listing.files, paths, strict=True)
        ]
    return replace(listing, files=tuple(files))


def _fetch(part: Part, revision: str, file: DataFile) -> Path:
    from huggingface_hub import hf_hub_download

    for again in (False, True):

        def download(again: bool = again) -> str:
            return str(
                hf_hub_download(
                    part.repository,
                    file.path,
                    repo_type="dataset",
                    revision=revision,
                    endpoint=hub_endpoint(),
                    force_download=again,
                )
            )

        path = Path(retry(download, what=f"{part.repository}/{file.path}"))
        if _as_promised(path, file):
            return path
    path.resolve().unlink()  # the content, which the name in the cache only points to
    path.unlink(missing_ok=True)
    raise DataError(
        f"{file.path} of {part.repository} was fetched twice, and both times its content did "
        "not fit the hash that the hub gives for it.",
        next_step="Something on the way changes it: try another network, or later.",
    )


def _as_promised(path: Path, file: DataFile) -> bool:
    content = path.read_bytes() if not file.sha256 and file.blob else b""
    if file.sha256:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
    if file.blob:
        header = f"blob {len(content)}\0".encode()
        return hashlib.sha1(header + content, usedforsecurity=False).hexdigest() == file.blob
    return True


def _patterns(part: Part, code: str) -> dict[str, str]:
    return {split: pattern.format(code=code) for split, pattern in part.files.items()}


def _folder(pattern: str) -> str:
    """The folder that holds everything a pattern can match."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return fixed.rpartition("/")[0]


def _chosen(part: Part, code: str, files: Iterable[DataFile], where: str) -> tuple[DataFile, ...]:
    """The files of each split in order; refused where a split has none."""
    known: Sequence[DataFile] = sorted(files, key=lambda file: file.path)
    chosen: list[DataFile] = []
    for split, pattern in _patterns(part, code).items():
        matching = [file for file in known if fnmatch.fnmatchcase(file.path, pattern)]
        if not matching:
            raise DataError(
                f"There are no files {pattern} of {part.repository} {where}.",
                next_step="Check --lang; a dataset that has changed its layout needs a newer holo.",
            )
        chosen += [replace(file, split=split) for file in matching]
    return tuple(chosen)
