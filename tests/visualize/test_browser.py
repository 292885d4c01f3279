"""Pages in a real browser: nothing complains, the figures are there, Korean shows."""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from holo_cli.errors import UsageError
from holo_cli.visualize import browser, make_page
from holo_cli.visualize.browser import Visit, find_browser, need_browser
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
        seen = browser.visit(page, png=picture, size=(640, 1100))
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
        seen = browser.visit(page, png=picture, size=(520, 400), dark=True)
        assert complaints(seen.console) == []
        dom = drawn(seen.dom)
        assert "고양이가 걸었다." in words(seen.dom)
        assert 'class="plot js-plotly-plot"' in dom
        assert "takes most from" in words(seen.dom)
        assert pixels(picture).most_common(1)[0][0] in ((0x14, 0x16, 0x1A), (0x1C, 0x1F, 0x25))

    def test_training(self, lab: Path, visit: Callable[..., Visit]) -> None:
        log(lab / "runs", "R&amp;D", rows(20))
        page = Path(make_page("training", runs=["R&amp;D"], out="t.html")["page"])
        seen = visit(page)
        assert complaints(seen.console) == []
        dom = drawn(seen.dom)
        assert "옛날 옛적" in dom
        assert dom.count("js-plotly-plot") == 2
        assert "R&amp;amp;D, validation" in dom

    def test_a_page_that_complains_is_heard(
        self, tmp_path: Path, visit: Callable[..., Visit]
    ) -> None:
        page = tmp_path / "bad.html"
        page.write_text("<script>console.error('one\\ntwo'); nothing();</script>", encoding="utf-8")
        for heard in (browser.visit(page).console, visit(page).console):
            assert heard[0] == "one\ntwo"
            assert "nothing is not defined" in heard[1]


def test_no_browser_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_BROWSER", "no-such-browser")
    assert find_browser() is None
    with pytest.raises(UsageError, match="none was found") as error:
        need_browser()
    assert "HOLO_BROWSER" in error.value.next_step


Colour = tuple[int, ...]
Bytes = npt.NDArray[np.uint8]


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
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * channels)
    above = np.zeros((width, channels), np.uint8)
    codes = np.zeros((height, width), np.uint32)  # a colour as one number
    for y, row in enumerate(rows):
        above = unfiltered(int(row[0]), row[1:].reshape(width, channels), above)
        codes[y] = above[:, :3].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, times = np.unique(codes, return_counts=True)
    return Counter(
        {
            (code >> 16, code >> 8 & 255, code & 255): count
            for code, count in zip(found.tolist(), times.tolist(), strict=True)
        }
    )


def unfiltered(kind: int, line: Bytes, above: Bytes) -> Bytes:
    """A PNG row without its prediction (ISO/IEC 15948, 9.2); bytes wrap around."""
    if kind < 3:
        return [line, np.cumsum(line, 0, np.uint8), line + above][kind]
    out = []
    for given, upper in zip(line.T.tolist(), above.T.tolist(), strict=True):  # a channel
        left = corner = 0
        for at, up in enumerate(upper):
            if kind == 3:
                guess = (left + up) // 2
            else:
                to_left, to_up = abs(up - corner), abs(left - corner)
                to_corner = abs(left + up - 2 * corner)
                guess = left if to_left <= to_up and to_left <= to_corner else (
                    up if to_up <= to_corner else corner
                )  # fmt: skip
            left, corner = given[at] + guess & 255, up
            given[at] = left
        out.append(given)
    return np.array(out, np.uint8).T


@pytest.mark.parametrize("kind", range(5))
def test_a_row_of_a_picture_is_read_as_it_was_written(kind: int) -> None:
    made = np.random.default_rng(0).integers(0, 256, (2, 50, 3), dtype=np.uint8)
    above, line = made
    left, corner = (np.pad(x, ((1, 0), (0, 0)))[:-1].astype(int) for x in (line, above))
    paths = np.stack([left, above, corner])
    nearest = np.abs(left + above - corner - paths).argmin(0)  # the first of equal ones
    guess = [0, left, above, (left + above) // 2, np.take_along_axis(paths, nearest[None], 0)[0]]
    assert (unfiltered(kind, (line - guess[kind]).astype(np.uint8), above) == line).all()
