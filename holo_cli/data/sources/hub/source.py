"""Datasets of the Hugging Face hub: a row of `hub_parts` opened as a source.

The files come from the hub (probed first: without an answer there is one sentence within
seconds), from its cache (`--offline`, `HF_HUB_OFFLINE`, `HF_DATASETS_OFFLINE`), or from a copy in
a folder (`--source`). Each part and language is a stream; several streams of one dataset take
turns, so that any beginning of it holds something of each.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from holo_cli.data.document import Document
from holo_cli.data.network import hub_endpoint, hub_offline, reachable
from holo_cli.data.sources.articles import articles
from holo_cli.data.sources.base import Chunk, Position, Request, Source, Stream, counted
from holo_cli.data.sources.hub import files as hub_files
from holo_cli.data.sources.hub.files import DataFile, Listing
from holo_cli.data.sources.hub.rows import row_chunks
from holo_cli.data.sources.hub.subsets import BALANCED, DEFAULT_LANGUAGES, PARTS, Part
from holo_cli.data.sources.prefetch import prefetch
from holo_cli.errors import DataError, UsageError, nearest

_TEXT_PER_BYTE = {".parquet": 1.7, ".gz": 2.6, ".csv": 1.0}  # of files, roughly, for progress


def open_hub(request: Request) -> Source:
    """The dataset `request.name` of the hub, or a copy of it in `request.source`."""
    chosen = _choose(request)
    several = len({part.repository for part, _ in chosen}) > 1
    revisions: dict[str, str] = {}
    streams: list[Stream] = []
    get = _way(request, [part for part, _ in chosen])
    for part, language in chosen:
        listing = get(part, _code(part, language, request), revisions.get(part.repository, ""))
        key = f"{part.repository} {language}".strip() if part.listing else part.repository
        revisions[key] = listing.revision
        name = part.repository if several else request.name
        streams.append(_stream(part, language, listing, name, request))
    return Source(
        name=request.name,
        streams=tuple(streams),
        identity={"revisions": revisions, "languages": [language for _, language in chosen]},
        description={
            "name": request.name,
            "revisions": revisions,
            "licences": {p.repository: p.licence for p, _ in chosen if p.licence},
            **({"source": request.source} if request.source else {}),
        },
        total_bytes=_total(streams, request),
        balanced=request.name in BALANCED,
    )


# -- which files ----------------------------------------------------------------------------------


def _choose(request: Request) -> list[tuple[Part, str]]:
    """The parts to read, each with the language it is read for ("" where it has several)."""
    parts = tuple(_of_subset(part, request) for part in PARTS[request.name])
    if not any(part.by_language for part in parts):
        wanted = set(request.languages)
        there = {language for part in parts for language in part.texts.values()}
        if wanted and not wanted & there:
            raise UsageError(
                f"{request.name} has no text in '{request.languages[0]}'.",
                next_step=f"--lang takes {', '.join(sorted(there))}, or leave it out.",
            )
        kept = [p for p in parts if not wanted or wanted & set(p.texts.values())]
        return [(part, _only(part)) for part in kept]
    languages = request.languages or DEFAULT_LANGUAGES.get(request.name, ())
    if not languages:
        raise UsageError(
            f"{request.name} comes by language, and none was asked for.",
            next_step=f"holo prepare {request.name} --lang ko, or --lang ko,en.",
        )
    return [(_part_for(parts, language, request), language) for language in languages]


def _of_subset(part: Part, request: Request) -> Part:
    if request.subset is None:
        return part
    if request.subset not in part.subsets:
        raise UsageError(
            f"{request.name} has no subset '{request.subset}'.",
            next_step=nearest(request.subset, part.subsets) if part.subsets else "Leave it out.",
        )
    return replace(part, files={"": part.subsets[request.subset]})


def _part_for(parts: tuple[Part, ...], language: str, request: Request) -> Part:
    for part in parts:
        named = part.scripts and language in request.scripts
        if part.codes is None or language in part.codes or named:
            return part
    known = sorted({code for part in parts for code in part.codes or ()})
    raise UsageError(
        f"{request.name} is not known here to have '{language}'.",
        next_step=nearest(language, known) if len(known) < 9 else f"Known: {' '.join(known)}.",
    )


def _code(part: Part, language: str, request: Request) -> str:
    """What a language is called in the paths of a part."""
    if part.codes is not None and language in part.codes:
        return part.codes[language]
    return request.scripts.get(language, language) if part.scripts else language


def _only(part: Part) -> str:
    languages = set(part.texts.values())
    return languages.pop() if len(languages) == 1 else ""


# -- from where -----------------------------------------------------------------------------------


def _way(request: Request, parts: list[Part]) -> Any:
    """The function that finds a part's files: (part, code, revision so far) -> Listing."""
    if request.source is not None:
        folder = Path(request.source).expanduser()
        return lambda part, code, revision: hub_files.in_a_folder(part, code, folder)
    if request.offline or hub_offline():
        # read by the libraries when they are imported, which is not before here
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
        return lambda part, code, revision: hub_files.in_the_cache(
            part, code, revision or request.pinned.get(part.repository, "")
        )
    for host in sorted({_host(part) for part in parts}):
        if not reachable(host):
            raise DataError(
                f"{request.name} has to be fetched from {host}, which does not answer.",
                next_step="Check the network; or use what was fetched before (--offline), a copy "
                "of its files (--source FOLDER), or the embedded text (holo prepare stories).",
            )

    def from_the_network(part: Part, code: str, revision: str) -> Listing:
        if part.listing:
            return hub_files.on_the_web(part, code)
        revision = revision or request.pinned.get(part.repository, "")
        listing = hub_files.on_the_hub(part, code, revision)
        return hub_files.fetched(part, listing, request.workers) if part.keep else listing

    return from_the_network


def _host(part: Part) -> str:
    return "/".join(part.listing.split("/")[:3]) if part.listing else hub_endpoint()


# -- as streams -----------------------------------------------------------------------------------


def _stream(part: Part, language: str, listing: Listing, name: str, request: Request) -> Stream:
    texts = {
        column: known or language
        for column, known in part.texts.items()
        if not request.languages or not known or known in request.languages
    }
    columns = [*texts, *filter(None, (part.score, part.perplexity))]

    def documents_of(rows: list[dict[str, Any]], file: DataFile) -> Iterator[Document | None]:
        for row in rows:
            for column, code in texts.items():
                text = row[column]
                yield (
                    None
                    if not isinstance(text, str)
                    else Document(
                        text,
                        language=code,
                        source=name,
                        split=file.split,
                        score=_number(row.get(part.score)),
                        perplexity=_number(row.get(part.perplexity)),
                    )
                )

    def read(position: Position) -> Iterator[Chunk]:
        first, row = position or (0, 0)
        for number in range(first, len(listing.files)):
            file = listing.files[number]
            for rows, after in row_chunks(file, columns, part.repository, row):
                found = list(documents_of(rows, file))
                kept = [document for document in found if document is not None]
                bad = {"bad lines": len(found) - len(kept)} if len(kept) < len(found) else {}
                yield Chunk(kept, (number, after), bad)
            row = 0

    def lines_of(file: DataFile, counts: Counter[str]) -> Iterator[Document]:
        for rows, _ in row_chunks(file, columns, part.repository):
            for document in documents_of(rows, file):
                if document is None:
                    counts["bad lines"] += 1
                else:
                    yield document

    def whole(counts: Counter[str]) -> Iterator[Document]:
        """For files at hand: rows joined to articles, repeats left out, read from the start."""
        seen: set[bytes] = set()
        for _, files in groupby(listing.files, key=lambda file: file.split):
            stream = chain.from_iterable(lines_of(file, counts) for file in files)
            for document in articles(stream) if part.articles else stream:
                digest = hashlib.blake2b(document.text.encode("utf-8"), digest_size=8).digest()
                if part.unique and digest in seen:
                    counts["repeated texts"] += 1
                    continue
                seen.add(digest)
                yield document

    chunks = counted(whole) if part.articles or part.unique else read
    streamed = not part.keep and request.source is None
    return Stream(
        chunks=(lambda position: prefetch(chunks(position))) if streamed else chunks,
        name=" ".join(filter(None, (name, language))),
        language=language,
        total_bytes=_text_bytes(listing),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _text_bytes(listing: Listing) -> int | None:
    total = 0.0
    for file in listing.files:
        if file.size is None:
            return None
        total += file.size * _TEXT_PER_BYTE.get(Path(file.path).suffix, 1.0)
    return round(total)


def _total(streams: list[Stream], request: Request) -> int | None:
    sizes = [stream.total_bytes for stream in streams]
    known = None if None in sizes else sum(size or 0 for size in sizes)
    if request.max_bytes is not None:
        return request.max_bytes if known is None else min(known, request.max_bytes)
    return None if request.max_docs is not None else known
