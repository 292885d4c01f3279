"""Where the figures of a page are on a desktop's and a phone's screen."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from holo_cli.visualize import make_page
from holo_cli.visualize.browser import find_browser
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
    lab: Path, tmp_path: Path
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
    browser = Chromium(find_browser() or "", tmp_path / "profile")
    for what, page in pages.items():
        for size, phone in (((1280, 800), False), ((390, 844), True)):
            address = Path(page).resolve().as_uri()
            with browser.tab(address, size=size, phone=phone, ready=DRAWN) as tab:
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
    browser.close()
