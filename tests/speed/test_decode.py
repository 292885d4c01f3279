"""Decoding by position: what is made of the answers, with processes that only pretend."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from holo_cli.errors import UsageError
from holo_cli.speed import decode
from holo_cli.speed.measurements import (
    MeasurementLog,
    Spread,
    resolve_entries,
)
from tests.speed.fakes import microseconds, pretend
from tests.visualize.test_page import Parsed


def test_decode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, microseconds)
    subjects = resolve_entries(["vanilla", "holographic"])
    found = decode.measure(
        subjects, MeasurementLog("now"), positions=[16, 256], tokens=8, repeats=3
    )
    vanilla, holographic = found.figures
    assert vanilla.flatness() == Spread(*[pytest.approx(1 / 16)] * 3, 3)
    assert holographic.flatness() == Spread(*[pytest.approx(1.0)] * 3, 3)
    rows = {(row["name"], row["position"]): row for row in found.rows()}
    assert rows["vanilla", 256]["state_bytes"] == 8 * 256
    nbytes = 4000 + 8 * 256
    assert rows["vanilla", 256]["bytes_per_token"] == nbytes
    share = rows["vanilla", 256]["bandwidth_share"]["median"]
    assert share == pytest.approx(1e6 / 256 * nbytes / 8e6)
    said = " ".join(decode.findings(found))
    flat = "that is 100% (100% to 100% by round) of its speed at 16, and its state does not grow"
    assert flat in said
    assert "its state grows 16.0-fold" in said
    assert "0.50 (0.50 to 0.50 by round) times as fast as vanilla" in said
    assert math.isclose(found.memory["copy"].median, 4e6)
    path = tmp_path / "page.html"
    decode.report(found).write(path)
    assert len(Parsed(path.read_text(encoding="utf-8")).data) == 2


def test_positions_and_models_are_compared_within_a_round(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine that is slow in one round changes no ratio, by the clock or by processor time."""
    # seconds a token by round: vanilla falls to 1, 1/2, 1/4 of its speed; ngt is 2, 4, 8 as fast
    times = {
        ("vanilla", 16): [1.0, 10.0, 3.0], ("vanilla", 64): [1.0, 20.0, 12.0],
        ("ngt", 16): [0.5, 5.0, 1.5], ("ngt", 64): [0.5, 5.0, 1.5],
    }  # fmt: skip
    asked: dict[tuple[str, int], int] = {}

    def seconds(name: str, at: int) -> float:
        number = asked[name, at] = asked.get((name, at), -1) + 1
        return times[name, at][number]

    pretend(monkeypatch, seconds)
    found = decode.measure(
        resolve_entries(["vanilla", "ngt"]), MeasurementLog("now"), positions=[16, 64], repeats=3
    )
    vanilla, ngt = found.figures
    for clock in ("seconds", "cpu_seconds"):
        assert vanilla.flatness(clock) == Spread(0.5, 0.25, 1.0, 3)  # of the medians: 3 / 12
        assert ngt.ratio(vanilla, 64, clock) == Spread(4.0, 2.0, 8.0, 3)  # 12 / 1.5 is not
    last = found.rows()[-1]
    assert last["ratio"] == last["cpu_ratio"] == Spread(4.0, 2.0, 8.0, 3).to_dict()
    assert last["flatness"] == last["cpu_flatness"] == Spread(1.0, 1.0, 1.0, 3).to_dict()
    said = " ".join(decode.findings(found))
    assert "that is 50% (25% to 100% by round) of its speed at 16" in said
    assert "4.00 (2.00 to 8.00 by round) times as fast as vanilla" in said
    columns, cells = decode.table(found)
    assert len(columns) == len(cells[1])
    assert columns[-1] == "against vanilla"
    assert (cells[0][3], cells[1][-1]) == ("0.50x (0.25 to 1.00)", "4.00x (2.00 to 8.00)")
    assert decode.by_processor(found)[1] == [
        ["vanilla", "0.50x (0.25 to 1.00)", "1.00x (1.00 to 1.00)"],
        ["ngt", "1.00x (1.00 to 1.00)", "4.00x (2.00 to 8.00)"],
    ]
    assert "had a processor 50% of the time" in decode.busy_note(found)
    path = tmp_path / "page.html"
    decode.report(found).write(path)
    assert "had a processor 50% of the time" in path.read_text(encoding="utf-8")


def test_decoding_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    play = pretend(monkeypatch, microseconds)
    play.broken["ngt"] = 0
    found = decode.measure(
        resolve_entries(["vanilla", "ngt"]), MeasurementLog("now"), positions=[16, 64], repeats=1
    )
    ngt = [row for row in found.rows() if row["name"] == "ngt"]
    assert [row["status"] for row in ngt] == ["failed"] * 2
    assert "ngt failed: it broke." in decode.findings(found)
    assert decode.table(found)[1][1][1] == "failed"
    with pytest.raises(UsageError, match="Positions start at 1"):
        decode.measure(resolve_entries(["vanilla"]), MeasurementLog("now"), positions=[0, 4])
