"""The report: its numbers are in tables as they are on the plots, and a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from holo_cli.visualize.browser import Visit, find_browser
from holo_cli.visualize.report import Report
from tests.visualize.test_browser import complaints, drawn, words
from tests.visualize.test_page import NASTY, Parsed

MACHINE = {
    "cpu": "Some Processor",
    "cores": 2,
    "gflops_float32": 202,
    "versions": {"torch": "2.13.0", "holo": "0.1.0"},
    "date": "2026-11-22T08:00:00+00:00",
    "command": "holo bench speed",
}


def example(name: str = "홀로그램") -> Report:
    report = Report("Speed of 2 models", "What was asked.\n\nHow to read it.", MACHINE)
    report.prose("vanilla is faster.\n\n- at 64 tokens\n- at 128 tokens", title="In short")
    report.table(
        "Training",
        ["Model", "Tokens/s", "Ratio", "State"],
        [["vanilla", 12345.678, 1.0, None], [name, 6172.0, float("nan"), "failed: no memory"]],
        note="Medians of 5.",
    )
    lengths = [64, 128, 256]
    report.plot(
        "Time per token",
        [
            {
                "name": "vanilla",
                "x": lengths,
                "y": [1.23456, 2.5, float("inf")],
                "error_y": {"type": "data", "array": [0.5, 0.25, 0.125], "arrayminus": [1, 2, 3]},
            },
            {"name": name, "x": lengths, "y": [3.0, 3.1, 3.2], "text": ["a", "b", "한글"]},
        ],
        {
            "xaxis": {"type": "log", "title": {"text": "Context, tokens"}},
            "yaxis": {"type": "log", "title": {"text": "Microseconds"}},
        },
    )
    report.plot("Memory", [{"name": name, "type": "bar", "x": ["a"], "y": [7]}], {})
    return report


def parsed(report: Report, folder: Path) -> Parsed:
    path = folder / "report.html"
    size = report.write(path)
    assert size == path.stat().st_size < 6_000_000
    return Parsed(path.read_text(encoding="utf-8"))


def test_every_number_of_a_plot_is_in_a_table(tmp_path: Path) -> None:
    cells = parsed(example(), tmp_path).cells
    at = cells.index("64")
    assert cells[at : at + 12] == [
        "64", "1.235", "1", "0.5", "128", "2.5", "2", "0.25", "256", "–", "3", "0.125",
    ]  # fmt: skip
    at += 12
    assert cells[at : at + 9] == ["64", "3", "a", "128", "3.1", "b", "256", "3.2", "한글"]
    assert cells[at + 9 : at + 11] == ["a", "7"]


@pytest.mark.parametrize(
    ("most", "dtick"), [(9.0, None), (20.0, "D2"), (1000.0, "D2"), (1001.0, 1)]
)
def test_logarithmic_axes_have_few_marks(
    tmp_path: Path, most: float, dtick: str | int | None
) -> None:
    report = Report("t", "", MACHINE)
    log = {"type": "log", "title": {"text": "bytes"}}
    traces = [
        {"name": "a", "x": [1.0, 2.0], "y": [0.0, 1.0]},
        {"name": "b", "x": [3.0], "y": [most]},
    ]
    report.plot("State", traces, {"xaxis": {"type": "log", "dtick": 0.3}, "yaxis": log})
    (figure,) = parsed(report, tmp_path).data
    layout = figure["layout"]
    assert layout["xaxis"]["dtick"] == 0.3  # type: ignore[index, call-overload]
    assert layout["yaxis"].get("dtick") == dtick  # type: ignore[index, call-overload]
    # a mark says its whole value: 20k, not 2
    assert layout["yaxis"]["tickformat"] == "~s"  # type: ignore[index, call-overload]


def test_tables_say_what_is_missing_and_where_it_was_measured(tmp_path: Path) -> None:
    cells = parsed(example(), tmp_path).cells
    assert cells[:8] == [
        "vanilla", "12,350", "1", "–", "홀로그램", "6172", "not finite", "failed: no memory",
    ]  # fmt: skip
    at = cells.index("Processor")
    assert cells[at:] == [
        "Processor", "Some Processor", "Cores", "2", "Products in float32, GFLOP/s", "202",
        "Versions", "torch 2.13.0, holo 0.1.0", "Command", "holo bench speed",
    ]  # fmt: skip


def test_a_series_looks_the_same_on_every_plot(tmp_path: Path) -> None:
    first, second = parsed(example(), tmp_path).data
    (one,) = first["variants"].values()  # type: ignore[index, call-overload]
    (two,) = second["variants"].values()  # type: ignore[index, call-overload]
    assert [trace["tint"] for trace in one] == [0, 1]
    assert one[0]["marker"]["symbol"] != one[1]["marker"]["symbol"]
    assert one[0]["line"]["dash"] != one[1]["line"]["dash"]
    assert two[0]["tint"] == 1
    assert one[0]["y"] == [1.235, 2.5, None]


def test_text_of_anybody_stays_text(tmp_path: Path) -> None:
    report = Report(NASTY, NASTY, {"cpu": NASTY})
    report.prose(f"{NASTY}\n\n- {NASTY}")
    report.table(NASTY, [NASTY], [[NASTY]], NASTY)
    report.plot(NASTY, [{"name": NASTY, "x": [NASTY], "y": [1]}], {"xaxis": {"title": NASTY}})
    page = parsed(report, tmp_path)
    assert page.tags.count("b") == 0
    assert len(page.scripts) == 4
    assert page.cells == [NASTY, NASTY, "1", "Processor", NASTY]
    assert page.loads == ["data:,"]


def test_a_report_of_tables_alone_carries_no_plotly(tmp_path: Path) -> None:
    report = Report("t", "i", {})
    report.table("c", ["a"], [[1]])
    page = parsed(report, tmp_path)
    assert page.tags.count("table") == 1
    assert len(page.scripts) == 2


@pytest.mark.browser
@pytest.mark.skipif(find_browser() is None, reason="no Chromium, Chrome or Edge is installed")
class TestInBrowser:
    @pytest.mark.parametrize("dark", [False, True])
    def test_nothing_complains_and_all_is_there(
        self, tmp_path: Path, dark: bool, visit: Callable[..., Visit]
    ) -> None:
        path = tmp_path / "report.html"
        example().write(path)
        seen = visit(path, dark=dark, size=(420, 900) if dark else (1200, 900))
        assert complaints(seen.console) == []
        dom = drawn(seen.dom)
        assert dom.count("js-plotly-plot") == 2
        assert re.findall(r'aria-pressed="true"><svg.*?</svg>([^<]*)</button>', dom) == [
            "vanilla", "홀로그램",
        ]  # fmt: skip
        text = words(seen.dom)
        for part in ("How to read it.", "at 128 tokens", "홀로그램", "failed: no memory", "12,350"):
            assert part in text

    def test_it_prints(self, tmp_path: Path) -> None:
        """The browser's own printing: pages come out, with the plots on them."""
        path, pdf = tmp_path / "report.html", tmp_path / "report.pdf"
        example().write(path)
        browser = find_browser()
        assert browser is not None
        subprocess.run(
            [
                browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--virtual-time-budget=3000", "--force-prefers-reduced-motion",
                f"--user-data-dir={tmp_path / 'profile'}", "--no-pdf-header-footer",
                f"--print-to-pdf={pdf}", path.as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        assert pdf.read_bytes().startswith(b"%PDF")
        shutil.rmtree(tmp_path / "profile", ignore_errors=True)
