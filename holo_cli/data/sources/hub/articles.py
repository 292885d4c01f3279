"""Joins the lines of WikiText into articles.

The dataset has one line of text per row, empty lines as empty rows. An article begins with a line
` = Title = ` between empty lines; ` = = Section = = ` and deeper headings are part of it. Lines are
joined unchanged, with the original's spaces and ` @-@ `, so that the words of an article are those
over which perplexity is reported for these datasets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from holo_cli.data.document import Document

_TITLE = re.compile(r" = (?!= ).*(?<! =) = \n?")


def is_title(line: str) -> bool:
    """Whether a line is the title of an article.

    >>> is_title(" = Robert Boulter = \\n"), is_title(" = = Career = = \\n")
    (True, False)
    """
    return _TITLE.fullmatch(line) is not None


def articles(lines: Iterable[Document]) -> Iterator[Document]:
    """One document per article, from documents of one line each, in order."""
    held: list[str] = []
    first: Document | None = None
    pending: Document | None = None  # a title, until the line after it is known to be empty
    for line in lines:
        if pending is not None:
            if not line.text.strip():
                if first is not None and held:
                    yield from _joined(first, held)
                held, first = [], pending
            held.append(pending.text)
            pending = None
        if first is None:
            first = line
        if is_title(line.text) and (not held or not held[-1].strip()):
            pending = line
            continue
        held.append(line.text or "\n")
    if pending is not None:
        held.append(pending.text)
    if first is not None:
        yield from _joined(first, held)


def _joined(first: Document, lines: list[str]) -> Iterator[Document]:
    text = "".join(line if line.endswith("\n") else line + "\n" for line in lines).strip("\n")
    if text.strip():
        yield replace(first, text=text)
