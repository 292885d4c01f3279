"""Scaling with the context: what is made of the answers, with processes that only pretend."""

from __future__ import annotations

from pathlib import Path

import pytest

from holo_cli.errors import UsageError
from holo_cli.speed import scaling, scaling_page
from holo_cli.speed.measurements import (
    MeasurementLog,
    Spread,
    resolve_entries,
)
from holo_cli.speed.model_process import ModelProcessError
from tests.speed.fakes import microseconds, pretend
from tests.visualize.test_page import Parsed

LENGTHS = [64, 128, 256, 1024, 2048]


def test_scaling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, microseconds)
    log = MeasurementLog("now")
    found = scaling.measure(
        resolve_entries(["vanilla", "holographic"]), log, lengths=LENGTHS, repeats=2
    )
    vanilla, holographic = found.growths
    assert scaling.exponent(vanilla.medians()) == pytest.approx(1.0)
    assert scaling.exponent(holographic.medians()) == pytest.approx(0.0, abs=1e-9)
    (crossing,) = found.crossings()
    assert (crossing["faster"], crossing["slower"]) == ("holographic", "vanilla")
    assert crossing["length"] == pytest.approx(512, abs=1)
    assert [vanilla.rows(n) for n in LENGTHS] == [32, 16, 8, 2, 1]  # as many tokens in all
    assert vanilla.memory(64) == pytest.approx(100)
    said = scaling_page.findings(found)
    assert any("32.00 times as long at 2,048 as at 64" in sentence for sentence in said)
    assert any("holographic is the faster of the two beyond about 512" in s for s in said)
    columns, rows = scaling_page.table(found)
    assert rows[0][0] == "vanilla"
    assert rows[0][-4:] == ["32.00x (32.00 to 32.00)"] * 2 + ["1.00", "1.00"]
    assert len(columns) == len(rows[0])
    path = tmp_path / "page.html"
    scaling_page.report(found).write(path)
    page = Parsed(path.read_text(encoding="utf-8"))
    assert "2048" in page.cells
    assert len(page.data) == 2  # time and memory


def test_a_model_that_failed_is_not_tried_at_longer_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = pretend(monkeypatch, microseconds)
    play.broken["vanilla"] = 256
    found = scaling.measure(
        resolve_entries(["vanilla", "ngt"]), MeasurementLog("now"), lengths=LENGTHS, repeats=2
    )
    rows = {
        row["length"]: row for row in found.rows() if row["name"] == "vanilla" and "length" in row
    }
    assert [rows[n]["status"] for n in LENGTHS] == [
        "measured", "measured", "failed", "not run", "not run",
    ]  # fmt: skip
    assert rows[1024]["reason"] == "failed at 256 tokens already"
    ngt = [r for r in found.rows() if r["name"] == "ngt" and "length" in r]
    assert {r["status"] for r in ngt} == {"measured"}
    assert any("vanilla failed at 256 tokens: it broke" in s for s in scaling_page.findings(found))
    assert scaling_page.table(found)[1][0][3:6] == ["failed", "not run", "not run"]


def test_lengths_are_compared_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is slow in one round does not become growth."""
    times = {16: [1.0, 10.0, 3.0], 64: [1.0, 20.0, 12.0]}  # rounds grow 1, 2 and 4 times
    order: list[int] = []

    def seconds(name: str, at: int) -> float:
        order.append(at)
        return times[at][order.count(at) - 1]

    pretend(monkeypatch, seconds)
    found = scaling.measure(
        resolve_entries(["vanilla"]), MeasurementLog("now"), lengths=[16, 64], repeats=3
    )
    assert order == [16, 64, 64, 16, 16, 64]  # up, down, up: drift falls on both sides
    assert found.growths[0].growth() == Spread(2.0, 1.0, 4.0, 3)  # 12 / 3 of the medians is not
    last = found.rows()[-1]
    assert last["growth"] == last["cpu_growth"] == Spread(2.0, 1.0, 4.0, 3).to_dict()
    assert any("2.00 times as long at 64 as at 16 tokens, 1.00 to 4.00 by round" in said
               for said in scaling_page.findings(found))  # fmt: skip


def test_a_length_that_fails_in_a_later_round_counts_as_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def seconds(name: str, at: int) -> float:
        tried.append(at)
        if at == 128 and tried.count(128) == 2:
            play.broken["vanilla"] = 128
            raise ModelProcessError("it broke late")
        return 1e-6

    play = pretend(monkeypatch, seconds)
    found = scaling.measure(
        resolve_entries(["vanilla"]), MeasurementLog("now"), lengths=[64, 128, 256], repeats=3
    )
    assert tried == [64, 128, 256, 256, 128, 64, 64]
    rows = {row["length"]: row for row in found.rows() if "length" in row}
    assert rows[128]["status"] == "failed"
    assert "it broke late" in rows[128]["reason"]
    assert rows[64]["seconds_per_token"]["count"] == 3
    assert found.rows()[-1]["status"] == "failed"


def test_curves_within_the_noise_do_not_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"holographic": 0}

    def seconds(name: str, at: int) -> float:
        if name == "vanilla":
            return 1e-6
        calls[name] += 1
        return (0.9 if calls[name] % 2 else 1.1) * 1e-6  # now faster, now slower

    pretend(monkeypatch, seconds)
    found = scaling.measure(
        resolve_entries(["vanilla", "holographic"]),
        MeasurementLog("now"),
        lengths=[64, 128, 256],
        repeats=4,
    )
    assert found.crossings() == []
    said = scaling_page.findings(found)
    assert "holographic and vanilla are about as fast at every length measured." in said


def test_faster_at_some_lengths_is_not_faster_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = {"holographic": 0}

    def seconds(name: str, at: int) -> float:
        if name == "vanilla":
            return 2e-6
        if at > 64:
            return 1e-6
        rounds[name] += 1
        return (1.9 if rounds[name] % 2 else 2.1) * 1e-6

    pretend(monkeypatch, seconds)
    found = scaling.measure(
        resolve_entries(["vanilla", "holographic"]),
        MeasurementLog("now"),
        lengths=[64, 128, 256],
        repeats=2,
    )
    (sentence,) = (s for s in scaling_page.findings(found) if "is faster than vanilla" in s)
    assert sentence.startswith("holographic is faster than vanilla at 128 and 256 tokens;")
    assert sentence.endswith("At 256 tokens it is 2.00 times as fast (2.00 to 2.00).")


def test_where_curves_cross() -> None:
    assert scaling.crossings({1: 1.0, 4: 4.0}, {1: 2.0, 4: 2.0}) == [(pytest.approx(2.0), False)]
    # y = x meets y = 2 a third of the way from 1 to 8, on logarithmic axes
    assert scaling.crossings({1: 2.0, 8: 2.0}, {1: 1.0, 8: 8.0}) == [(pytest.approx(2.0), True)]
    assert scaling.crossings({1: 1.0, 2: 2.0}, {1: 3.0, 2: 4.0}) == []
    assert scaling.crossings({1: 1.0}, {2: 2.0}) == []
    assert scaling.exponent({3: 1.0}) is None
    assert scaling.exponent({1: 5.0, 10: 5.0 * 10**1.5}) == pytest.approx(1.5)


@pytest.mark.parametrize("lengths", [[128], [], [1, 64], [64, 64]])
def test_lengths_that_make_no_curve(lengths: list[int]) -> None:
    with pytest.raises(UsageError, match="two lengths"):
        scaling.measure(resolve_entries(["vanilla"]), MeasurementLog("now"), lengths=lengths)
