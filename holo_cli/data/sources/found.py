"""The files that `--source` means: a file, a folder, a pattern, a pipe, or standard input.

A folder is read in the order of its paths. What is passed over in it is counted, by suffix or by
reason. Linked folders are read, but no folder and no file twice, so that a loop of links ends. A
pipe is copied to a file first, because text is read twice: for the tokenizer and for the shards.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import shutil
import stat
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from holo_cli.data.meta import META
from holo_cli.data.remote import SourcePath, find_remote, is_remote, passed_over
from holo_cli.data.tokenizers.base import FILE
from holo_cli.errors import DataError, nearest
from holo_cli.names import composed, existing, listed, quoted, within

TEXT = {".txt", ".text", ".md", ".markdown"}
JSON = {".jsonl", ".ndjson", ".json"}
TABLE = {".csv", ".tsv"}
PARQUET = {".parquet"}
COMPRESSED = {".gz", ".zst"}
KINDS = "txt, md, json, jsonl, csv, tsv or parquet, each also .gz or .zst"
STDIN = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SHOWN = 6  # kinds of passed over files named in a message


@dataclass(frozen=True)
class Found:
    """Files in order. `root`: the folder that their names are relative to. `copied`: from a pipe.

    `passed_over`: files that are not read, by suffix or reason.
    """

    root: Path | PurePosixPath
    paths: Sequence[SourcePath]
    copied: bool = False
    passed_over: Counter[str] = field(default_factory=Counter)


def file_kind(path: PurePath) -> str | None:
    """ "text", "json", "table" or "parquet" by the file's name; None for other names."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    table = {"text": TEXT, "json": JSON, "table": TABLE, "parquet": PARQUET}
    return next((kind for kind, known in table.items() if last in known), None)


def is_stdin(source: str) -> bool:
    """Whether a `--source` is standard input."""
    return source in STDIN


def find_files(source: str, scratch: Path | None) -> Found:
    """The files of a `--source`. DataError if there are none; copies of pipes go to `scratch`."""
    if is_stdin(source):
        return _copied(sys.stdin.buffer, scratch, "stdin")
    if is_remote(source):
        return _in_store(source)
    path = existing(source)
    if path.is_file():
        return Found(path.parent, [path])
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return _special(path, source, scratch)
    if _ADDRESS.match(source):
        raise _address(source)
    if glob.has_magic(source):
        return _by_pattern(path, source)
    siblings = listed(path.parent)
    hint = nearest(path.name, siblings) if siblings else ""
    raise DataError(
        f"There is no file or folder {source}.",
        next_step=hint if hint.startswith("Did") else "Check --source.",
    )


# -- folders and patterns -------------------------------------------------------------------------


def _in_folder(folder: Path) -> Found:
    passed: Counter[str] = Counter()
    files: list[Path] = []
    links: list[Path] = []  # to files: after the files themselves, which are not read twice
    for parent in _folders(folder, passed):
        for name in listed(parent):
            path = parent / name
            if path.is_dir():
                continue
            if name.startswith("."):
                passed["hidden files"] += 1
            elif not path.is_file():
                passed["pipes, devices and broken links"] += 1
            elif file_kind(path) is None:
                passed[_suffix(path)] += 1
            else:
                (links if path.is_symlink() else files).append(path)
    kept = sorted(_once([*files, *links], passed), key=lambda p: p.relative_to(folder).as_posix())
    if not kept:
        held = ", ".join(f"{label}: {count}" for label, count in passed.most_common(_SHOWN))
        if held:
            raise DataError(
                f"The folder {folder} has no text files.",
                next_step=f"It has {held}. Files can be {KINDS}.",
            )
        raise DataError(
            f"The folder {folder} has no text files.", next_step=f"Files can be {KINDS}."
        )
    return Found(folder, kept, passed_over=passed)


def _folders(root: Path, passed: Counter[str], hidden: bool = False) -> Iterator[Path]:
    """A folder and those below it, each once: linked folders after all that are no links."""
    seen = {os.path.realpath(root)}
    waiting, linked = deque([root]), deque[Path]()
    while waiting or linked:
        folder = (waiting or linked).popleft()
        if folder.is_symlink() and folder is not root:
            if os.path.realpath(folder) in seen:
                passed["linked folders that are read already"] += 1
                continue
            seen.add(os.path.realpath(folder))
        if not os.access(folder, os.R_OK | os.X_OK):
            passed["folders that may not be read"] += 1
            continue
        yield folder
        for name in listed(folder):
            path = folder / name
            if not path.is_dir():
                continue
            if name.startswith(".") and not hidden:
                passed["hidden folders"] += 1
            elif path.is_symlink():
                linked.append(path)
            elif (path / META).is_file() and (path / FILE).is_file():
                passed["prepared sets"] += 1
            elif (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                waiting.append(path)


def _by_pattern(path: Path, source: str) -> Found:
    passed: Counter[str] = Counter()
    start = Path(path.anchor)
    matches = dict.fromkeys(_matches(start, path.relative_to(path.anchor).parts))
    files = []
    for match in sorted(matches):
        if match.is_file():
            files.append(match)
        else:
            passed["folders" if match.is_dir() else "pipes, devices and broken links"] += 1
    if files:
        files = _once(sorted(files, key=lambda file: (file.is_symlink(), file)), passed)
        return Found(_common(files), sorted(files), passed_over=passed)
    raise DataError(
        f"No file matches {source}.",
        next_step="Check the pattern, and put it in quotes.",
    )


def _matches(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """The paths that a pattern's parts mean, whatever form their letters have on the disk."""
    if not parts:
        yield folder
        return
    head, rest = parts[0], parts[1:]
    if head == "**":
        for below in _folders(folder, Counter(), hidden=True):
            yield from _matches(below, rest)
    elif not glob.has_magic(head):
        here = within(folder, head)
        if here is not None:
            yield from _matches(here, rest)
    else:
        for name in listed(folder):
            if fnmatch.fnmatch(composed(name), composed(head)):
                yield from _matches(folder / name, rest)


def _once(files: Sequence[Path], passed: Counter[str]) -> list[Path]:
    """The files without links to files that come before them."""
    kept: dict[str, Path] = {}
    for path in files:
        if kept.setdefault(os.path.realpath(path), path) is not path:
            passed["links to files that are read already"] += 1
    return list(kept.values())


def _common(paths: Sequence[Path]) -> Path:
    folder = paths[0].parent
    while not all(path.is_relative_to(folder) for path in paths):
        folder = folder.parent
    return folder


def _suffix(path: Path) -> str:
    """How a file of another kind is counted: by its last suffix, with the one before .gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if not suffixes:
        return "no suffix"
    return "".join(suffixes[-2:]) if suffixes[-1] in COMPRESSED else suffixes[-1]


def _in_store(source: str) -> Found:
    root, files = find_remote(source)
    if len(files) == 1:
        return Found(root, files)
    kept = [
        one
        for one in files
        if file_kind(PurePosixPath(one.path)) is not None
        and not any(part.startswith(".") for part in one.relative_to(root).parts)
    ]
    if not kept:
        raise DataError(f"There are no text files at {source}.", next_step=f"Files can be {KINDS}.")
    return Found(root, kept, passed_over=passed_over(files, kept))


# -- pipes and addresses --------------------------------------------------------------------------


def _special(path: Path, source: str, scratch: Path | None) -> Found:
    """A pipe is copied; a device has no end, and a socket nothing to read."""
    if stat.S_ISFIFO(path.stat().st_mode):
        with path.open("rb") as pipe:
            return _copied(pipe, scratch, "pipe")
    raise DataError(
        f"{source} is a device or a socket, not a file.",
        next_step="Give a file, a folder, or - for standard input.",
    )


def _copied(stream: BinaryIO, scratch: Path | None, name: str) -> Found:
    folder = scratch if scratch is not None else Path(tempfile.mkdtemp(prefix="holo-"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with path.open("wb") as file:
        shutil.copyfileobj(stream, file)
    return Found(folder, [path], copied=True)


def _address(source: str) -> DataError:
    name = PurePath(source.split("?")[0].split("#")[0].split("://")[1]).name or "text.html"
    fetch = f"curl -L -o {quoted(name)} {quoted(source)}"
    return DataError(
        f"{source} is an address; holo reads files, so fetch it first.",
        next_step=f"Type: {fetch}, then: holo prepare NAME --source {quoted(name)}",
    )
