"""Lists the files of a hub dataset: on the hub at one revision, in its cache, or in a folder.

A repository is listed once, at the current commit of its branch; everything is read from that
commit, also after an interruption, so that two versions of a dataset are never mixed. Small
datasets are downloaded completely into the hub's cache (`HF_HOME`), and each file is compared with
the hash that the hub gives: the sha256 of a large file, the git blob id of a small one. Offline,
only the cache is used.
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
from holo_cli.data.sources.hub.errors import retry
from holo_cli.data.sources.hub.subsets import HubFiles
from holo_cli.errors import DataError
from holo_cli.wording import counted

_OF = re.compile(r"-of-(\d+)")


@dataclass(frozen=True)
class DataFile:
    """One file. `address` is an hf:// or https:// URL, or a local path."""

    path: str  # in the repository
    address: str
    split: str = ""
    size: int | None = None
    sha256: str = ""
    blob: str = ""  # git blob id, for files that are not in large-file storage


@dataclass(frozen=True)
class Listing:
    """The files of a part in reading order, and their commit."""

    revision: str
    files: tuple[DataFile, ...]


def list_hub(part: HubFiles, code: str, pinned: str = "") -> Listing:
    """The files on the hub at the current commit of the branch, or at `pinned`."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=hub_endpoint())

    def request() -> tuple[str, list[RepoFile]]:
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

    revision, entries = retry(request, what=part.repository)
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
    return Listing(revision, _matching(part, code, files, hub_endpoint()))


def list_web(part: HubFiles, code: str) -> Listing:
    """The files that a list on the web names (RedPajama-V2 is not on the hub)."""
    import requests

    address = part.listing.format(code=code)

    def request() -> str:
        answer = requests.get(address, timeout=10)
        answer.raise_for_status()
        return answer.text

    names = retry(request, what=address).split()
    if not names:
        raise DataError(f"The file list {address} is empty.", next_step="Try again later.")
    revision = hashlib.sha256("\n".join(names).encode()).hexdigest()
    files = (DataFile(f"{name}.json.gz", part.address.format(name=name)) for name in names)
    return Listing(revision, tuple(files))


def list_folder(part: HubFiles, code: str, folder: Path) -> Listing:
    """The files of a local copy of the repository: `folder`, or `folder`/REPOSITORY."""
    inside = folder / part.repository
    root = inside if inside.is_dir() else folder
    if not root.is_dir():
        raise DataError(f"There is no folder {folder}.", next_step="Check --source.")
    files = [
        DataFile(path.relative_to(root).as_posix(), str(path), size=path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    found = _matching(part, code, files, str(folder))
    state = [(f.path, f.size, Path(f.address).stat().st_mtime_ns) for f in found]
    return Listing(hashlib.sha256(repr(state).encode()).hexdigest(), found)


def list_cache(part: HubFiles, code: str, pinned: str = "") -> Listing:
    """The files in the hub's cache, downloaded earlier by any program."""
    folder = _cached(part, pinned)
    if folder is None:
        raise DataError(
            f"{part.repository} is not in the cache of the hub, and offline mode is on.",
            next_step="Run once without --offline, or use a local copy (--source FOLDER), or use "
            "the embedded text (holo prepare stories).",
        )
    listing = list_folder(part, code, folder)
    for pattern in _patterns(part, code).values():
        there = [f.path for f in listing.files if fnmatch.fnmatchcase(f.path, pattern)]
        of = _OF.search(there[0])
        if of is not None and len(there) < int(of[1]):
            raise DataError(
                f"Only {len(there)} of {counted(int(of[1]), 'file')} of {part.repository} are in "
                "the cache.",
                next_step="Run once without --offline to download the rest.",
            )
    return replace(listing, revision=folder.name)


def _cached(part: HubFiles, pinned: str) -> Path | None:
    """The folder of a repository in the hub's cache, at `pinned` or else the newest commit."""
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


def download(part: HubFiles, listing: Listing, workers: int) -> Listing:
    """Download the files into the hub's cache, `workers` at a time, and check their hashes."""
    with ThreadPoolExecutor(max(1, min(workers, 8))) as pool:
        paths = pool.map(lambda file: _download_file(part, listing.revision, file), listing.files)
        files = [
            replace(file, address=str(path))
            for file, path in zip(listing.files, paths, strict=True)
        ]
    return replace(listing, files=tuple(files))


def _download_file(part: HubFiles, revision: str, file: DataFile) -> Path:
    from huggingface_hub import hf_hub_download

    for again in (False, True):

        def request(again: bool = again) -> str:
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

        path = Path(retry(request, what=f"{part.repository}/{file.path}"))
        if _hash_matches(path, file):
            return path
    path.resolve().unlink()  # the content: the cache entry is a link to it
    path.unlink(missing_ok=True)
    raise DataError(
        f"{file.path} of {part.repository} was downloaded twice, and its content did not match the "
        "hash on the hub.",
        next_step="The network may alter it: try another network, or try again later.",
    )


def _hash_matches(path: Path, file: DataFile) -> bool:
    content = path.read_bytes() if not file.sha256 and file.blob else b""
    if file.sha256:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
    if file.blob:
        header = f"blob {len(content)}\0".encode()
        return hashlib.sha1(header + content, usedforsecurity=False).hexdigest() == file.blob
    return True


def _patterns(part: HubFiles, code: str) -> dict[str, str]:
    return {split: pattern.format(code=code) for split, pattern in part.files.items()}


def _folder(pattern: str) -> str:
    """The longest fixed folder of a pattern."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return fixed.rpartition("/")[0]


def _matching(
    part: HubFiles, code: str, files: Iterable[DataFile], place: str
) -> tuple[DataFile, ...]:
    """The files of each split in order; DataError if a split has none in `place`."""
    known: Sequence[DataFile] = sorted(files, key=lambda file: file.path)
    found: list[DataFile] = []
    for split, pattern in _patterns(part, code).items():
        matching = [file for file in known if fnmatch.fnmatchcase(file.path, pattern)]
        if not matching:
            raise DataError(
                f"{part.repository} has no files {pattern} in {place}.",
                next_step="Check --lang; a changed layout needs a newer version of holo.",
            )
        found += [replace(file, split=split) for file in matching]
    return tuple(found)
