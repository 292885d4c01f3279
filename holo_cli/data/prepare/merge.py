"""`prepare --merge`: one set from the shards of `--shard`, equal to that of one process.

The shards take the place of the sources: streams over their files give the same chunks of
documents, so mixing, limits, deduplication, the split, the tokenizer and the token shards are those
of an ordinary preparation. An interrupted merge resumes like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from holo_cli.data.cleaning import CleaningSettings
from holo_cli.data.meta import META
from holo_cli.data.prepare import staging
from holo_cli.data.prepare.options import PrepareOptions, PrepareProgress
from holo_cli.data.prepare.portion_files import PartFiles, position_key
from holo_cli.data.prepare.portions import MANIFEST, SHARDS, Portion
from holo_cli.data.sources.base import Chunk, Position, Request, Source, Stream
from holo_cli.data.sources.local import MOST_CUT
from holo_cli.errors import DataError
from holo_cli.names import listed

_FOLDER = re.compile(r"(\d{1,6})-of-(\d{1,6})")
_SHOWN = 6  # missing shards named in a message

Manifest = dict[str, Any]


def read_manifests(out: Path) -> list[Manifest]:
    """The manifests of all shards of a set, in order. Raises DataError if one is missing, if they
    are of different numbers of shards, or were made with different settings."""
    found = [_FOLDER.fullmatch(name) for name in listed(out / SHARDS)]
    portions = [Portion(int(one[1]), int(one[2])) for one in found if one is not None]
    if not portions:
        if (out / META).exists():
            raise DataError(
                f"{out} is a complete set; there is nothing to merge.",
                next_step="Make shards first: holo prepare NAME --shard 1/8 --force",
            )
        raise DataError(
            f"There are no shards to merge in {out}.",
            next_step="Make them first: holo prepare NAME --shard 1/8 to --shard 8/8.",
        )
    worlds = sorted({portion.of for portion in portions})
    if len(worlds) > 1:
        raise DataError(
            f"{out / SHARDS} has shards of {worlds[0]} and shards of {worlds[1]}, which do not fit "
            "together.",
            next_step="Delete the folders of those that no longer count.",
        )
    (of,) = worlds
    manifests: list[Manifest] = []
    missing: list[int] = []
    for number in range(1, of + 1):
        folder = Portion(number, of).folder(out)
        manifest = staging.read_stored(folder / MANIFEST, "Make this shard again with --force.")
        if manifest is None:
            missing.append(number)
        else:
            manifests.append(manifest)
    if missing:
        numbers = ", ".join(map(str, missing[:_SHOWN])) + (", ..." if missing[_SHOWN:] else "")
        raise DataError(
            f"{out} has not all of its {of} shards: missing or not finished: {numbers}.",
            next_step=f"Run the command of the shards with --shard {missing[0]}/{of}.",
        )
    _check_equal(out, manifests)
    return manifests


def _check_equal(out: Path, manifests: Sequence[Manifest]) -> None:
    first = manifests[0]
    for manifest in manifests[1:]:
        changed = staging.first_difference(first["settings"], manifest["settings"])
        if changed is None:
            continue
        number, of = manifest["shard"], manifest["of"]
        if changed.name == staging.SOURCE:
            raise DataError(
                f"The source of shard {number}/{of} of {out} had changed since shard 1/{of} was "
                "made.",
                next_step="Make all shards again from the same files, with --force.",
            )
        raise DataError(
            f"Shard {number}/{of} of {out} has other settings than shard 1/{of}: {changed.name} is "
            f"{changed.now}, and {changed.before} there.",
            next_step="Make it again with the settings of the others, with --force.",
        )


def merge_options(
    manifests: Sequence[Manifest],
    out: Path,
    scratch: Path,
    *,
    offline: bool,
    workers: int,
    processes: int,
    report: Callable[[PrepareProgress], None],
    notice: Callable[[str], None],
    warn: Callable[[str], None],
) -> PrepareOptions:
    """The options with which the shards were made, and sources that read them.

    Raises DataError where the settings would be others now: a tokenizer's file has changed.
    """
    first = manifests[0]
    settings = first["settings"]
    requests = [
        Request(
            **{**stored, "languages": tuple(stored["languages"])},
            offline=offline,
            workers=workers,
            notice=notice,
            scratch=scratch,
        )
        for stored in first["requests"]
    ]
    options = PrepareOptions(
        name=first["name"],
        requests=requests,
        out=out,
        tokenizer=first["tokenizer"],
        vocab_size=first["vocab_size"],
        val_fraction=settings["val_fraction"],
        shard_bytes=settings["shard_bytes"],
        report=report,
        warn=warn,
        scratch=scratch,
        mix=first["mix"],
        cleaning=CleaningSettings.parse(first["filter"]),
        filter=first["filter"],
        processes=processes,
        sources=_sources(manifests, out),
    )
    if changed := staging.first_difference(settings, options.settings()):
        raise DataError(
            f"The shards of {out} were made with other settings: {changed.name} was "
            f"{changed.before} and is {changed.now} now.",
            next_step="Restore the file that has changed, or make the shards again with --force.",
        )
    return options


def _sources(manifests: Sequence[Manifest], out: Path) -> list[Source]:
    folders: dict[tuple[int, int, int], Path] = {}
    for manifest in manifests:
        folder = Portion(manifest["shard"], manifest["of"]).folder(out)
        for source, stream, part in manifest["parts"]:
            folders[source, stream, part] = folder
    found: list[Source] = []
    for number, stored in enumerate(manifests[0]["sources"]):
        description = stored["description"]
        streams = [
            _stream(one, number, at, folders, description.get("cut", {}))
            for at, one in enumerate(stored["streams"])
        ]
        found.append(
            Source(
                name=stored["name"],
                streams=tuple(streams),
                identity=stored["identity"],
                description=description,
                total_bytes=stored["total_bytes"],
                balanced=stored["balanced"],
                chat=stored.get("chat", False),
            )
        )
    return found


def _stream(
    stored: Mapping[str, Any],
    source: int,
    stream: int,
    folders: Mapping[tuple[int, int, int], Path],
    cut: dict[str, int],
) -> Stream:
    parts = [
        PartFiles(folders[source, stream, part], source, stream, part)
        for part in range(len(stored["part_bytes"]))
    ]

    def chunks(position: Position) -> Iterator[Chunk]:
        start, first = (0, 0) if position is None else _find(parts, position)
        for part in parts[start:]:
            yield from part.read(first, cut, MOST_CUT)
            first = 0

    return Stream(
        chunks,
        name=stored["name"],
        language=stored["language"],
        total_bytes=stored["total_bytes"],
        part_bytes=tuple(stored["part_bytes"]),
    )


def _find(parts: Sequence[PartFiles], position: Position) -> tuple[int, int]:
    """The part and the number of the chunk that follows a position."""
    wanted = position_key(position)
    for number, part in enumerate(parts):
        for at, chunk in enumerate(part.records()["chunks"], start=1):
            if position_key(chunk["after"]) == wanted:
                return number, at
    raise DataError(
        f"The interrupted preparation does not fit the shards: position {wanted} is in none.",
        next_step="Start over with --force.",
    )
