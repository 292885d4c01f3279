"""The HTML around every page, its headers, and the files that pages load.

A page names no address outside the server. Texts of models and names of checkpoints reach it as
JSON only, and its scripts insert them as text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from holo_cli.translation import language, template

ASSETS = Path(__file__).parent / "assets"
TYPES = {".js": "text/javascript", ".css": "text/css"}
KOREAN = "ko.js"  # made, not a file: the Korean words of all pages
SHARED = ("page.css", "page.js")  # of `visualize/assets`
WORDS = re.compile(r'holo\.say\("([^"]+)"\)|\bdata-say>([^<]+)<|\bdata-(?:label|hint)="([^"]+)"')
# No source but the server itself; no script or style in the page's own text.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# a phone's keyboard makes the page lower, so that the composer stays above it
VIEWPORT = "width=device-width, initial-scale=1, interactive-widget=resizes-content"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
}


@dataclass(frozen=True)
class WebPage:
    """A page by its title, with the scripts it loads beside the common ones."""

    path: str
    title: str
    scripts: tuple[str, ...]


PAGES = {
    "chat": WebPage(
        "/", "Chat", ("stream.js", "tokens.js", "conversation.js", "inside.js", "chat.js")
    ),
    "arena": WebPage("/arena", "Arena", ("stream.js", "tokens.js", "arena.js")),
    "runs": WebPage("/runs", "Runs", ("charts.js", "runs.js")),
    "pages": WebPage("/pages", "Pages", ("pages.js",)),
}


def page_html(name: str, *, key: bool) -> str:
    """A page in the language of the command line; `key`: whether the server asks for one.

    Its words are English; the scripts replace them where the reader has Korean.
    """
    page = PAGES[name]
    links = "\n".join(
        f'<a href="{other.path}"{_current(other is page)} data-say>{other.title}</a>'
        for other in PAGES.values()
    )
    scripts = ["page.js", KOREAN, "web.js", *page.scripts]
    loaded = "\n".join(f'<script src="/assets/{script}"></script>' for script in scripts)
    return f"""<!DOCTYPE html>
<html lang="{language()}" data-page="{name}" data-key="{"yes" if key else ""}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="{VIEWPORT}">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(page.title)} · holo</title>
<link rel="stylesheet" href="/assets/page.css">
<link rel="stylesheet" href="/assets/web.css">
</head>
<body class="{name}">
<header class="top">
<nav data-label="Pages">
{links}
</nav>
<button type="button" id="language" lang="ko">한국어</button>
</header>
{asset_text(f"{name}.html")}
<dialog id="key-dialog"><form method="dialog">
<h2 data-say>API key</h2>
<p data-say>This server asks for a key. It is kept in this tab only.</p>
<p id="key-problem" class="problem" role="alert"></p>
<input id="key" type="password" autocomplete="off" data-label="API key">
<button data-say>Continue</button>
</form></dialog>
<noscript><p>These pages need JavaScript.</p></noscript>
{loaded}
</body>
</html>
"""


def _current(here: bool) -> str:
    return ' aria-current="page"' if here else ""


@cache
def asset_text(name: str) -> str:
    """A file of this folder."""
    return (ASSETS / name).read_text(encoding="utf-8")


def is_asset(name: str) -> bool:
    """Whether pages may load a file of that name."""
    return name in known_assets()


@cache
def known_assets() -> frozenset[str]:
    """The names of all files that pages may load."""
    own = (path.name for path in ASSETS.iterdir() if path.suffix in TYPES)
    return frozenset((*own, *SHARED, KOREAN))


def asset_of(name: str) -> tuple[str, str]:
    """The text and media type of a known asset."""
    kind = TYPES[Path(name).suffix]
    if name == KOREAN:
        return korean_script(), kind
    if name in SHARED:
        from holo_cli.visualize.page import asset

        return asset(name), kind
    return asset_text(name), kind


@cache
def korean_script() -> str:
    """What the pages say, in Korean, as a script."""
    from holo_cli.visualize.page import to_json

    words = {word for path in sorted(ASSETS.iterdir()) for word in words_of(path)}
    words |= {word for name in PAGES for word in words_in(page_html(name, key=False))}
    return f"holo.korean = {to_json({word: template(word, 'ko') for word in sorted(words)})};\n"


def words_of(path: Path) -> list[str]:
    """The words that a script or a page's text shows."""
    return words_in(path.read_text(encoding="utf-8"))


def words_in(text: str) -> list[str]:
    """As `words_of`, of a text."""
    return [next(filter(None, found)) for found in WORDS.findall(text)]
