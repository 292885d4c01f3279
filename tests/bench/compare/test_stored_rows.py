"""Rows that were committed stay readable: every table in docs/results comes from them again."""

from __future__ import annotations

import functools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holo_cli import registry
from holo_cli.bench.compare.run import rates_for
from holo_cli.bench.compare.summary import summarise, table
from holo_cli.errors import UsageError
from holo_cli.experiment.entries import identity_of_row
from holo_cli.experiment.experiment import Experiment
from holo_cli.experiment.plan import Plan, named_plan
from holo_cli.experiment.result_log import ResultLog
from holo_cli.experiment.stored_text import StoredText

RESULTS = Path(__file__).parents[3] / "docs" / "results"
FILES = sorted((RESULTS / "rows").rglob("*.jsonl"))


@functools.cache  # twelve tests read each file
def rows_of(path: Path) -> list[dict[str, Any]]:
    head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return rows if head.get("bench") == "compare" else []


COMPARED = [path for path in FILES if rows_of(path)]


def report(path: Path, plan: Plan) -> dict[str, tuple[str, ...]]:
    """The cells of the printed table, by entry."""
    data = StoredText.of_row(rows_of(path)[0])
    assert data is not None
    summary = summarise(Experiment(plan, data, ResultLog(path, "compare")))
    _, lines = table(summary)
    return {line[0]: tuple(line) for line in lines}


def committed(page: str) -> list[list[str]]:
    """Cells of every table row in a results page."""
    text = (RESULTS / page).read_text(encoding="utf-8")
    return [
        [c.strip() for c in line.strip("|").split("|")]
        for line in re.findall(r"^\|.*\|$", text, re.M)
    ]


@pytest.mark.parametrize("path", COMPARED, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_the_settings_of_every_row_can_be_read(path: Path) -> None:
    for row in rows_of(path):
        if "forgotten" not in row and not uses_removed_key(row):
            assert identity_of_row(row, "") is not None, row["key"]


@pytest.mark.parametrize("path", COMPARED, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_no_row_hides_that_of_another_entry(path: Path) -> None:
    """The newest row of a key stands for all of them: right for a run that was repeated, and not
    where a default changed in between and two entries came to share a key."""
    entries: dict[str, str] = {}
    for row in rows_of(path):
        assert entries.setdefault(row["key"], row["entry"]) == row["entry"]


def uses_removed_key(row: dict[str, Any]) -> bool:
    """Whether a row is of a form that was removed since: a result to keep, not one to repeat."""
    return bool(registry.config_class(row["model"]).removed_in(row["config"]["model"]))


@pytest.mark.parametrize(
    ("path", "entries"),
    [
        ("images-patterns.jsonl", {"hrr-2d", "hrr-3d"}),
        ("2026-11-22/1m-docs.jsonl", {"brain-v1-kwta-dense-start"}),
    ],
)
def test_rows_of_removed_forms_are_kept_and_stand_for_no_other_run(
    path: str, entries: set[str]
) -> None:
    gone = [row for row in rows_of(RESULTS / "rows" / path) if uses_removed_key(row)]
    assert {row["entry"] for row in gone} == entries
    assert all(identity_of_row(row, "") is None for row in gone)


def test_the_table_of_images_is_printed_again_without_the_forms_that_were_removed() -> None:
    path = RESULTS / "rows" / "images-patterns.jsonl"
    means = {line[0]: line[3] for line in committed("images.md") if len(line) == 4}
    forms = {
        "vanilla": "attention (`vanilla`)",
        "ngt-mass-in-weight": "gravity, mass in the weight (`ngt-mass-in-weight`)",
        "hrr": "circular convolution, a line (`hrr`, `1d`)",
        "phasor": "phasors: one plate of learned phases",
    }
    printed = report(path, named_plan("images").select(list(forms)))
    assert printed.keys() == forms.keys()
    for name, form in forms.items():
        assert f"{float(printed[name][2]):.3f}" == means[form]


@pytest.mark.parametrize(
    ("rows", "plan", "base"),
    [
        ("2026-11-22/1m-docs.jsonl", "1m-bpe", {"model.query_gain": False}),
        ("2026-11-22/1m-shakespeare.jsonl", "1m", {"model.query_gain": False}),
    ],
)
def test_the_superseded_tables_are_printed_again(
    rows: str, plan: str, base: dict[str, Any]
) -> None:
    names = [
        "vanilla",
        "textbook",
        "holographic-1-plate",
        "holographic-blend",
        "ngt-mass-in-weight",
        "brain-v1",
        "brain-v2-added",
    ]
    values = {"data": "stored", "sweep_share": 0.5}
    chosen = named_plan(plan).select(names).changed(values, base)
    printed = report(RESULTS / "rows" / rows, chosen)
    for name in names:
        _, bits, nats, spread, difference, verdict = printed[name]
        same = [line for line in committed("models-2026-11-22.md") if line[0] == name]
        assert any(
            line[5].startswith(f"{bits} (sd") and line[6] == f"{nats} (sd {spread})"
            and line[7:9] == [difference, verdict]
            for line in same
        ), (printed[name], same)  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "plan"), [("1m-docs.jsonl", "1m-bpe"), ("1m-shakespeare.jsonl", "1m")]
)
def test_todays_tables_are_printed_again(rows: str, plan: str) -> None:
    names = [
        "vanilla",
        "ngt-mass-in-weight",
        "brain-v2-added",
        "holographic",
        "holographic-1-plate",
    ]
    names += ["gated-deltanet"]
    names += ["mamba-2", "sliding-window", "mamba-3"] + (
        ["rwkv7", "gla"] if plan == "1m-bpe" else []
    )
    printed = report(RESULTS / "rows" / rows, named_plan(plan).select(names))
    lines = committed("models.md")
    for name in names:
        assert list(printed[name]) in lines


@pytest.mark.parametrize(
    ("rows", "plan"), [("1m-docs.jsonl", "1m-bpe"), ("1m-shakespeare.jsonl", "1m")]
)
def test_the_tables_of_fresh_seeds_are_printed_again(rows: str, plan: str) -> None:
    names = ["vanilla", "mamba-3", "ngt-mass-in-weight"]
    chosen = named_plan(plan).select(names).changed({"first_seed": 4, "seeds": 4})
    printed = report(RESULTS / "rows" / rows, chosen)
    lines = committed("models.md")
    for name in names:
        assert list(printed[name]) in lines


@pytest.mark.parametrize(
    ("rows", "plan"), [("1m-docs.jsonl", "1m-bpe"), ("1m-shakespeare.jsonl", "1m")]
)
def test_the_tables_against_canon_layers_are_printed_again(rows: str, plan: str) -> None:
    names = ["vanilla-canon", "vanilla", "ngt-mass-in-weight", "mamba-3"]
    chosen = named_plan(plan).select(names).changed({"first_seed": 4, "seeds": 4})
    printed = report(RESULTS / "rows" / rows, chosen)
    lines = committed("models.md")
    for name in names:
        assert list(printed[name]) in lines


@pytest.mark.parametrize(
    ("rows", "plan"), [("1m-docs.jsonl", "1m-bpe"), ("1m-shakespeare.jsonl", "1m")]
)
def test_runs_of_holographic_are_found_by_their_settings(rows: str, plan: str) -> None:
    """Its default changed from one plate to eight: both forms have another name in the rows."""
    path = RESULTS / "rows" / rows
    before = {"holographic": "holographic-waves-8-quarter", "holographic-1-plate": "holographic"}
    chosen = named_plan(plan).select(list(before))
    data = StoredText.of_row(rows_of(path)[0])
    assert data is not None
    experiment = Experiment(chosen, data, ResultLog(path, "compare"))
    assert experiment.todo() == []
    for name, entry in before.items():
        runs = experiment.runs_of([name])
        assert len(runs) >= 5  # of the sweep, and three seeds
        assert {experiment.row(run)["entry"] for run in runs} == {entry}  # type: ignore[index]


def test_runs_of_ngt_are_found_by_their_settings() -> None:
    """Its masses moved from the weight to the value: both forms have another name in the rows."""
    path = RESULTS / "rows" / "1m-docs.jsonl"
    before = {"ngt": "ngt-mass-in-value", "ngt-mass-in-weight": "ngt"}
    chosen = named_plan("1m-bpe").select(list(before)).changed({"first_seed": 4, "seeds": 4})
    data = StoredText.of_row(rows_of(path)[0])
    assert data is not None
    experiment = Experiment(chosen, data, ResultLog(path, "compare"))
    assert experiment.todo() == []
    for name, entry in before.items():
        runs = experiment.runs_of([name])
        assert {experiment.row(run)["entry"] for run in runs} == {entry}  # type: ignore[index]


@pytest.mark.parametrize(
    ("rows", "plan", "rates"),
    [
        ("1m-docs", "1m-bpe", {"vanilla": 2.0, "ngt": 4.0, "ngt-mass-in-weight": 2.0}),
        ("1m-shakespeare", "1m", {"vanilla": 1.0, "ngt": 2.0, "ngt-mass-in-weight": 1.0}),
    ],
)
def test_the_tables_of_seeds_8_to_11_are_printed_again(
    rows: str, plan: str, rates: dict[str, float], tmp_path: Path
) -> None:
    shutil.copy(RESULTS / "rows" / f"{rows}.jsonl", tmp_path / "page.jsonl")
    chosen = named_plan(plan).select(list(rates))
    found = rates_for(chosen, tmp_path / "page.html")
    assert found == rates
    changes = {"first_seed": 8, "seeds": 4}
    chosen = chosen.changed(changes, {"training.dtype": "float32"}).with_rates(found, "there")
    printed = report(RESULTS / "rows" / f"{rows}-float32.jsonl", chosen)
    lines = committed("models.md")
    text = {"1m-docs": "documentation", "1m-shakespeare": "Shakespeare"}[rows]
    for name, rate in rates.items():
        assert [text, name, f"x{rate:g}", *printed[name][1:]] in lines


def test_the_table_of_canon_layers_for_both_is_printed_again() -> None:
    names = ["vanilla-canon", "ngt-canon"]
    changes = {"first_seed": 8, "seeds": 4, "rates": (4.0,)}
    chosen = named_plan("1m-bpe").select(names).changed(changes, {"training.dtype": "float32"})
    printed = report(RESULTS / "rows" / "1m-docs-canon-float32.jsonl", chosen)
    lines = committed("models.md")
    for name in names:
        assert list(printed[name]) in lines


def test_rates_are_found_by_settings_at_any_size(tmp_path: Path) -> None:
    """Not by names, which stood for other defaults when the rows were made."""
    shutil.copy(RESULTS / "rows" / "1m-docs.jsonl", tmp_path / "page.jsonl")
    page = tmp_path / "page.html"
    names = ["vanilla", "ngt", "ngt-mass-in-weight", "holographic", "vanilla-canon"]
    rates = {"vanilla": 2.0, "ngt": 4.0, "ngt-mass-in-weight": 2.0, "holographic": 2.0}
    for plan in ("1m-bpe", "5m"):
        chosen = named_plan(plan).with_entries(named_plan("1m-bpe").entries).select(names)
        assert rates_for(chosen, page) == rates | {"vanilla-canon": 4.0}
    assert rates_for(named_plan("1m-bpe").select(["dense-22", "textbook"]), page) == {}
    with pytest.raises(UsageError, match="has no best rate for 'dense-22'"):
        named_plan("1m-bpe").select(["dense-22"]).with_rates(rates, "there")


def test_rows_of_another_set_are_said_to_be(tmp_path: Path) -> None:
    path = RESULTS / "rows" / "2026-11-22" / "1m-docs.jsonl"
    data = StoredText.of_row(rows_of(path)[0])
    assert data is not None
    data = replace(data, fingerprint="0" * 64, name="other")
    plan = replace(named_plan("1m-bpe").select(["vanilla"]), data="stored")
    experiment = Experiment(plan, data, ResultLog(path, "compare"))
    (remark,) = [r for r in summarise(experiment).remarks if "not used" in r]
    assert "of the prepared set docs (ce4c1f75), not of other (00000000)" in remark


def test_the_table_at_five_million_is_printed_again() -> None:
    names = ["vanilla", "ngt-mass-in-weight", "brain-v2", "holographic"]
    values = {"data": "stored", "rates": (2.0,), "seeds": 3}
    plan = named_plan("5m").select(names).changed(values, {"training.dtype": "float32"})
    printed = report(RESULTS / "rows" / "5m-docs-float32.jsonl", plan)
    lines = committed("models.md")
    for name in names:
        assert list(printed[name]) in lines


def test_the_table_of_shakespeare_at_five_million_is_printed_again() -> None:
    values = {"rates": (2.0,), "seeds": 3}
    plan = (
        named_plan("5m").select(["vanilla", "ngt"]).changed(values, {"training.dtype": "float32"})
    )
    printed = report(RESULTS / "rows" / "5m-shakespeare-float32.jsonl", plan)
    lines = committed("models.md")
    for name in ("vanilla", "ngt"):
        assert list(printed[name]) in lines
