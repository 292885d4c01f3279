"""Speed, scaling and decoding: what is made of the answers, with processes that only pretend."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from holo_cli.bench.speed import decode, scaling, scaling_page, speed
from holo_cli.bench.speed.measurements import (
    MeasurementLog,
    Spread,
    baseline_of,
    error_bars,
    resolve_entries,
)
from holo_cli.bench.speed.model_process import ModelProcessError
from holo_cli.errors import DataError, UsageError
from tests.bench.fakes import pretend
from tests.visualize.test_page import Parsed


def microseconds(name: str, at: int) -> float:
    """vanilla: as T; holographic: flat, as vanilla at 512."""
    return {"vanilla": at, "holographic": 512}.get(name, 256) * 1e-6


# -- who is measured ------------------------------------------------------------------------------


def test_all_get_the_shape_of_the_baseline() -> None:
    lined_up = resolve_entries(["ngt", "vanilla"], ["deep=vanilla,layers=6,conv=4"], batch_size=3)
    shapes = {s.name: s.resolved for s in lined_up}
    assert list(shapes) == ["ngt", "vanilla", "deep"]
    for name in ("ngt", "vanilla"):
        model = shapes[name].model
        assert (model.layers, model.width, model.context, model.vocab_size) == (4, 128, 128, 1024)
    assert shapes["deep"].model.layers == 6
    assert {s.training.batch_size for s in shapes.values()} == {3}
    assert baseline_of(lined_up) == "vanilla"
    assert baseline_of(resolve_entries(["ngt"])) == "ngt"
    assert baseline_of(resolve_entries(["ngt"], ["v=vanilla"])) == "v"


def test_settings_of_all_stand_under_those_of_a_variant() -> None:
    lined_up = resolve_entries(
        ["vanilla"], ["b=vanilla,width=64"], sets=["model.width=32"], context=16
    )
    assert [s.resolved.model.width for s in lined_up] == [32, 64]
    assert lined_up[0].resolved.model.context == 16
    big = resolve_entries(["vanilla"], preset="25m")[0].resolved
    assert (big.model.layers, big.model.width, big.model.context) == (8, 512, 512)
    assert (big.model.vocab_size, big.training.batch_size) == (8192, 2)


@pytest.mark.parametrize(
    ("models", "variants", "message"),
    [
        (["vanila"], [], "no model 'vanila'"),
        (["vanilla", "vanilla"], [], "named twice"),
        (["vanilla"], ["a"], "NAME=MODEL"),
        (["vanilla"], ["a=vanilla,widht=3"], "widht"),
        (["vanilla"], ["a=vanilla,width=7"], "must be"),
        (["checkpoints/my-run_best.safetensors"], [], "is a file"),
    ],
)
def test_who_cannot_be_measured(models: list[str], variants: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_entries(models, variants)


def test_a_spread_is_median_least_and_most() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 9.0]) == Spread(2.5, 1.0, 9.0, 4)
    assert Spread.of([]) is None
    bars = error_bars([Spread(2.5, 1.0, 9.0, 4)], 2.0)
    assert (bars["array"], bars["arrayminus"]) == ([13.0], [3.0])


def test_rows_of_several_runs_lie_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "speed.jsonl"
    for run in ("one", "two"):
        MeasurementLog.open(path, "speed", run).add("training", "a", 0, seconds=1.5)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line.get("run") for line in lines] == [None, "one", "two"]
    with pytest.raises(DataError, match="not of decode"):
        MeasurementLog.open(path, "decode", "three")


# -- speed ----------------------------------------------------------------------------------------


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


# -- scaling --------------------------------------------------------------------------------------

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


# -- decoding -------------------------------------------------------------------------------------


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
