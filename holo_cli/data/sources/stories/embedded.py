"""The embedded stories as a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from holo_cli.data.document import Document
from holo_cli.data.sources.base import Request, Source, Stream, numbered_chunks
from holo_cli.errors import UsageError

LANGUAGES = ("en", "ko")
DEFAULT_BYTES = 3_000_000


def open_stories(request: Request) -> Source:
    """Open stories in the requested languages (default: both), 3 MB without a limit."""
    languages = request.languages or LANGUAGES
    for language in languages:
        if language not in LANGUAGES:
            raise UsageError(
                f"There are no stories in '{language}'.", next_step="Use --lang en, ko or en,ko."
            )
    sized = request.max_docs is not None or request.max_bytes is not None
    max_bytes = request.max_bytes if sized else DEFAULT_BYTES

    def stream(group: tuple[str, ...]) -> Stream:
        def documents(counts: Counter[str]) -> Iterator[Document]:
            from holo_cli.data.sources.stories.grammar import stories

            return stories(
                count=request.max_docs, max_bytes=max_bytes, seed=request.seed, languages=group
            )

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
    )
