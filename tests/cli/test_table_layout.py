"""Tables that fit 80 columns: no line is longer, and no number is cut or lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holo_cli.bench.compare import summary as compare_summary
from holo_cli.bench.compare.summary import EntryResult, Summary
from holo_cli.cli.output import Output, count, size
from holo_cli.cli.table_layout import WIDTH, lines, parts, shown
from holo_cli.experiment.significance import Difference
from holo_cli.speed import decode, scaling, scaling_page, speed
from holo_cli.speed.measurements import MeasurementLog, resolve_entries
from tests.speed.fakes import pretend

Table = tuple[list[str], list[list[str]]]
NUMBER = re.compile(r"[-+x]?\d[\d,.]*%?")


def written(columns: list[str], rows: list[list[str]]) -> list[str]:
    return [line for part in parts(columns, rows) for line in lines(part)]


def check(columns: list[str], rows: list[list[str]]) -> list[str]:
    """The lines, held to the width; every number of every cell stands whole somewhere."""
    found = written(columns, rows)
    assert max(map(shown, found)) <= WIDTH, "\n".join(found)
    numbers = [number for line in found for number in NUMBER.findall(line)]
    for row in rows:
        for cell in row[1:]:
            for number in NUMBER.findall(cell):
                assert number in numbers, (cell, found)
    return found


def compared() -> Summary:
    """The widest that a comparison gets: long names, every verdict, failures, three seeds."""
    rows = [
        {"seed": seed, "tokens": 512_000_000, "train_seconds": 12345.6, "eval_seconds": 1.0,
         "tokens_per_second": 41_472.3, "peak_rss_bytes": 12_345_678_901}
        for seed in (1, 2, 3)
    ]  # fmt: skip
    names = ("vanilla", "brain-v1-kwta-dense-start", "holographic-blend", "ngt", "failing")
    made = [
        EntryResult(
            name, name, "failed in 2 of 3 seeds" if name == "failing" else "done", 2.8284,
            [13.9451, 13.9302, 13.9543], [12.4051, 12.3902, 12.4143], 99_912_345, 32_812_345,
            131_072_000, {}, matched=name != "ngt", rows=rows,
        )
        for name in names
    ]  # fmt: skip
    differences = [
        Difference("brain-v1-kwta-dense-start", "vanilla", -0.1234, 0.0567, 0.3, 3),
        Difference("holographic-blend", "vanilla", 10.1234, 10.0567, 0.01, 3, 0.2),
        Difference("ngt", "vanilla", -0.0834, 0.0067, 0.001, 3, 0.001),
    ]
    return Summary("vanilla", made, differences)


def listed(table: object) -> Table:
    columns, rows = table  # type: ignore[misc]
    return list(columns), [list(map(str, row)) for row in rows]


def test_a_comparison_fits(capsys: pytest.CaptureFixture[str]) -> None:
    summary = compared()
    results = check(*listed(compare_summary.table(summary)))
    assert results[0].split()[0] == "model"
    assert sum(line.startswith("vanilla") for line in results) == 1  # one table holds the result
    for words in ("+10.1234 ± 10.0567", "better", "13.9432", "0.0122"):
        assert any(words in line for line in results), words
    costs = check(*listed(compare_summary.costs(summary, count, size)))
    assert any("99.9M*" in line for line in costs)
    assert sum("*" in line for line in costs) == 1
    out = Output()
    for table in (compare_summary.table(summary), compare_summary.costs(summary, count, size)):
        out.table(*listed(table), WIDTH)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= WIDTH


def test_the_measuring_benches_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, lambda name, at: 1e-6 * at)
    models = ["vanilla", "holographic", "ngt", "brain-v1", "brain-v2"]
    variants = ["holographic-blend=holographic,blend=true"]
    subjects = resolve_entries(models, variants)
    check(*listed(speed.table(speed.measure(subjects, MeasurementLog("now"), repeats=2))))
    lengths = [128, 256, 512, 1024, 2048, 4096, 8192]
    grown = scaling.measure(subjects, MeasurementLog("now"), lengths=lengths, repeats=2)
    check(*listed(scaling_page.table(grown)))
    positions = [16, 64, 256, 1024, 4096, 16384]
    decoded = decode.measure(subjects, MeasurementLog("now"), positions=positions, repeats=2)
    check(*listed(decode.table(decoded)))


def test_a_task_with_many_cases_fits() -> None:
    cases = [f"{length}/{items}*" for length in (64, 128, 256, 512, 1024) for items in (4, 8, 16)]
    columns = ["model", "parameters", *cases, "state at 1024", "remarks"]
    why = "failed in 1 of 3 seeds: its process was ended by signal 9 (out of memory?)"
    row = ["sliding-window-128", "1.01M", *["100.0 %"] * 15, "1.31 MB", why]
    found = check(columns, [row, row])
    for case in cases:
        assert sum(case in line for line in found) == 1
    assert sum(line.startswith("sliding-window-128") for line in found) > 2


def test_what_fits_is_left_as_it_is() -> None:
    assert written(["name", "n"], [["a", "1"], ["longer [red]", "22"]]) == [
        "name          n", "a             1", "longer [red]  22",
    ]  # fmt: skip


def test_wide_letters_count_twice() -> None:
    found = written(["이름", "설명"], [["홀로그래픽", "무엇이 잘못되었는지 " * 10]])
    assert max(map(shown, found)) <= WIDTH
    assert shown("홀a") == 3
