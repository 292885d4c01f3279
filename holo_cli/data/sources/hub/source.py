"""Opens the datasets of the Hugging Face hub that `subsets.py` describes.

The files come from the hub (checked first, so that a missing network is an error within seconds),
from its cache (`--offline`, `HF_HUB_OFFLINE`, `HF_DATASETS_OFFLINE`), or from a local copy
(`--source`). Each part and language is a stream; the streams of a dataset take turns, so that every
prefix contains text of each.
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
from holo_cli.data.sources.base import Chunk, Position, Request, Source, Stream, numbered_chunks
from holo_cli.data.sources.hub import files as hub_files
from holo_cli.data.sources.hub.articles import articles
from holo_cli.data.sources.hub.files import DataFile, Listing
from holo_cli.data.sources.hub.prefetch import prefetch
from holo_cli.data.sources.hub.rows import row_chunks
from holo_cli.data.sources.hub.subsets import BALANCED, DEFAULT_LANGUAGES, PARTS, HubFiles
from holo_cli.errors import DataError, UsageError, nearest
from holo_cli.names import existing

_TEXT_PER_BYTE = {".parquet": 1.7, ".gz": 2.6, ".csv": 1.0}  # approximate, for progress


def open_hub(request: Request) -> Source:
    """Open the dataset `request.name` from the hub or from a copy in `request.source`."""
    selected = _select(request)
    several = len({part.repository for part, _ in selected}) > 1
    revisions: dict[str, str] = {}
    streams: list[Stream] = []
    list_files = _lister(request, [part for part, _ in selected])
    for part, language in selected:
        listing = list_files(
            part, _code(part, language, request), revisions.get(part.repository, "")
        )
        key = f"{part.repository} {language}".strip() if part.listing else part.repository
        revisions[key] = listing.revision
        name = part.repository if several else request.name
        streams.append(_stream(part, language, listing, name, request))
    return Source(
        name=request.name,
        streams=tuple(streams),
        identity={"revisions": revisions, "languages": [language for _, language in selected]},
        description={
            "name": request.name,
            "revisions": revisions,
            "licences": {p.repository: p.licence for p, _ in selected if p.licence},
            **({"source": request.source} if request.source else {}),
        },
        total_bytes=_total(streams, request),
        balanced=request.name in BALANCED,
    )


# -- which files ----------------------------------------------------------------------------------


def _select(request: Request) -> list[tuple[HubFiles, str]]:
    """The parts to read, each with its language ("" if it has several)."""
    parts = tuple(_with_subset(part, request) for part in PARTS[request.name])
    if not any(part.by_language for part in parts):
        wanted = set(request.languages)
        there = {language for part in parts for language in part.texts.values()}
        if wanted and not wanted & there:
            raise UsageError(
                f"{request.name} has no text in '{request.languages[0]}'.",
                next_step=f"Use --lang with {', '.join(sorted(there))}, or remove it.",
            )
        kept = [p for p in parts if not wanted or wanted & set(p.texts.values())]
        return [(part, _only(part)) for part in kept]
    languages = request.languages or DEFAULT_LANGUAGES.get(request.name, ())
    if not languages:
        raise UsageError(
            f"{request.name} needs --lang.",
            next_step=f"For example: holo prepare {request.name} --lang ko, or --lang ko,en.",
        )
    return [(_part_for(parts, language, request), language) for language in languages]


def _with_subset(part: HubFiles, request: Request) -> HubFiles:
    if request.subset is None:
        return part
    if request.subset not in part.subsets:
        raise UsageError(
            f"{request.name} has no subset '{request.subset}'.",
            next_step=nearest(request.subset, part.subsets) if part.subsets else "Remove --subset.",
        )
    return replace(part, files={"": part.subsets[request.subset]})


def _part_for(parts: tuple[HubFiles, ...], language: str, request: Request) -> HubFiles:
    for part in parts:
        named = part.scripts and language in request.scripts
        if part.codes is None or language in part.codes or named:
            return part
    known = sorted({code for part in parts for code in part.codes or ()})
    raise UsageError(
        f"{request.name} has no language '{language}'.",
        next_step=nearest(language, known)
        if len(known) < 9
        else f"Available languages: {' '.join(known)}.",
    )


def _code(part: HubFiles, language: str, request: Request) -> str:
    """The name of a language in the paths of a part."""
    if part.codes is not None and language in part.codes:
        return part.codes[language]
    return request.scripts.get(language, language) if part.scripts else language


def _only(part: HubFiles) -> str:
    languages = set(part.texts.values())
    return languages.pop() if len(languages) == 1 else ""


# -- where the files are --------------------------------------------------------------------------


def _lister(request: Request, parts: list[HubFiles]) -> Any:
    """The function that lists the files of a part: (part, code, known revision) -> Listing."""
    if request.source is not None:
        folder = existing(request.source)
        return lambda part, code, revision: hub_files.list_folder(part, code, folder)
    if request.offline or hub_offline():
        # the libraries read both variables on import, which has not happened yet
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
        return lambda part, code, revision: hub_files.list_cache(
            part, code, revision or request.pinned.get(part.repository, "")
        )
    for host in sorted({_host(part) for part in parts}):
        if not reachable(host):
            raise DataError(
                f"{request.name} has to be downloaded from {host}, which does not respond.",
                next_step="Check the network; or use earlier downloads (--offline), a local copy "
                "(--source FOLDER), or the embedded text (holo prepare stories).",
            )

    def list_remote(part: HubFiles, code: str, revision: str) -> Listing:
        if part.listing:
            return hub_files.list_web(part, code)
        revision = revision or request.pinned.get(part.repository, "")
        listing = hub_files.list_hub(part, code, revision)
        return hub_files.download(part, listing, request.workers) if part.keep else listing

    return list_remote


def _host(part: HubFiles) -> str:
    return "/".join(part.listing.split("/")[:3]) if part.listing else hub_endpoint()


# -- streams --------------------------------------------------------------------------------------


def _stream(part: HubFiles, language: str, listing: Listing, name: str, request: Request) -> Stream:
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

    def read(position: Position, end: int = len(listing.files)) -> Iterator[Chunk]:
        first, row = position or (0, 0)
        for number in range(first, end):
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
        """For downloaded files: join articles, remove duplicates; always read from the start."""
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

    # articles and repeated texts reach over the ends of files: such a stream is one part
    divided = not (part.articles or part.unique)
    chunks = read if divided else numbered_chunks(whole)
    remote = not part.keep and request.source is None

    def one_file(number: int) -> Iterator[Chunk]:
        found = read((number, 0), number + 1)
        return prefetch(found) if remote else found

    return Stream(
        chunks=(lambda position: prefetch(chunks(position))) if remote else chunks,
        name=" ".join(filter(None, (name, language))),
        language=language,
        total_bytes=_text_bytes(listing),
        part_bytes=tuple(file.size or 0 for file in listing.files) if divided else (0,),
        part=one_file if divided else None,
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
