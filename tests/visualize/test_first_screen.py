"""Where the figures of a page are on a desktop's and a phone's screen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from holo_cli.models.views import Picture, Tokens
from holo_cli.visualize import make_page
from holo_cli.visualize.browser import find_browser
from holo_cli.visualize.page import picture_section, story, write_page
from holo_cli.visualize.tokens import with_tokens
from tests.serve.chromium import Chromium
from tests.visualize.conftest import MIXED
from tests.visualize.test_training import log, rows

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium, Chrome or Edge is installed"),
    pytest.mark.skipif(
        os.name == "nt" or not shutil.which("bash"), reason="the browser is driven over a pipe"
    ),
]
FITS = """() => [...document.querySelectorAll('.js-plotly-plot')].every(plot =>
  Math.abs(plot.clientHeight - plot.querySelector('.main-svg').clientHeight) < 2)"""
DRAWN = "document.querySelectorAll('.js-plotly-plot .main-svg').length > 2"
MEASURED = """(() => {
  const at = name => { const r = document.querySelector(name)?.getBoundingClientRect();
    return r && [r.top, r.bottom]; };
  return { plot: at('.js-plotly-plot'), see: at('.see'), legend: at('.legend'),
    height: document.documentElement.scrollHeight, wide: document.documentElement.scrollWidth };
})()"""


def test_the_first_figure_is_on_the_first_screen_and_six_runs_on_three(
    lab: Path, chromium: Chromium
) -> None:
    runs = [f"a-run-with-a-long-name-{n}" for n in range(6)]
    for run in runs:
        logged = rows(40)
        logged[-2]["sample"] = "옛날 옛적 어느 마을에 여우가 살았습니다. " * 20
        logged[-2]["measures"] = {f"layer{n}/silent": 0.5 for n in range(4)} | {"radius": 1.0}
        log(lab / "runs", run, logged)
    pages = {
        "attention": make_page("attention", text=MIXED)["page"],
        "training": make_page("training", runs=runs)["page"],
    }
    for what, page in pages.items():
        for size, phone in (((1280, 800), False), ((390, 844), True)):
            address = Path(page).resolve().as_uri()
            with chromium.tab(address, size=size, phone=phone, ready=DRAWN) as tab:
                found = tab.js(MEASURED)
                tab.look(size=(size[0], 600), dark=False, phone=phone)
                tab.until(f"({FITS})()")  # laid out again for another height
                assert tab.complaints == []
            where = f"{what} at {size}: {found}"
            assert 0 < found["see"][0] < found["see"][1] < found["plot"][0], where
            assert found["plot"][1] <= size[1], where
            assert found["wide"] <= size[0], where
            if what == "training":
                assert found["legend"][0] >= found["plot"][1], where  # off the axes
                assert found["legend"][1] > found["legend"][0], where
                assert found["height"] <= 3 * size[1], where


APART = """((all) => all.filter((a, i) => all.slice(i + 1).some(b =>
  Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
  Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4)).length)(
  [...document.querySelectorAll('.textpoint text')].filter(t => t.style.visibility !== 'hidden')
    .map(t => t.getBoundingClientRect()))"""


def test_under_a_long_sentence_the_figure_and_its_legend_fit_and_its_names_are_readable(
    tmp_path: Path, chromium: Chromium
) -> None:
    labels = [f"배 {at % 2 + 1}/2" if at > 28 else "word" for at in range(56)]
    bars = [
        {"type": "bar", "name": name, "x": list(range(56)), "y": [1.0] * 56, "tint": tint}
        for tint, name in enumerate(("layers passed", "prediction settled"))
    ]
    points = {
        "type": "scatter",
        "mode": "markers+text",
        "textposition": "top center",
        "x": [at % 7 / 50 for at in range(56)],
        "y": [at // 7 / 50 for at in range(56)],
        "text": [Tokens([at]) for at in range(56)],
    }
    far = {"type": "scatter", "mode": "markers", "x": [3.0], "y": [3.0]}
    long = "A sentence of what there is to see, which is as long as those of a model's memory. " * 3
    first = Picture(
        "Bars", "", {"a": bars}, {"yaxis": {}}, token_axes=("xaxis",), see=lambda _: long
    )
    second = Picture("Points", "", {"a": [points, far]})
    sections = [
        picture_section(with_tokens(part, labels), True, labels) for part in (first, second)
    ]
    page = tmp_path / "page.html"
    write_page(story("a-run: a title that takes two lines on a desktop and four on a phone, "
                     "what the memory writes and reads", [], sections), page)  # fmt: skip
    for size, phone in (((1200, 850), False), ((390, 844), True)):
        with chromium.tab(page.as_uri(), size=size, phone=phone, ready=DRAWN) as tab:
            tab.until(f"({FITS})()")
            found = tab.js(MEASURED)
            assert found["plot"][1] <= found["legend"][0] <= found["legend"][1] <= size[1], found
            font = "getComputedStyle(document.querySelector('.xtick text')).fontSize"
            assert float(tab.js(font).removesuffix("px")) >= 10
            assert tab.js("document.querySelectorAll('.textpoint text').length") == 56
            tab.until(f"{APART} === 0")


PLACED = """(() => {
  const plot = document.querySelector('.js-plotly-plot');
  const gl = plot._fullLayout.scene._scene, { model, view, projection } = gl.glplot.cameraParams;
  const four = [0, 1, 2, 3];
  const times = (m, v) => four.map(r => four.reduce((sum, c) => sum + m[4 * c + r] * v[c], 0));
  const scale = gl.dataScale, names = [];
  for (const trace of plot.data) (trace.text || []).forEach((text, i) => {
    if (!text) return;
    const place = [trace.x[i] * scale[0], trace.y[i] * scale[1], trace.z[i] * scale[2], 1];
    const [x, y, , w] = times(projection, times(view, times(model, place)));
    names.push([text, x / w * plot.clientWidth / 2, y / w * (plot.clientHeight - 30) / 2]);
  });
  return names;
})()"""


def test_names_of_tokens_in_space_leave_each_other_room(
    lab: Path, running_browsers: Callable[[bool], Chromium]
) -> None:
    text = (
        "the cat and the dog walked to the river. the river gave the cat a fish. 고양이가 걸었다."
    )
    page = Path(make_page("coords", text=text)["page"]).resolve().as_uri()
    drawn = "document.querySelector('.js-plotly-plot canvas')"
    with running_browsers(True).tab(page, ready=drawn) as tab:
        if not tab.js("document.querySelector('.js-plotly-plot').data.some(t => t.z)"):
            pytest.skip("this browser has no WebGL")
        tab.until("document.querySelector('.js-plotly-plot')._fullLayout.scene._scene?.glplot")
        names = tab.js(PLACED)
        tokens = tab.js("document.querySelector('.js-plotly-plot').data.flatMap(t => t.x).length")
        entries = tab.js("document.querySelector('.js-plotly-plot').data.map(t => t.name)")
    assert 5 < len(names) < tokens
    for at, (text, x, y) in enumerate(names):
        for other, across, up in names[at + 1 :]:
            # of Plotly's own projection, letters of 12 pixels with a margin for rounding
            room = 2.5 * (len(text) + len(other))
            assert abs(x - across) > room or abs(y - up) > 12, (text, other)
    assert {"English", "Korean"} <= set(entries)
