"""Captions of a page in the user's language. Tokens, names of runs and numbers stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holo_cli.translation import language, translate

if TYPE_CHECKING:
    from holo_cli.models.views import Table

SAID = re.compile(r'holo\.say\("([^"]+)"\)')  # words in the scripts of `assets/`
CAPTIONS = {
    "title",
    "name",
    "choice",
    "layers",
    "opens",
    "against",
    "entry",
    "what",
}  # keys of a figure's data whose strings are captions
PLACE = re.compile(r"Embedding|(Block|Layer|Head) \d+")  # what an axis of layers counts


def script_words(scripts: Iterable[str]) -> dict[str, str]:
    """The words that the scripts say, with their translations; none in English."""
    if language() == "en":
        return {}
    return {word: translate(word) for script in scripts for word in SAID.findall(script)}


def table(given: Table) -> Table:
    """A table with its caption, columns and cells of words translated."""
    rows = [[translate(c) if isinstance(c, str) else c for c in row] for row in given.rows]
    columns = [translate(column) for column in given.columns]
    return replace(given, caption=translate(given.caption), columns=columns, rows=rows)


def prose(text: str) -> str:
    """Paragraphs, and the lines of lists each by itself."""
    if not re.search(r"^- ", text, re.MULTILINE):
        return translate(text)
    return "\n".join(
        f"- {translate(line[2:])}" if line.startswith("- ") else translate(line)
        for line in text.split("\n")
    )


def captions(data: Any, caption: bool = False) -> Any:
    """Figure data with its titles, names of traces and selectors translated."""
    if isinstance(data, Mapping):
        found: dict[Any, Any] = {}
        for key, value in data.items():
            if key == "variants":  # their names are shown in a selector
                found[key] = {translate(name): captions(item) for name, item in value.items()}
            else:
                # Plotly writes {"title": {"text": "..."}}
                found[key] = captions(value, key in CAPTIONS or (caption and key == "text"))
                if key in ("x", "y", "ticktext") and isinstance(value, list | tuple):
                    found[key] = [
                        translate(at) if isinstance(at, str) and PLACE.fullmatch(at) else at
                        for at in value
                    ]
        return found
    if isinstance(data, list | tuple):
        return [captions(item, caption) for item in data]
    return translate(data) if caption and isinstance(data, str) else data
