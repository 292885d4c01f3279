"""The embedded stories, and the conversations about them, as sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from holo_cli.data.document import Document
from holo_cli.data.sources.base import Request, Source, Stream, numbered_chunks
from holo_cli.errors import UsageError

LANGUAGES = ("en", "ko")
DEFAULT_BYTES = 3_000_000

# (count, max_bytes, seed, languages) -> documents
Generator = Callable[[int | None, int | None, int, tuple[str, ...]], Iterator[Document]]


def open_stories(request: Request) -> Source:
    """Open stories in the requested languages (default: both), 3 MB without a limit."""

    def stories(*options: object) -> Iterator[Document]:
        from holo_cli.data.sources.stories import grammar

        return grammar.stories(*options)  # type: ignore[arg-type]

    return _open(request, stories)


def open_dialogues(request: Request) -> Source:
    """Open `dialogues` or `exercises`, as `open_stories` does stories."""

    def conversations(
        count: int | None, max_bytes: int | None, seed: int, languages: tuple[str, ...]
    ) -> Iterator[Document]:
        from holo_cli.data.sources.stories.dialogues import dialogues

        return dialogues(count, max_bytes, seed, languages, request.name)

    return _open(request, conversations, chat=True)


def _open(request: Request, generator: Generator, chat: bool = False) -> Source:
    languages = request.languages or LANGUAGES
    for language in languages:
        if language not in LANGUAGES:
            raise UsageError(
                f"There are no {request.name} in '{language}'.",
                next_step="Use --lang en, ko or en,ko.",
            )
    sized = request.max_docs is not None or request.max_bytes is not None
    max_bytes = request.max_bytes if sized else DEFAULT_BYTES

    def stream(group: tuple[str, ...]) -> Stream:
        def documents(counts: Counter[str]) -> Iterator[Document]:
            return generator(request.max_docs, max_bytes, request.seed, group)

        language = group[0] if len(group) == 1 else ""
        name = " ".join(filter(None, (request.name, language)))
        return Stream(numbered_chunks(documents), name, language)

    groups = [(language,) for language in languages] if request.by_language else [tuple(languages)]
    return Source(
        name=request.name,
        streams=tuple(stream(group) for group in groups),
        identity={"languages": list(languages), "default_bytes": DEFAULT_BYTES},
        description={"name": request.name, "licence": "MIT", "made_by": "holo"},
        total_bytes=max_bytes,
        chat=chat,
    )
