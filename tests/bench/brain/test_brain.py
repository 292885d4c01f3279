"""brain-v1 against brain-v2: the verdicts, and one small run whose parts are not repeated."""

from __future__ import annotations

import pytest

from holo_cli.bench.brain.run import RECALL_PLANS, TASK, V1, V2, named_plans
from holo_cli.bench.brain.summary import at_least, recalls_better
from holo_cli.experiment.plan import plan_names


def test_a_speed_aim_is_met_by_the_whole_range_or_undecided() -> None:
    assert at_least(3.0, 3.0, 4.0, 5) == "met"
    assert at_least(3.0, 1.0, 2.9, 5) == "not met"
    assert at_least(3.0, 2.9, 3.1, 5) == "undecided"
    assert at_least(3.0, 9.0, 9.0, 1) == "undecided"  # one round decides nothing


def test_few_shot_recall_needs_every_seed_and_more_than_guessing() -> None:
    assert recalls_better([0.1, 0.2], [0.8, 0.9], 0.05) == "met"
    assert recalls_better([0.1, 0.2], [0.15, 0.9], 0.05) == "undecided"
    assert recalls_better([0.9, 0.9], [0.9, 0.8], 0.05) == "not met"
    assert recalls_better([0.0, 0.0], [0.09, 0.09], 0.05) == "undecided"
    assert recalls_better([0.1], [0.9], 0.05) == "undecided"
    assert recalls_better([], [0.9], 0.05) == "not measured"


@pytest.mark.parametrize("preset", plan_names("brain"))
def test_presets_have_both_models_in_both_plans(preset: str) -> None:
    assert preset in RECALL_PLANS
    plan, recall = named_plans(preset)
    assert [e.model for e in plan.check().entries] == [V1, V2]
    assert [e.model for e in recall.check().entries] == [V1, V2]
    assert [spec.name for spec in recall.tasks] == [TASK]
    assert plan.match == "parameters"
