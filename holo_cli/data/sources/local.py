"""Local text: a file, a folder, a glob, or standard input.

`found.py` says which files these are. The first bytes of every file are checked on opening, so that
a wrong encoding is reported at once.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from holo_cli.data.document import Document
from holo_cli.data.language import detect
from holo_cli.data.remote import RemoteFile, SourcePath
from holo_cli.data.sources import readers
from holo_cli.data.sources.base import Chunk, Position, Request, Source, Stream, numbered_chunks
from holo_cli.data.sources.chat_rows import FORM, MESSAGES, read_conversations
from holo_cli.data.sources.decoding import (
    check_encoding,
    encoding_of,
    text_blocks,
)
from holo_cli.data.sources.formats import NotText
from holo_cli.data.sources.found import COMPRESSED, KINDS, Found, file_kind, find_files
from holo_cli.data.sources.unpacking import open_bytes, readable
from holo_cli.errors import DataError, UsageError
from holo_cli.names import composed

MOST_CUT = 100  # files listed as cut in meta.json
_JSON = re.compile(rb'\s*(\[\s*)?\{\s*"[^"]*"\s*:')  # an object begins with a name


def open_local(request: Request) -> Source:
    """Open the files of `request.source`. DataError if they are missing, empty or not text."""
    check_encoding(request.encoding)
    assert request.source is not None
    found = find_files(request.source, request.scratch)
    root, paths = found.root, found.paths
    several = len(paths) > 1
    paths = _untaken(request, found)
    prefix = f"{request.name}/" if request.one_of_several else ""
    files: list[tuple[SourcePath, str, str]] = []  # path, kind, encoding
    unreadable: Counter[str] = Counter()
    for path in paths:
        kind = file_kind(PurePosixPath(path.name)) or _kind_by_content(path)
        try:
            encoding = "" if kind == "parquet" else encoding_of(path, request.encoding)
        except NotText:
            if not several:
                raise
            unreadable["files that are not text"] += 1
            continue
        if request.chat and kind != "json":
            kind = _kind_by_content(path)
            if kind != "json" and not several:
                raise DataError(
                    f"{path} has no conversations: --chat reads JSON lines.", next_step=FORM
                )
            if kind != "json":
                unreadable["files without conversations"] += 1
                continue
        if kind == "text" and _kind_by_content(path) == "json":
            request.notice(
                f"{path} looks like JSON, and is read as plain text. To use its rows, rename it so "
                "that it ends in .jsonl."
            )
        files.append((path, kind, encoding))
    if not files:
        raise DataError(
            f"None of the {len(paths)} files in {request.source} is text."
            if not request.chat
            else f"None of the {len(paths)} files in {request.source} has conversations.",
            next_step=FORM if request.chat else f"Use a file or a folder with {KINDS}.",
        )
    if all(path.stat().st_size == 0 for path, _, _ in files):
        raise DataError(f"{request.source} is empty.", next_step="Use a source with text.")

    cut: dict[str, int] = {}  # pieces of each text without documents of its own
    description: dict[str, Any] = {
        "name": request.name,
        "source": request.source,
        "files": len(files),
        "passed_over": dict(found.passed_over),
        "cut": cut,  # filled in while the text is read
    }

    told: set[str] = set()  # files are read several times

    def tell(name: str, row: int, detail: str) -> None:
        if name not in told:
            told.add(name)
            request.notice(f"In {name}, row {row}: {detail}. Such rows are dropped.")

    def documents(file: int, counts: Counter[str]) -> Iterator[Document]:
        path, kind, encoding = files[file]
        name = prefix + composed(path.relative_to(root).as_posix() if several else path.name)
        if request.chat:
            field = MESSAGES if request.text_field == "text" else request.text_field
            conversations = read_conversations(path, encoding, field, counts, partial(tell, name))
            for messages, language in conversations:
                yield Document.of_messages(messages, language.lower(), name)
            return
        pieces = 0
        rows = readers.read_rows(path, kind, encoding, request.text_field, counts)
        for text, language in rows:
            pieces += 1
            yield Document(text, language=language.lower(), source=name)
        if pieces > 1 and len(cut) < MOST_CUT and readers.is_cut(path, kind, encoding):
            cut[name] = pieces

    def read(language: str, position: Position, end: int = len(files)) -> Iterator[Chunk]:
        """All documents (""), or those of one language, of the files before `end`."""
        file, row = position or (0, 0)
        # with several streams over the same files only the first counts what reading drops
        counting = language in ("", *request.languages[:1])
        if position is None and unreadable and counting:
            yield Chunk([], (0, 0), dict(unreadable))
        for number in range(file, end):
            stream = partial(documents, number)
            selected = partial(_select_language, language, request.languages, stream)
            for chunk in numbered_chunks(selected if language else stream)(row):
                counts = chunk.counts if counting else {}
                yield Chunk(chunk.documents, (number, chunk.after), counts)
            row = 0

    total_bytes = _size([path for path, _, _ in files], request.max_bytes)
    return Source(
        name=request.name,
        streams=_streams(request, read, [path.stat().st_size for path, _, _ in files], total_bytes),
        identity={"files": _digest(found, [path for path, _, _ in files])},
        description=description,
        total_bytes=total_bytes,
        chat=request.chat,
    )


def _untaken(request: Request, found: Found) -> Sequence[SourcePath]:
    """The files that no earlier --source of the set has; the rest is counted as passed over."""
    if not request.one_of_several:
        return found.paths
    kept = [path for path in found.paths if _real(path) not in request.taken]
    if lost := len(found.paths) - len(kept):
        found.passed_over["files that an earlier --source has"] += lost
    if not kept:
        raise DataError(
            f"An earlier --source has every file of {request.source} already.",
            next_step="Name each text once.",
        )
    request.taken.update(map(_real, kept))
    return kept


def _real(path: SourcePath) -> str:
    """Equal for two names of one file."""
    return path.address if isinstance(path, RemoteFile) else os.path.realpath(path)


def _streams(
    request: Request, read: Callable[..., Iterator[Chunk]], sizes: Sequence[int], total: int | None
) -> tuple[Stream, ...]:
    """One stream, or one per language for a mixture by language.

    Each of several streams reads all files and yields the documents of its language, so that
    nothing has to be buffered.
    """
    languages = request.languages
    if request.by_language and not languages:
        raise UsageError(
            f"--mix weights languages, but the languages of {request.source} are unknown.",
            next_step="Name them, for example --lang ko,en.",
        )

    def stream(select: str, name: str, language: str, size: int | None) -> Stream:
        def part(number: int) -> Iterator[Chunk]:
            return read(select, (number, 0) if number else None, number + 1)

        return Stream(partial(read, select), name, language, size, tuple(sizes), part)

    if not request.by_language or len(languages) == 1:
        return (stream("", request.name, _one(languages), total),)
    return tuple(stream(code, f"{request.name} {code}", code, None) for code in languages)


def _select_language(
    language: str,
    languages: Sequence[str],
    documents: Callable[[Counter[str]], Iterator[Document]],
    counts: Counter[str],
) -> Iterator[Document]:
    """The documents of `language`; the first language also gets those of other languages."""
    for document in documents(counts):
        code = document.language or detect(document.text, languages)
        owner = next((one for one in languages if code.startswith(one)), languages[0])
        if owner == language:
            yield replace(document, language=code)


def read_whole(path: SourcePath, encoding: str | None) -> str:
    """The text of one file."""
    check_encoding(encoding)
    return "".join(text_blocks(path, encoding_of(path, encoding)))


def _one(languages: Sequence[str]) -> str:
    return languages[0] if len(languages) == 1 else ""


def _size(paths: Sequence[SourcePath], limit: int | None) -> int | None:
    """Size of the text; None for compressed and parquet files without a limit."""
    if any({".parquet", *COMPRESSED} & set(path.suffixes) for path in paths):
        return limit
    size = sum(path.stat().st_size for path in paths)
    return size if limit is None else min(size, limit)


def _kind_by_content(path: SourcePath) -> str:
    """The kind of a file with an unknown extension: parquet, JSON lines, or else text."""
    with open_bytes(path) as file, readable(path):
        head = file.read(512)
    if head.startswith(b"PAR1"):
        return "parquet"
    return "json" if _JSON.match(head.removeprefix(codecs.BOM_UTF8)) else "text"


def _digest(found: Found, paths: Sequence[SourcePath]) -> str:
    """A digest that changes when a file is added, removed, renamed or modified."""
    digest = hashlib.sha256()
    for path in paths:
        if isinstance(path, RemoteFile):
            name = path.relative_to(found.root).as_posix()
            digest.update(repr([name, path.size, path.version]).encode("utf-8"))
            continue
        stat = path.stat()
        if found.copied:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
            continue
        state: list[Any] = [path.relative_to(found.root).as_posix(), stat.st_size, stat.st_mtime_ns]
        digest.update(repr(state).encode("utf-8"))
    return digest.hexdigest()
