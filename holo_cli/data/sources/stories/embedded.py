"""Text that is made here: the embedded stories as a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from holo_cli.data.document import Document
from holo_cli.data.sources.base import Request, Source, Stream, counted
from holo_cli.errors import UsageError

LANGUAGES = ("en", "ko")
DEFAULT_BYTES = 3_000_000


def open_stories(request: Request) -> Source:
    """Stories in the languages asked for (default both), 3 MB unless a size is asked for."""
    languages = request.languages or LANGUAGES
    for language in languages:
        if language not in LANGUAGES:
            raise UsageError(
                f"There are no stories in '{language}'.", next_step="--lang takes en, ko or en,ko."
            )
    sized = request.max_docs is not None or request.max_bytes is not None
    max_bytes = request.max_bytes if sized else DEFAULT_BYTES

    def stream(told: tuple[str, ...]) -> Stream:
        def documents(counts: Counter[str]) -> Iterator[Document]:
            from holo_cli.data.sources.stories.grammar import stories

            return stories(
                count=request.max_docs, max_bytes=max_bytes, seed=request.seed, languages=told
            )

        language = told[0] if len(told) == 1 else ""
        name = " ".join(filter(None, (request.name, language)))
        return Stream(counted(documents), name, language)

    groups = [(language,) for language in languages] if request.by_language else [tuple(languages)]
    return Source(
        name=request.name,
        streams=tuple(stream(group) for group in groups),
        identity={"languages": list(languages), "default_bytes": DEFAULT_BYTES},
        description={"name": request.name, "licence": "MIT", "made_by": "holo"},
        total_bytes=max_bytes,
    )
