"""`holo bench controls` in its smallest form, with processes of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Holo
from tests.cli.test_bench_compare import prepared
from tests.forked_workers import forked_workers

__all__ = ["forked_workers", "prepared"]  # the fixtures


@pytest.mark.usefixtures("forked_workers", "prepared")
def test_whole_controls(holo: Holo) -> None:
    ran = holo("bench", "controls", "--preset", "tiny", "--dry-run")
    assert "16 runs to do" in ran.err
    assert not Path("bench").exists()
    ran = holo("bench", "controls", "--preset", "tiny", "--json", "--out", "page.html")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["placebo"]["campaigns"] == 3
    assert document["placebo"]["sd"] > 0  # other weights make another loss
    steady, slow = document["planted"]
    assert (steady["known_to"], slow["known_to"]) == ("help", "hurt")
    assert slow["effect"] > 0.1
    assert len(document["rows"]) == 16
    assert not Path("page.work").exists()
    again = holo("bench", "controls", "--preset", "tiny", "--report-only", "--out", "page.html")
    assert "0 runs to do" in again.err
    assert again.out.startswith("entry")
    Path("data").rename("away")  # a report needs the rows alone
    alone = holo("bench", "controls", "--preset", "tiny", "--report-only", "--out", "page.html")
    assert (alone.code, alone.out) == (0, again.out)


@pytest.mark.usefixtures("prepared")
def test_bad_input_is_told_in_a_sentence(holo: Holo) -> None:
    ran = holo("bench", "controls", "--preset", "tny")
    assert (ran.code, "no plan 'tny'" in ran.err) == (2, True)
    ran = holo("bench", "controls", "--preset", "tiny", "--campaigns", "9" * 20)
    assert (ran.code, "more than 10,000 pairs of runs" in ran.err) == (2, True)
    ran = holo("bench", "recall", "--preset", "tiny", "--seeds", "9" * 20)
    assert (ran.code, "at most 10,000" in ran.err) == (2, True)
    ran = holo("bench", "controls", "--preset", "tiny", "--campaigns", "0")
    assert (ran.code, "at least one campaign" in ran.err) == (2, True)
