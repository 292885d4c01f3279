"""`--shard I/N`: one of N equal portions of a preparation, for as many processes or machines.

A portion has some files of the sources, chosen by their sizes. Its process does for each document
what needs no other document: reading, unpacking, normalizing, judging by the rules, fingerprints.
What is left depends on the order of the documents: `merge.py` does it, with the code of a
preparation in one process, so that the set is the same to the byte.

    NAME/.shards/2-of-8/shard.json     written last: without it the shard is not complete
                        NAME.arrow, NAME.json   of each file (see `portion_files.py`)
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holo_cli.data.cleaning.judging import Judge, JudgingProcesses
from holo_cli.data.document import Document, Judgement
from holo_cli.data.files import clear_disk_errors, locked
from holo_cli.data.prepare import staging
from holo_cli.data.prepare.opening import open_sources
from holo_cli.data.prepare.options import PrepareOptions
from holo_cli.data.prepare.pipeline import normalized
from holo_cli.data.prepare.portion_files import PartFiles
from holo_cli.data.sources.base import Request, Source
from holo_cli.data.sources.found import is_stdin
from holo_cli.errors import DataError, UsageError
from holo_cli.files import atomic_write_json

SHARDS = ".shards"  # folder in that of the set
MANIFEST, STARTED = "shard.json", "started.json"
MAX_SHARDS = 100_000
_NUMBERS = re.compile(r"(\d{1,6})/(\d{1,6})")
# of a request, as the manifest stores it; the rest concerns the process alone
REQUEST_FIELDS = (
    "name", "source", "text_field", "encoding", "languages", "scripts", "subset", "max_docs",
    "max_bytes", "seed", "by_language", "one_of_several", "chat",
)  # fmt: skip


@dataclass(frozen=True)
class Portion:
    """Shard `number` (from 1) of `of`."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Portion:
        """The value of --shard. Raises UsageError."""
        found = _NUMBERS.fullmatch(text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MAX_SHARDS:
            raise UsageError(
                f"--shard {text} is not a shard of several.",
                next_step="Use its number from 1 and how many there are: --shard 1/8 to --shard "
                "8/8.",
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def folder(self, out: Path) -> Path:
        return out / SHARDS / f"{self.number}-of-{self.of}"


Unit = tuple[int, int, int]  # numbers of source, stream and part


def units(sources: Sequence[Source], of: int) -> list[list[Unit]]:
    """The parts of each of `of` portions: each next largest file goes to the portion that has least
    so far. Streams over the same files keep them together."""
    files: dict[tuple[int, int], list[Unit]] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    for source, opened in enumerate(sources):
        for stream, one in enumerate(opened.streams):
            for part, size in enumerate(one.part_bytes):
                files.setdefault((source, part), []).append((source, stream, part))
                sizes[source, part] += size + 1  # so that files of unknown size are spread too
    found: list[list[Unit]] = [[] for _ in range(of)]
    load = [0] * of
    for file in sorted(files, key=lambda file: (-sizes[file], file)):
        least = load.index(min(load))
        found[least] += files[file]
        load[least] += sizes[file]
    return [sorted(portion) for portion in found]


def write_portion(options: PrepareOptions, portion: Portion, force: bool) -> dict[str, int]:
    """Read and judge the files of a portion. Returns its files, documents and bytes.

    What an interrupted process finished is kept, by file. Raises DataError where the folder has
    this portion with other settings, unless `force`.
    """
    if any(is_stdin(request.source or "") for request in options.requests):
        raise UsageError(
            "Standard input cannot be divided into shards.",
            next_step="Save the text to files, and name them with --source.",
        )
    open_sources(options, {})
    folder = portion.folder(options.out)
    with clear_disk_errors(folder), locked(folder):
        if force:
            _clear(folder)
        stored = read_started(folder)
        now = options.settings()
        if stored is not None and (changed := staging.first_difference(stored["settings"], now)):
            raise DataError(
                f"{folder} was made with other settings: {changed.name} was {changed.before} and "
                f"is {changed.now} now."
                if changed.name != staging.SOURCE
                else f"{folder} was made from a source that has changed since.",
                next_step="Use --force to start this shard over.",
            )
        if stored is None:
            atomic_write_json(folder / STARTED, {"settings": now})
        own = units(options.sources, portion.of)[portion.number - 1]
        totals = _write_parts(options, folder, own)
        atomic_write_json(folder / MANIFEST, _manifest(options, portion, own, totals))
    return totals


def read_started(folder: Path) -> dict[str, Any] | None:
    """The settings with which a portion was begun; None for a folder without any."""
    return staging.read_stored(folder / STARTED, "Start this shard over with --force.")


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != staging.LOCK:
            path.unlink()


def _write_parts(options: PrepareOptions, folder: Path, own: Sequence[Unit]) -> dict[str, int]:
    totals = {"files": len({(source, part) for source, _, part in own}), "documents": 0, "bytes": 0}
    cleaning = options.cleaning
    several = options.processes > 1
    judges = JudgingProcesses(cleaning, options.processes) if several else Judge(cleaning)
    try:
        for source, stream, part in own:
            files = PartFiles(folder, source, stream, part)
            if files.complete:
                for chunk in files.records()["chunks"]:
                    totals["documents"] += chunk["documents"]
                    totals["bytes"] += chunk["bytes"]
                continue
            opened = options.sources[source]
            languages = options.requests[source].languages

            def judge(
                documents: Sequence[Document], languages: tuple[str, ...] = languages
            ) -> list[Judgement | None]:
                if not cleaning.active:
                    return [None] * len(documents)
                # what is counted here is counted again when the portions are merged
                ready = [normalized(one, languages, Counter()) for one in documents]
                judged = iter(judges.judge([one for one in ready if one is not None]).each())
                return [None if one is None else next(judged) for one in ready]

            def on_chunk(documents: Sequence[Document]) -> None:
                totals["documents"] += len(documents)
                totals["bytes"] += sum(one.size for one in documents)
                options.report_progress("shard", totals["documents"], totals["bytes"])

            cut = opened.description.get("cut", {})
            cut.clear()  # streams over one file each record it: not all of them may be read to it
            files.write(opened.streams[stream].chunks_of(part), judge, cut, on_chunk)
    finally:
        judges.close()
    return totals


def _manifest(
    options: PrepareOptions, portion: Portion, own: Sequence[Unit], totals: dict[str, int]
) -> dict[str, Any]:
    return {
        "shard": portion.number,
        "of": portion.of,
        "settings": options.settings(),
        "name": options.name,
        "tokenizer": options.tokenizer,
        "vocab_size": options.vocab_size,
        "mix": options.mix,
        "filter": options.filter,
        "requests": [request_dict(request) for request in options.requests],
        "sources": [
            {
                "name": source.name,
                "identity": source.identity,
                "description": source.description | {"cut": {}}
                if "cut" in source.description
                else source.description,
                "total_bytes": source.total_bytes,
                "balanced": source.balanced,
                "chat": source.chat,
                "streams": [
                    {
                        "name": stream.name,
                        "language": stream.language,
                        "total_bytes": stream.total_bytes,
                        "part_bytes": list(stream.part_bytes),
                    }
                    for stream in source.streams
                ],
            }
            for source in options.sources
        ],
        "parts": [list(unit) for unit in own],
        **totals,
    }


def request_dict(request: Request) -> dict[str, Any]:
    """The fields of a request that decide about the set, as plain data."""
    found = {name: getattr(request, name) for name in REQUEST_FIELDS}
    return found | {"languages": list(request.languages), "scripts": dict(request.scripts)}


def remove(out: Path) -> None:
    """Delete all shards of a set."""
    shutil.rmtree(out / SHARDS, ignore_errors=True)
