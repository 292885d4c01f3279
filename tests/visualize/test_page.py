"""The shell: self-contained, safe against every text, numbers in tables, written atomically."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from holo_cli.models.views import Picture, Table
from holo_cli.visualize import page as shell
from holo_cli.visualize.page import Page, Section, picture_section, render, to_json, write_page

NASTY = "</script><script>alert(1)</script><!--<b>&amp;\u2028'\"한"


LOADING = ("src", "href", "data", "action")


class Parsed(HTMLParser):
    """Scripts, their types, tables and every attribute that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.data: list[object] = []
        self.loads: list[str] = []
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.policy = ""
        self._in: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.loads += [given[name] or "" for name in LOADING if name in given]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        if tag == "script":
            self._in = "data" if given.get("type") == "application/json" else "script"
        elif tag == "td":
            self._in = "td"
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts.append(data)
        elif self._in == "data":
            self.data.append(json.loads(data))
        elif self._in == "td":
            self.cells[-1] += data


def example() -> Page:
    table = Table(NASTY, ["a", NASTY], [[1, 0.123], [2, NASTY], [3, 1e-05]])
    picture = Picture(
        NASTY,
        NASTY,
        {"one": [{"type": "scatter", "x": [1], "y": [2], "name": NASTY}]},
        tables=[table],
    )
    tokens = Section("Text", NASTY, pieces=[("a", 1), (NASTY, 3), ("\n", 1)])
    return Page(NASTY, [("Run", NASTY)], [tokens, picture_section(picture)])


def test_nothing_is_loaded_from_anywhere() -> None:
    text = render(example())
    parsed = Parsed(text)
    assert parsed.loads == ["data:,"]
    assert not {"iframe", "img", "object", "embed", "base"} & set(parsed.tags)
    css = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in css
    assert "@import" not in css
    assert len(text.encode()) < 6_000_000


def test_the_policy_names_every_script_and_allows_no_connection() -> None:
    parsed = Parsed(render(example()))
    rules = dict(rule.strip().split(" ", 1) for rule in parsed.policy.split(";"))
    assert rules["default-src"] == "'none'"
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in parsed.scripts
    }
    assert set(rules["script-src"].split()) == hashes
    assert "connect-src" not in rules


def test_text_of_anybody_stays_text() -> None:
    text = render(example())
    parsed = Parsed(text)
    assert len(parsed.scripts) == 4  # plotly.js, the shell, the figure, the start
    assert not any("alert" in script for script in parsed.scripts)
    assert parsed.tags.count("b") == 0
    assert NASTY in parsed.cells
    (data,) = parsed.data
    assert data["variants"]["one"][0]["name"] == NASTY  # type: ignore[index, call-overload]


def test_what_is_to_be_typed_looks_so_and_is_text_all_the_same() -> None:
    page = Page("t", [], [Section("", "", prose="Run `holo <b>` or\n\n- `a` and `b`")])
    text = render(page)
    assert "<code>holo &lt;b&gt;</code> or" in text
    assert "<li><code>a</code> and <code>b</code></li>" in text


def test_json_cannot_end_its_element_and_has_no_nan() -> None:
    text = to_json({NASTY: [NASTY]})
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {NASTY: [NASTY]}
    with pytest.raises(ValueError, match="Out of range"):
        to_json(float("nan"))


def test_tables_show_the_numbers() -> None:
    parsed = Parsed(render(example()))
    assert parsed.cells == ["1", "0.123", "2", NASTY, "3", "1e-05"]
    assert shell.rounded([[1.23456, 2], "x"]) == [[1.235, 2], "x"]
    assert shell.number(shell.rounded(123456.0)) == "123,500"


def test_a_page_without_figures_needs_no_plotly() -> None:
    text = render(Page("t", [], [Section("Only a table", "", tables=[Table("c", ["a"], [["b"]])])]))
    assert len(text) < 30_000
    assert "<details open>" in text


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "page.html"
    size = write_page(example(), path)
    assert path.stat().st_size == size
    before = path.read_bytes()
    bad = Page("t", [], [Section("s", "", "picture", {"x": float("inf")})])
    with pytest.raises(ValueError, match="Out of range"):
        write_page(bad, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_columns_of_numbers_stand_to_the_right_also_where_one_is_missing() -> None:
    rows = [["a", 12345, shell.MISSING, 1], ["b", shell.MISSING, shell.MISSING, "failed"]]
    table = Table("c", ["name", "number", "nothing", "mixed"], rows)
    text = render(Page("t", [], [Section("s", "", tables=[table])]))
    right = re.findall(r'<t[hd](?: scope="col")? class="number">(.*?)</t[hd]>', text)
    assert right == ["number", "12,345", shell.MISSING]
    empty = render(Page("t", [], [Section("s", "", tables=[Table("c", ["name", "other"], [])])]))
    assert "<th" in empty
    assert 'class="number"' not in empty
