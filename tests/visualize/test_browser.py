"""Pages in a real browser: nothing complains, the figures are there, Korean shows."""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from pathlib import Path

import pytest

from holo_cli.errors import UsageError
from holo_cli.visualize import make_page
from holo_cli.visualize.browser import find_browser, need_browser, visit
from tests.visualize.conftest import MIXED
from tests.visualize.test_training import log, rows

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium, Chrome or Edge is installed"),
]
HINT = "willReadFrequently"  # a remark of Chromium on how plotly.js measures its letters


def complaints(console: list[str]) -> list[str]:
    return [line for line in console if HINT not in line]


def drawn(dom: str) -> str:
    """The DOM without scripts: what is on the page, not what was sent."""
    return re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)


def words(dom: str) -> str:
    """What a reader reads; each token stands in an element of its own."""
    return re.sub(r"<[^>]*>", "", drawn(dom))


class TestInBrowser:
    pytestmark = needs_browser

    def test_coords(self, lab: Path) -> None:
        text = MIXED + " <b>bold</b></script><script>console.error('injected')</script>"
        page = Path(make_page("coords", text=text)["page"])
        picture = lab / "page.png"
        seen = visit(page, png=picture, size=(640, 1100))
        assert complaints(seen.console) == []
        dom = drawn(seen.dom)
        assert "고양이가 걸었다." in words(seen.dom)
        assert 'class="plot js-plotly-plot"' in dom
        assert "<canvas" in dom
        assert "no WebGL" not in dom
        assert '<input type="range"' in dom
        colours = pixels(picture)
        # the points of English and Korean, in the light theme's colours for them
        for tint in ((0xC2, 0x41, 0x0C), (0x15, 0x80, 0x3D)):
            assert sum(count for colour, count in colours.items() if near(colour, tint)) > 100

    def test_attention_in_the_dark(self, lab: Path) -> None:
        page = Path(make_page("attention", text=MIXED)["page"])
        picture = lab / "page.png"
        seen = visit(page, png=picture, size=(520, 400), dark=True)
        assert complaints(seen.console) == []
        dom = drawn(seen.dom)
        assert "고양이가 걸었다." in words(seen.dom)
        assert 'class="plot js-plotly-plot"' in dom
        assert "takes most from" in words(seen.dom)
        assert pixels(picture).most_common(1)[0][0] in ((0x14, 0x16, 0x1A), (0x1C, 0x1F, 0x25))

    def test_training(self, lab: Path) -> None:
        log(lab / "runs", "R&amp;D", rows(20))
        page = Path(make_page("training", runs=["R&amp;D"], out="t.html")["page"])
        seen = visit(page)
        assert complaints(seen.console) == []
        dom = drawn(seen.dom)
        assert "옛날 옛적" in dom
        assert dom.count("js-plotly-plot") == 2
        assert "R&amp;amp;D, validation" in dom

    def test_a_page_that_complains_is_heard(self, tmp_path: Path) -> None:
        page = tmp_path / "bad.html"
        page.write_text("<script>console.error('one\\ntwo'); nothing();</script>", encoding="utf-8")
        heard = visit(page).console
        assert heard[0] == "one\ntwo"
        assert "nothing is not defined" in heard[1]


def test_no_browser_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_BROWSER", "no-such-browser")
    assert find_browser() is None
    with pytest.raises(UsageError, match="none was found") as error:
        need_browser()
    assert "HOLO_BROWSER" in error.value.next_step


Colour = tuple[int, ...]


def near(colour: Colour, wanted: Colour) -> bool:
    return all(abs(a - b) <= 12 for a, b in zip(colour, wanted, strict=True))


def pixels(path: Path) -> Counter[Colour]:
    """How often each colour (red, green, blue) stands in a PNG of 8 bits a channel."""
    content = path.read_bytes()
    width, height, bits, kind = struct.unpack(">IIBB", content[16:26])
    assert bits == 8
    assert kind in (2, 6)
    channels, at, packed = {2: 3, 6: 4}[kind], 8, b""
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        if content[at + 4 : at + 8] == b"IDAT":
            packed += content[at + 8 : at + 8 + length]
        at += length + 12
    raw, stride = zlib.decompress(packed), width * channels
    above = bytearray(stride)
    counts: Counter[Colour] = Counter()
    for y in range(height):
        begin = y * (stride + 1)
        line = bytearray(raw[begin + 1 : begin + 1 + stride])
        _unfilter(raw[begin], line, above, channels)
        counts.update(zip(*(line[c::channels] for c in range(3)), strict=True))
        above = line
    return counts


def _unfilter(kind: int, line: bytearray, above: bytearray, step: int) -> None:
    """Undo a PNG row's prediction in place (ISO/IEC 15948, 9.2)."""
    if kind == 0:
        return
    for i in range(len(line)):
        left, up = line[i - step] if i >= step else 0, above[i]
        corner = above[i - step] if i >= step else 0
        if kind == 4:
            guess = left + up - corner
            predicted = min((left, up, corner), key=lambda v: abs(v - guess))
        else:
            predicted = {1: left, 2: up, 3: (left + up) // 2}[kind]
        line[i] = (line[i] + predicted) & 255
