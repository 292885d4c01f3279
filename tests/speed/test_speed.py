"""Speed: what is made of the answers, with processes that only pretend."""

from __future__ import annotations

from pathlib import Path

import pytest

from holo_cli.errors import UsageError
from holo_cli.speed import speed
from holo_cli.speed.measurements import (
    MeasurementLog,
    resolve_entries,
)
from tests.speed.fakes import microseconds, pretend
from tests.visualize.test_page import Parsed


def test_speed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    play = pretend(monkeypatch, microseconds)
    subjects = resolve_entries(["vanilla", "holographic", "ngt"])
    log = MeasurementLog.open(tmp_path / "rows.jsonl", "speed", "now")
    found = speed.measure(subjects, log, repeats=3, tokens=8)
    vanilla, holographic, ngt = found.rows()
    training = holographic["training"]
    assert training["tokens_per_second"]["median"] == pytest.approx(1e6 / 512)
    assert training["tokens_per_second"]["count"] == 3
    assert training["ratio"]["median"] == pytest.approx(128 / 512)
    assert training["cpu_ratio"]["median"] == pytest.approx(128 / 512)
    assert training["optimizer_share"]["median"] == pytest.approx(0.1)
    assert training["gflops"] == pytest.approx(6000 * 1e6 / 512 / 1e9)
    assert training["product_share"] == pytest.approx(training["gflops"] / 2.0)
    assert (training["first_step_seconds"], training["build_seconds"]) == (0.25, 0.5)
    assert vanilla["training"]["ratio"]["median"] == 1.0
    assert ngt["training"]["peak_bytes"] == 5_000_000 + 100 * 8 * 128
    # decoding begins in the middle of the context
    assert vanilla["decoding"]["tokens_per_second"]["median"] == pytest.approx(1e6 / 64)
    assert vanilla["decoding"]["state_bytes"] == 8 * 64
    assert [row["status"] for row in found.rows()] == ["measured"] * 3
    said = " ".join(speed.findings(found))
    assert "holographic trains slower than vanilla: 0.25x (0.25 to 0.25)." in said
    assert "vanilla uses the least memory" in said
    assert play.alive == 0
    # in turn, in an order that turns: nobody always follows the same neighbour
    asked = [name for name, call in play.asked if call == "measure"][:9]
    assert asked == [
        "vanilla", "holographic", "ngt", "holographic", "ngt", "vanilla", "ngt", "vanilla",
        "holographic",
    ]  # fmt: skip
    phases = [row["phase"] for row in log.rows]
    assert (phases.count("training"), phases.count("machine")) == (3 + 9, 3)


def test_writing_has_room_behind_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the shortest context; by default as many tokens as it holds, and never fewer than asked
    for in silence."""
    pretend(monkeypatch, microseconds)

    def written(context: int, tokens: int | None) -> int:
        subjects = resolve_entries(["vanilla"], [f"b=vanilla,context={context}"])
        log = MeasurementLog("now")
        speed.measure(subjects, log, repeats=1, tokens=tokens)
        (count,) = {
            row["tokens"] for row in log.rows if row.get("phase") == "decoding" and "steps" in row
        }
        return int(count)

    assert [written(*case) for case in ((128, None), (32, None), (5, None), (33, 15))] == [
        32, 14, 1, 15,
    ]  # fmt: skip
    for case, message in (((4, None), "no room"), ((2, 1), "no room"), ((32, 15), "for 14 tokens")):
        with pytest.raises(UsageError, match=message):
            written(*case)


def test_a_model_that_fails_in_the_middle_has_a_row_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    play = pretend(monkeypatch, microseconds)
    play.broken["ngt"] = 0
    log = MeasurementLog("now")
    found = speed.measure(resolve_entries(["vanilla", "ngt"]), log, repeats=2)
    vanilla, ngt = found.rows()
    assert vanilla["training"]["tokens_per_second"]["count"] == 2
    assert (ngt["status"], ngt["training"], ngt["failed"]["training"]) == (
        "failed", None, "it broke",
    )  # fmt: skip
    assert [name for name, call in play.asked if call == "measure"].count("ngt") == 2  # one a phase
    columns, rows = speed.table(found)
    assert rows[1][2] == "failed: it broke"
    assert all(len(row) == len(columns) for row in rows)
    path = tmp_path / "page.html"
    speed.report(found).write(path)
    cells = Parsed(path.read_text(encoding="utf-8")).cells
    assert "failed: it broke" in cells
    assert any(row.get("failed") == "it broke" for row in log.rows)


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, microseconds)  # answers with half the processor time
    found = speed.measure(resolve_entries(["vanilla", "ngt"]), MeasurementLog("now"), repeats=1)
    assert "50% of the time" in speed.busy_note(found)
    assert any("one round has no spread" in sentence for sentence in speed.findings(found))
