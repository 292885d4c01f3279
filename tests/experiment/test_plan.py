"""Plans: read, chosen from, changed, and refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from holo_cli.bench.recall.plan import named_plan as named_recall
from holo_cli.bench.recall.plan import read_plan as read_recall
from holo_cli.errors import UsageError
from holo_cli.experiment.entries import agrees, identity, resolve_entry
from holo_cli.experiment.plan import (
    Entry,
    Plan,
    named_plan,
    parse_variant,
    plan_names,
    read_plan,
)

TEXT = """
title = "Mine"
match = "active"
target = 5000
rates = [1, 2.0]
[base.model]
layers = 1
[base.training]
steps = 10
[entry.plain]
model = "vanilla"
[entry.ngt-8]
model = "ngt"
set = { coords = 8, "training.lr" = 0.5 }
rates = [1]
match = "none"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plan_is_read(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, TEXT))
    assert (plan.title, plan.match, plan.target, plan.rates) == ("Mine", "active", 5000, (1, 2.0))
    assert plan.base == {"model.layers": 1, "training.steps": 10}
    assert plan.entries[1] == Entry(
        "ngt-8", "ngt", settings={"model.coords": 8, "training.lr": 0.5}, rates=(1,), match="none"
    )


@pytest.mark.parametrize("name", plan_names("compare"))
def test_plans_that_come_with_holo_resolve(name: str, tmp_path: Path) -> None:
    plan = named_plan(name).check()
    assert len(plan.entries) >= 3
    for entry in plan.entries:
        resolve_entry(plan, entry, tmp_path)


@pytest.mark.parametrize("name", plan_names("recall"))
def test_recall_plans_that_come_with_holo_are_sound(name: str) -> None:
    assert len(named_recall(name).check().entries) >= 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sedes = 3", "unknown key 'sedes'"),
        ("seeds = 'three'", "seeds cannot be 'three'"),
        ("seeds = true", "seeds cannot be True"),
        ("seeds = ", "not a plan in TOML"),
        ("[entry.x]\nmodel = 'vanila'", "no model 'vanila'"),
        ("[entry.x]\nmodel = 'vanilla'\nsets = {}", "unknown key 'sets'"),
        ("[entry.x]\nmodel = 'vanilla'\nmatch = 'time'", "can only be"),
        ("entry = 3", "entries are tables"),
    ],
)
def test_plans_that_are_wrong_say_where(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_plan(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[task.mqr]\nvocab = 16\ntrain = [[16, 2]]", "no such task"),
        ("[task.mqar]\nvocab = 16", "needs vocab, and train"),
        ("[task.mqar]\nvocab = 16\ntrain = [[16, 2, 3]]", "whole numbers"),
        ("[task.mqar]\nvocab = 16\ntrain = [[16.5, 2]]", "whole numbers"),
        ("[task.mqar]\nvocab = 16\ntrain = [[16, 2]]\nlong = 1", "unknown key 'long'"),
    ],
)
def test_recall_plans_that_are_wrong_say_where(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_recall(write(tmp_path, text))


def test_a_recall_case_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    text = "[entry.vanilla]\n[task.mqar]\nvocab = 16\ntrain = [[16, 9]]"
    with pytest.raises(UsageError, match="from 1 to 7 items"):
        read_recall(write(tmp_path, text)).check()


def test_entries_are_chosen_by_name_or_model() -> None:
    plan = Plan((Entry("a", "ngt"), Entry("b", "ngt"), Entry("c", "vanilla")))
    assert [e.name for e in plan.select(["ngt"]).entries] == ["a", "b"]
    assert [e.name for e in plan.select(["c", "a"]).entries] == ["c", "a"]
    assert plan.select(["holographic"]).entries == (Entry("holographic", "holographic"),)
    with pytest.raises(UsageError, match="no model 'vanila'") as caught:
        plan.select(["vanila"])
    assert "vanilla" in caught.value.next_step


def test_a_checkpoint_is_no_model(tmp_path: Path) -> None:
    for name in ("checkpoints/run_best.safetensors", str(tmp_path)):
        with pytest.raises(UsageError, match="is a path") as caught:
            Plan().select([name])
        assert "holo eval" in caught.value.next_step


def test_variants_are_typed() -> None:
    assert parse_variant("ngt-8=ngt,coords=8,training.lr=0.1") == Entry(
        "ngt-8", "ngt", settings={"model.coords": 8, "training.lr": 0.1}
    )
    for wrong in ("ngt", "=ngt", "a=", "a=ngt,coords"):
        with pytest.raises(UsageError, match="not of the form"):
            parse_variant(wrong)


@pytest.mark.parametrize(
    "values",
    [
        {"match": "width"}, {"seeds": 0}, {"rates": ()}, {"rates": (0.0,)}, {"sweep_share": 0.0},
        {"evaluations": 0}, {"match": "time"}, {"entries": ()},
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    plan = Plan((Entry("v", "vanilla"),))
    plan.check()
    with pytest.raises(UsageError):
        plan.changed(values).check()


def test_fewer_steps_shorten_a_plans_warmup_but_not_a_typed_one() -> None:
    plan = Plan(base={"training.steps": 500, "training.warmup": 50})
    assert plan.changed({}, {"training.steps": 40}).base["training.warmup"] == 4
    typed = plan.changed({}, {"training.steps": 40}, ["training.warmup=30"])
    assert typed.base["training.warmup"] == 30


def test_wrong_settings_name_their_entry(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="entry odd"):
        resolve_entry(Plan(), Entry("odd", "vanilla", settings={"model.coords": 8}), tmp_path)
    with pytest.raises(UsageError, match=r"multiple of model\.heads"):
        resolve_entry(Plan(), Entry("odd", "vanilla", settings={"model.heads": 7}), tmp_path)


def test_identity_is_of_what_changes_a_result(tmp_path: Path) -> None:
    plan, entry = Plan(base={"model.layers": 1}), Entry("v", "vanilla")
    one = resolve_entry(plan, entry, tmp_path)
    assert identity(one, "f") == identity(resolve_entry(plan, entry, tmp_path / "moved"), "f")
    assert identity(one, "f") == identity(one.replace({"training.log_every": 3}), "f")
    assert identity(one, "f") != identity(one, "g")
    assert "training.init_seed" not in identity(one, "f")["settings"]  # unless it is set
    for change in (
        {"training.lr": 0.5}, {"model.width": 64}, {"data.balance": True},
        {"training.init_seed": 0},
    ):  # fmt: skip
        assert identity(one, "f") != identity(one.replace(change), "f")


def test_a_row_counts_only_while_its_settings_mean_the_same(tmp_path: Path) -> None:
    resolved = resolve_entry(Plan(), Entry("v", "vanilla"), tmp_path)
    config = resolved.to_dict()["config"]
    row = {"model": "vanilla", "config": config}
    assert agrees(row, resolved)
    del config["training"]["clip"]  # a row from before that key was there
    assert agrees(row, resolved)
    config["training"]["lr"] = 0.9  # a default that has changed since
    assert not agrees(row, resolved)


def test_a_row_from_before_a_switch_is_of_a_model_without_it(tmp_path: Path) -> None:
    """The learned query gain is on by default; rows without the key were made without it."""
    resolved = resolve_entry(Plan(), Entry("v", "vanilla"), tmp_path)
    config = resolved.to_dict()["config"]
    del config["model"]["query_gain"]
    row = {"model": "vanilla", "config": config}
    assert not agrees(row, resolved)
    assert agrees(row, resolved.replace({"model.query_gain": False}))
    # in a model without attention nothing reads it
    ngt = resolve_entry(Plan(), Entry("n", "ngt"), tmp_path)
    config = ngt.to_dict()["config"]
    del config["model"]["query_gain"]
    assert agrees({"model": "ngt", "config": config}, ngt)
