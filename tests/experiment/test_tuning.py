"""Equal tuning: what is tried, that it can be resumed, and what is said of it."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from holo_cli import registry
from holo_cli.bench.compare import run as compare
from holo_cli.bench.compare.page import write_page
from holo_cli.bench.compare.run import best_rates, open_experiment
from holo_cli.bench.compare.summary import summarise
from holo_cli.config.resolve import resolve
from holo_cli.config.tunable import range_of, tunable, tunable_choices
from holo_cli.errors import Stopped, UsageError
from holo_cli.experiment.experiment import Experiment
from holo_cli.experiment.plan import Entry, Plan
from holo_cli.experiment.runner import RunOptions
from holo_cli.experiment.search_space import FinishedTrial, model_keys, propose, space_of
from holo_cli.training.stopping import StopRequest
from tests.bench.compare.test_compare import data, go, plan, pretended

__all__ = ["data", "plan", "pretended"]  # fixtures


@pytest.fixture
def tuned(plan: Plan) -> Plan:
    """Two entries, five trials each: the plan's two rates, then three that are proposed."""
    return replace(plan, tune=5, seeds=1)


def trials(experiment: Experiment) -> dict[str, Any]:
    return {row["key"]: row["tune"] for row in experiment.rows if row["role"] == "tune"}


def test_every_entry_gets_the_same_budget_and_the_best_goes_on(tuned: Plan, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    experiment, said = go(tuned, page)
    assert len(said) == len(experiment.rows) == 2 * 5 + 2
    rows = [row for row in experiment.rows if row["role"] == "tune"]
    for name in ("vanilla", "ngt"):
        own = [row for row in rows if row["entry"] == name]
        assert sorted(row["tune"]["trial"] for row in own) == [1, 2, 3, 4, 5]
        assert [row["rate"] for row in own[:2]] == [0.5, 1.0]  # the sweep's, at the own settings
        assert own[0]["tune"]["settings"] == {"rate": 0.5}
        best = min(own, key=lambda row: row["val_loss"])
        (final,) = [r for r in experiment.rows if (r["entry"], r["role"]) == (name, "final")]
        assert final["tune"]["settings"] == best["tune"]["settings"]
        assert final["rate"] == best["rate"]
        wanted = {k: v for k, v in best["tune"]["settings"].items() if k.startswith("model.")}
        model = final["config"]["model"]
        assert {key: model[key.removeprefix("model.")] for key in wanted} == wanted
        result = experiment.tuning.result(experiment.entries[name])  # type: ignore[union-attr]
        default = min(row["val_loss"] for row in own[:2])
        assert result.gain == pytest.approx(default - best["val_loss"])
        assert result.to_dict()["trials"] == result.budget == 5
    for row in rows:  # tuning seed and length; sizes matched again
        assert row["seed"] == row["config"]["training"]["seed"] == 0
        assert row["steps"] == 10
        assert abs(row["parameters"] - experiment.target) <= 0.02 * experiment.target
        share = row["tune"]["settings"].get("training.warmup", 0.2)
        assert row["config"]["training"]["warmup"] == round(10 * share)
    assert {r["seed"] for r in experiment.rows if r["role"] == "final"} == {1}
    summary = summarise(experiment)
    text = " ".join(summary.sentences())
    assert "Each entry had 5 trials" in text
    columns, shown = experiment.tuning.table()  # type: ignore[union-attr]
    assert [row[1] for row in shown] == ["5/5", "5/5"]
    assert all(len(row) == len(columns) for row in shown)
    write_page(experiment, summary, page)
    assert "Results of tuning" in page.read_text(encoding="utf-8")
    assert go(tuned, page)[1] == []
    with pytest.raises(UsageError, match="belong to the settings that were tuned"):
        best_rates(page)


def test_a_stopped_campaign_resumes_with_the_same_trials(tuned: Plan, tmp_path: Path) -> None:
    """Whatever runs side by side, whenever it was stopped, and if the budget is raised later."""
    whole, _ = go(tuned, tmp_path / "whole.html", jobs=3)
    page = tmp_path / "page.html"
    stop = StopRequest()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 7:
            stop.ask("test")

    less = replace(tuned, tune=4)
    with pytest.raises(Stopped, match="runs to do"):
        compare.run(
            open_experiment(less, RunOptions(page)), RunOptions(page), notify=say, stop=stop
        )
    resumed, rest = go(tuned, page)
    assert len(rest) == 12 - 7
    assert trials(resumed) == trials(whole)
    assert resumed.left() == 0


def test_settings_that_cannot_be_built_are_replaced_by_others(
    tuned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sized = Experiment.sized

    def fewer(self: Experiment, entry: Entry, changes: Any = None) -> Any:
        if changes and changes.get("model.power", 8.0) < 8.0:
            raise UsageError("Too heavy.")
        return sized(self, entry, changes)

    monkeypatch.setattr(Experiment, "sized", fewer)
    experiment = open_experiment(replace(tuned, tune=6), RunOptions(tmp_path / "page.html"))
    assert experiment.tuning is not None
    _finish_defaults(experiment)
    found = experiment.tuning.trials(experiment.entries["ngt"])
    assert len(found) == 6
    missed = [settings for trial in found for settings in trial.infeasible]
    assert missed
    assert all(settings["model.power"] < 8 for settings in missed)
    assert all(t.settings.get("model.power", 8) >= 8 for t in found)
    assert json.dumps([t.to_dict() for t in found])
    assert "infeasible" in found[-1].to_dict()

    def never(self: Experiment, entry: Entry, changes: Any = None) -> Any:
        if changes:
            raise UsageError("Never.")
        return sized(self, entry)

    monkeypatch.setattr(Experiment, "sized", never)
    experiment = open_experiment(tuned, RunOptions(tmp_path / "page.html"))
    assert experiment.tuning is not None
    _finish_defaults(experiment)
    assert len(experiment.tuning.trials(experiment.entries["ngt"])) == 2
    assert experiment.tuning.result(experiment.entries["ngt"]).settled
    text = " ".join(experiment.tuning.sentences())
    assert "No further settings could be built or matched in size for ngt" in text
    assert "budgets are not equal" in text


def _finish_defaults(experiment: Experiment) -> None:
    """ResultLog for the trials known so far, without running them."""
    for run in experiment.todo():
        row = {
            "key": run.key, "status": "done", "entry": run.entry, "role": "tune",
            "val_loss": 3.0, "rate": run.rate, "seed": 0,
        }  # fmt: skip
        experiment._stored[run.key] = row


def test_a_trial_that_breaks_off_leaves_no_best_until_it_is_done_again(
    tuned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    short = replace(tuned, tune=2)
    monkeypatch.setenv("BREAK", "ngt x1 seed 0")
    experiment, _ = go(short, page)
    vanilla, ngt = summarise(experiment).lines
    assert (vanilla.status, ngt.status) == ("done", "failed")
    assert "its trials 2 broke off; --retry-failed" in ngt.note
    monkeypatch.setenv("BREAK", "")
    assert len(go(short, page, retry_failed=True)[1]) == 2
    monkeypatch.setenv("DIVERGE", "ngt x1 seed 0")
    experiment, _ = go(short, tmp_path / "other.html")
    result = experiment.tuning.result(experiment.entries["ngt"])  # type: ignore[union-attr]
    assert (result.diverged, result.broken) == (1, ())
    assert result.best is not None
    assert result.best.number == 1


def test_tuning_at_equal_time_measures_the_speed_of_each_shape(tuned: Plan, tmp_path: Path) -> None:
    timed = replace(tuned, match="time", seconds=9.0, tune=3, entries=tuned.entries[1:])
    experiment, _ = go(timed, tmp_path / "page.html")
    roles = [row["role"] for row in experiment.rows]
    assert roles.count("tune") == 3
    assert roles.count("pace") == 4  # the own shape, the proposed one, the best one twice more
    (final,) = [row for row in experiment.rows if row["role"] == "final"]
    assert final["steps"] == 20
    assert experiment.left() == 0


# -- what is tuned --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", registry.model_names())
def test_declared_ranges_hold_what_the_model_accepts(model: str) -> None:
    """Every proposal's value is one that its key takes, for every model there is."""
    resolved = resolve(model, env={})
    space = space_of(resolved, [1.0], ())
    assert model_keys(space)
    assert not {"model.width", "model.mlp_ratio", "model.layers", "model.expand"} & space.keys()
    for settings in islice(propose(space, model, 0, []), 3):
        for key, value in settings.items():
            if key.startswith(("model.", "training.")) and not space[key].share:
                resolved.replace({key: value})


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("gated-deltanet", {"rope_fraction"}),
        ("gla", {"rope_fraction", "key_ratio", "decay_rank", "temperature"}),
        ("rwkv7", {"rope_fraction", "rank"}),
        ("mamba", {"state_size", "dt_min", "dt_max", "skip_start"}),
        ("sliding-window", {"window", "sinks"}),
    ],
)
def test_rival_models_have_settings_of_their_own_to_tune(model: str, keys: set[str]) -> None:
    """Beside the backbone's; both ends of each range can be built, also where keys are coupled."""
    resolved = resolve(model, env={})
    space = space_of(resolved, [1.0], ())
    own = {key.removeprefix("model.") for key in model_keys(space)}
    backbone = {"rope_base", "rope_fraction", "soft_cap"}
    assert own - backbone == keys - backbone
    assert keys <= own
    for choose in (min, max):
        ends = {}
        for key in keys:
            found = space[f"model.{key}"]
            end = choose(found.choices or (found.low, found.high))
            ends[f"model.{key}"] = int(end) if found.whole else end
        resolved.replace(ends)


def test_proposals_are_those_of_their_seed_and_of_what_was_told() -> None:
    space = space_of(resolve("ngt", env={}), [1.0, 2.0], ())
    first = islice(propose(space, "x", 0, []), 9)
    told = [FinishedTrial(settings, float(i)) for i, settings in enumerate(first)]
    told.append(FinishedTrial({"rate": 2.0}, None))
    one, two = (list(islice(propose(space, "x", 1, told), 3)) for _ in range(2))
    assert one == two
    assert one != list(islice(propose(space, "y", 1, told), 3))
    assert one != list(islice(propose(space, "x", 1, told[:-3]), 3))


def test_what_an_entry_sets_itself_is_not_tuned(plan: Plan, tmp_path: Path) -> None:
    entries = (
        *plan.entries,
        Entry("ngt-4", "ngt", settings={"model.power": 4.0}),
        Entry("textbook", "vanilla", recipe="classic"),
    )
    shared = replace(plan, entries=entries, tune=2, base={**plan.base, "model.soft_cap": 15.0})
    experiment = open_experiment(shared, RunOptions(tmp_path / "page.html"))
    assert experiment.tuning is not None
    spaces = experiment.tuning.spaces
    assert "model.power" in spaces["ngt"]
    assert "model.power" not in spaces["ngt-4"]
    assert all("model.soft_cap" not in space for space in spaces.values())
    assert not model_keys(spaces["textbook"])
    (note,) = experiment.tuning.notes()
    assert note.startswith("textbook has no settings of the model to tune")


def test_an_empty_range_is_refused_with_its_entry(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eps = registry.config_class("ngt").model_fields["eps"]
    monkeypatch.setattr(eps, "json_schema_extra", tunable(0.3, 0.1))
    with pytest.raises(UsageError, match=r"Entry ngt: model\.eps declares an empty range.*0\.3"):
        open_experiment(replace(plan, tune=2), RunOptions(tmp_path / "page.html"))


@pytest.mark.parametrize(
    "extra", [tunable(1.0, 1.0), tunable(0.0, 1.0, log=True), tunable_choices()]
)
def test_empty_ranges(extra: dict[str, Any]) -> None:
    class Config(BaseModel):
        x: float = Field(1.0, json_schema_extra=extra)

    with pytest.raises(UsageError, match=r"model\.x declares an empty range"):
        range_of("model.x", Config.model_fields["x"], {})


def test_a_key_without_effect_has_no_range() -> None:
    class Config(BaseModel):
        x: int = Field(1, json_schema_extra=tunable(1, 4, when={"kind": ["a"]}))

    field = Config.model_fields["x"]
    assert range_of("model.x", field, {"kind": "b"}) is None
    found = range_of("model.x", field, {"kind": "a"})
    assert found is not None
    assert found.whole
    assert (found.contains(4), found.contains(5)) == (True, False)


def test_without_optuna_one_sentence_says_what_to_install(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="Optuna, which is not installed") as caught:
        open_experiment(replace(plan, tune=2), RunOptions(tmp_path / "page.html"))
    assert "holo-cli[tune]" in caught.value.next_step


def test_a_plan_cannot_have_fewer_trials_than_none(plan: Plan) -> None:
    with pytest.raises(UsageError, match="cannot have -1 trials"):
        replace(plan, tune=-1).check()
