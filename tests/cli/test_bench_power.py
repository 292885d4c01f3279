"""`holo bench compare --power`: from the rows of a page, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.compare.test_power import write
from tests.cli.conftest import Holo
from tests.cli.test_bench_compare import prepared

__all__ = ["prepared"]  # a fixture


@pytest.mark.usefixtures("prepared")
def test_seeds_are_planned_from_the_rows_of_another_page(holo: Holo) -> None:
    write(Path("page.html"), {"vanilla": [3.0, 4.0, 5.0], "ngt": [3.0, 4.02, 5.04]})
    asked = ("bench", "compare", "--preset", "tiny", "--models", "vanilla,ngt")
    ran = holo(*asked, "--power", "0.02", "--power-from", "page.html", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["power"]["seeds"] == 10
    assert "needs 10 seeds" in holo(*asked, "--power", "0.02", "--out", "page.html").out
    assert not Path("bench").exists()
    ran = holo(*asked, "--power", "0.02")
    assert ran.code == 1
    assert "--seeds 3 first" in ran.err
    assert holo(*asked, "--power-from", "page.html").code == 2
    assert holo(*asked, "--power", "-1").code == 2
