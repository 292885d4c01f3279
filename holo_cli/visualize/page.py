"""The HTML of every page: one self-contained file that makes no requests.

plotly.js is inlined once, from the `plotly` package; the scripts that draw are in `assets/`.
The page has a Content-Security-Policy that names each of its scripts by hash and allows no
connection, so that the browser itself enforces "no network" and "no foreign script".
Data are JSON in which no markup can begin.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from holo_cli.files import atomic_write_text
from holo_cli.models.views import Picture, Table
from holo_cli.translation import language, translate
from holo_cli.visualize import localize
from holo_cli.wording import counted

ASSETS = Path(__file__).parent / "assets"
NUMBER = ' class="number"'
WRITTEN = re.compile(r"[-+]?\d[\d,]*\.\d+")  # a number with as many decimals as was wanted
TYPED = re.compile(r"`([^`\n]+)`")
NO_SCRIPT = "The figures need JavaScript. Their numbers are in the tables."
MISSING = "–"  # in a table, what was not measured
FEW_TABLES = 4  # beside a figure; more are folded away together
DIGITS = 4  # significant digits of every number on a page, drawn or written


@dataclass(frozen=True)
class Section:
    """One part of a page: a figure with its numbers, tokens in a row, prose, or tables alone.

    An empty title or note is left out. A table without a caption is never folded away.
    """

    title: str
    note: str
    kind: str = ""  # the script in `assets/` that draws `data`: coords, attention, picture
    data: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Table] = ()  # folded away beside a figure, open without one
    pieces: Sequence[tuple[str, int]] = ()  # whole characters, and the tokens that each takes
    prose: str = ""  # paragraphs between empty lines; lines that all begin with "- " are a list
    see: str = ""  # what there is to see, in a sentence
    folded: bool = False  # behind a line that opens it


@dataclass(frozen=True)
class Page:
    """A title, facts as (name, value), and sections. All strings are plain text.

    A page that says what there is to see opens with that sentence and its first figure; facts and
    explanations come after the figures.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section] = field(default_factory=tuple)
    intro: str = ""  # prose under the title
    see: str = ""  # one sentence


def rounded(values: Any) -> Any:
    """Nested lists of floats with DIGITS significant digits: what JSON and tables both show."""
    if isinstance(values, list | tuple):
        return [rounded(value) for value in values]
    return float(f"{values:.{DIGITS}g}") if isinstance(values, float) else values


def picture_section(picture: Picture, numbers: bool = False, labels: Sequence[str] = ()) -> Section:
    """A model's own picture as a section; with `numbers` the page also writes all drawn values as
    text, for pictures whose tables hold something else. `labels` are the tokens as
    `see` names them."""
    data = {
        "numbers": numbers,
        "choice": picture.choice,
        "opens": picture.opens or next(iter(picture.variants), ""),
        "against": list(picture.against),
        "map": set(picture.token_axes) >= {"xaxis", "yaxis"},
        "variants": {name: list(traces) for name, traces in picture.variants.items()},
        "layout": dict(picture.layout),
    }
    return Section(
        picture.title,
        picture.note,
        "picture",
        data,
        picture.tables,
        see=picture.see(labels) if picture.see else "",
        folded=picture.folded,
    )


def story(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> Page:
    """A page that opens with what its first section has to show, said once."""
    first, *rest = sections
    return Page(title, facts, [replace(first, see=""), *rest], see=first.see)


def write_page(page: Page, path: Path) -> int:
    """Write the file, whole or not at all; returns its size in bytes."""
    text = render(page)
    atomic_write_text(path, text)
    return len(text.encode("utf-8"))


def render(page: Page) -> str:
    """The page as HTML, in the user's language."""
    page = _localized(page)
    kinds = dict.fromkeys(section.kind for section in page.sections if section.kind)
    scripts = [asset(f"{name}.js") for name in ("page", *kinds)] + ["holo.start();"]
    words = localize.script_words(scripts)
    if words:
        scripts.insert(1, f"Object.assign(holo.words, {to_json(words)});")
    if kinds:
        scripts.insert(0, plotly_js())
    body = "\n".join(_section(section, bool(page.see)) for section in page.sections)
    facts = f'<dl class="facts">\n{_facts(page.facts)}</dl>'
    code = "\n".join(f"<script>{script}</script>" for script in scripts)
    return f"""<!DOCTYPE html>
<html lang="{language()}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(page.title)}</title>
<style>
{asset("page.css")}</style>
</head>
<body{' class="story"' if page.see else ""}>
<header>
<h1>{escape(page.title)}</h1>
{_see(page.see)}{_prose(page.intro)}{"" if page.see else facts}
</header>
<main>
{body}
</main>
{f"<footer>{facts}</footer>" if page.see else ""}
<noscript><p>{escape(translate(NO_SCRIPT))}</p></noscript>
{code}
</body>
</html>
"""


def _localized(page: Page) -> Page:
    """The page with its captions in the user's language."""
    if language() == "en":
        return page
    sections = [
        replace(
            section,
            title=translate(section.title),
            note=translate(section.note),
            see=translate(section.see),
            prose=localize.prose(section.prose),
            tables=[localize.table(table) for table in section.tables],
            data=localize.captions(section.data),
        )
        for section in page.sections
    ]
    facts = [(translate(name), translate(value)) for name, value in page.facts]
    intro = localize.prose(page.intro)
    said = {"title": translate(page.title), "see": translate(page.see)}
    return replace(page, **said, intro=intro, facts=facts, sections=sections)


@cache
def plotly_js() -> str:
    """plotly.js as the installed `plotly` package brings it."""
    from plotly.offline import get_plotlyjs

    return _inline(get_plotlyjs())


@cache
def asset(name: str) -> str:
    """A script or style sheet of the project, ready to be inlined."""
    return _inline((ASSETS / name).read_text(encoding="utf-8"))


def _inline(script: str) -> str:
    """Browsers hash a script with plain line ends, and end it at the first closing tag."""
    return script.replace("\r\n", "\n").replace("</script", "<\\/script")


def _policy(scripts: Iterable[str]) -> str:
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    # plotly.js styles its figures inline, and makes images of them as data: and blob: addresses
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def to_json(value: Any) -> str:
    """JSON that is safe inside a <script> element. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _section(section: Section, story: bool) -> str:
    """As HTML; on a page that tells a story the note follows the figure it explains."""
    note = f'<p class="note">{escape(section.note)}</p>' if section.note else ""
    parts = []
    if section.title and not section.folded:
        parts.append(f"<h2>{escape(section.title)}</h2>")
    parts.append(_see(section.see))
    if not (story and section.kind):
        parts.append(note)
    if section.prose:
        parts.append(_prose(section.prose))
    if section.pieces:
        parts.append(f'<p class="tokens">{"".join(_piece(*piece) for piece in section.pieces)}</p>')
    if section.kind:
        data = f'<script type="application/json">{to_json(section.data)}</script>'
        parts += ['<div class="controls"></div>', '<div class="drawing"></div>', data]
        if story:
            parts.append(note)
    tables = [_table(table, opened=not section.kind) for table in section.tables]
    if tables and section.kind:
        if len(tables) > FEW_TABLES:
            summary = f"<summary>{escape(translate(counted(len(tables), 'table')))}</summary>"
            tables = ["<details>", summary, *tables, "</details>"]
        tables = [f"<h3>{escape(translate('The numbers'))}</h3>", *tables]
    kind = f' data-kind="{escape(section.kind)}"' if section.kind else ""
    inside = "\n".join(filter(None, [*parts, *tables]))
    if section.folded:
        summary = f"<summary><h2>{escape(section.title)}</h2></summary>"
        return f'<details class="folded">{summary}\n<section{kind}>\n{inside}\n</section></details>'
    return f"<section{kind}>\n{inside}\n</section>"


def _see(sentence: str) -> str:
    if not sentence:
        return ""
    lead = escape(translate("What to see"))
    return f'<p class="see"><strong>{lead}</strong> {escape(sentence)}</p>\n'


def _piece(text: str, count: int) -> str:
    """Whole characters of running text; a line under them for each token that they take."""
    shown = escape(visible(text))
    if count == 1:
        return f"<span>{shown}</span>"
    hint = escape(translate(counted(count, "token")))
    return f'<span class="parts" style="--parts: {count}" title="{hint}">{shown}</span>'


def _prose(text: str) -> str:
    """Plain text as paragraphs and lists."""
    parts = []
    for paragraph in filter(None, (part.strip() for part in text.split("\n\n"))):
        lines = paragraph.splitlines()
        if all(line.startswith("- ") for line in lines):
            items = "".join(f"<li>{_running(line[2:])}</li>" for line in lines)
            parts.append(f'<ul class="prose">{items}</ul>\n')
        else:
            parts.append(f'<p class="prose">{_running(paragraph)}</p>\n')
    return "".join(parts)


def _running(text: str) -> str:
    """Running text; what stands between backticks is to be typed."""
    return TYPED.sub(r"<code>\1</code>", escape(text))


def visible(piece: str) -> str:
    """A token as running text, its line ends marked: a line end alone would show nothing."""
    return piece.replace("\r", "").replace("\n", "⏎\n")


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>\n" for name, value in facts
    )


def _table(table: Table, opened: bool) -> str:
    cells = zip(*table.rows, strict=True) if table.rows else ([] for _ in table.columns)
    numeric = [_is_numeric(column) for column in cells]
    head = "".join(
        f'<th scope="col"{NUMBER if right else ""}>{escape(column)}</th>'
        for column, right in zip(table.columns, numeric, strict=True)
    )
    rows = "\n".join(f"<tr>{''.join(map(_cell, row, numeric))}</tr>" for row in table.rows)
    body = (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n'
        "</tbody></table></div>"
    )
    if not table.caption:
        return body
    return (
        f"<details{' open' if opened else ''}><summary>{escape(table.caption)}</summary>\n"
        f"{body}</details>"
    )


def _is_numeric(cells: Sequence[object]) -> bool:
    """Whether a column is right-aligned: numbers, and dashes where one is missing."""
    numbers = [isinstance(c, int | float) or bool(WRITTEN.fullmatch(str(c))) for c in cells]
    return any(numbers) and all(
        is_number or cell == MISSING for is_number, cell in zip(numbers, cells, strict=True)
    )


def _cell(value: object, right: bool) -> str:
    shown = number(value) if isinstance(value, int | float) else escape(str(value))
    return f"<td{NUMBER if right else ''}>{shown}</td>"


def number(value: float) -> str:
    """A number as tables show it; already rounded, as in the figure. Whole numbers from 10,000 have
    thousands separators."""
    if abs(value) >= 10_000 and value == int(value):
        return f"{int(value):,}"
    return str(value) if isinstance(value, int) else f"{value:.10g}"
