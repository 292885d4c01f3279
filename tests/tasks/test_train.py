"""Rows from tasks, right answers counted, and what a trained model recalls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli.bench.recall.plan import RecallPlan, named_plan, resolve_run
from holo_cli.bench.recall.run import FIRST_SEED
from holo_cli.data.batches import IGNORE
from holo_cli.experiment.plan import parse_variant
from holo_cli.models.base import Hidden
from holo_cli.registry import build_model
from holo_cli.tasks import TASKS, TaskCase
from holo_cli.tasks import train as recall_run
from holo_cli.tasks.spec import TaskSpec
from holo_cli.tasks.train import TaskBatches, fresh_rows, score_case, train_on_task
from holo_cli.training.trainer import Trainer
from tests.bench.recall.recall_lab import job


def test_batches_take_turns_and_are_functions_of_their_number(plan: RecallPlan) -> None:
    spec = plan.tasks[0]
    batches = TaskBatches(spec, 1, 16)
    first, second, third = (batches.take(16) for _ in range(3))
    assert [x.shape[1] for x, _ in (first, second, third)] == [16, 20, 16]
    assert not torch.equal(first[0], third[0])
    again = TaskBatches(spec, 1, 16)
    again.position = 16
    assert torch.equal(again.take(16)[0], second[0])
    assert not torch.equal(TaskBatches(spec, 2, 16).take(16)[0], first[0])
    for start, (_, y) in ((0, first), (16, second)):
        assert batches.scored(start, 16) == int((y != IGNORE).sum())


def shared_rows(spec: TaskSpec, sequences: int, batches: int, batch: int) -> int:
    """How many of the tested rows are among those of so many batches of training."""
    made = TaskBatches(spec, FIRST_SEED, batch)
    trained = {row.tobytes() for _ in range(batches) for row in made.take(batch)[0].numpy()}
    return sum(
        row.tobytes() in trained
        for case in spec.train
        for x, _ in fresh_rows(spec, case, sequences, FIRST_SEED)
        for row in x.numpy()
    )


@pytest.mark.parametrize("task", TASKS)
def test_the_plan_small_tests_no_row_that_it_trained(task: str) -> None:
    """A quarter of its steps; the rows that are possible are many more than are ever made."""
    small = named_plan("small")
    (spec,) = small.select_tasks([task]).tasks
    batches, batch = small.base["training.steps"] // 4, small.base["training.batch_size"]
    assert shared_rows(spec, small.sequences, batches, batch) == 0


def test_with_few_possible_rows_some_are_met_again() -> None:
    """So nothing says that they are not: 3 keys by 3 values by 3 places are 27 rows."""
    few = TaskSpec("mqar", 7, (TaskCase(5, 1),))
    assert shared_rows(few, 64, 4, 16) > 32


def test_the_rows_of_a_test_are_the_same_in_any_batches(
    plan: RecallPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = plan.tasks[0]
    whole = torch.cat([x for x, _ in fresh_rows(spec, spec.train[0], 20, 1)])
    monkeypatch.setattr(recall_run, "TEST_TOKENS", 16 * 3)
    parts = [x for x, _ in fresh_rows(spec, spec.train[0], 20, 1)]
    assert [len(x) for x in parts] == [3] * 6 + [2]
    assert torch.equal(torch.cat(parts), whole)


class TestCounting:
    """Accuracy of models whose answers are known."""

    def count(self, plan: RecallPlan, answer: Any) -> dict[str, Any]:
        resolved, _ = job(plan)
        model = build_model("vanilla", resolved.model)

        class Head(torch.nn.Module):
            weight = torch.zeros(16, 2)

            def forward(self, x: Tensor) -> Tensor:
                return torch.nn.functional.one_hot(x[:, 0].long(), 16).float()

        def hidden(tokens: Tensor) -> Hidden:
            said = torch.stack([answer(row) for row in tokens])
            return Hidden(said[..., None].float().expand(-1, -1, 2), {})

        model.hidden = hidden  # type: ignore[method-assign]
        model.head = Head()  # type: ignore[assignment]
        return score_case(model, plan.tasks[0], TaskCase(20, 2), 64, 1, torch.float32)

    def test_an_oracle_is_always_right(self, plan: RecallPlan) -> None:
        def oracle(row: Tensor) -> Tensor:
            tokens = row.tolist()
            found = [tokens[tokens.index(v) + 1] if v and v < 8 else 0 for v in tokens]
            return torch.tensor(found)

        row = self.count(plan, oracle)
        assert row["accuracy"] == 1.0
        assert row["asked"] == 2 * 64
        assert row["trained"]

    def test_one_answer_for_all_is_right_by_chance(self, plan: RecallPlan) -> None:
        row = self.count(plan, lambda row: torch.full_like(row, 9))
        assert 0.0 < row["accuracy"] < 0.35
        assert row["right"] == round(row["accuracy"] * row["asked"])


def test_a_model_learns_and_its_state_is_told(plan: RecallPlan) -> None:
    """60 steps are enough for one pair of sixteen tokens, and not by luck: chance is 1/7."""
    resolved, settings = job(plan, **{"training.steps": 150, "training.eval_every": 150})
    told: list[dict[str, Any]] = []
    result = train_on_task(settings, told.append)
    easy = result["cases"][0]
    assert easy["accuracy"] > 0.6
    assert result["losses"][-1][1] < 0.5 * result["losses"][0][1]
    assert [c["state_bytes"] for c in result["cases"]] == [
        build_model("vanilla", resolved.model).state_bytes(length) for length in (16, 20, 32)
    ]
    assert [event["step"] for event in told if event["event"] == "train"][:2] == [20, 40]
    assert result["sequences"] == 16 * result["steps"]


def test_a_solved_task_ends_early(plan: RecallPlan) -> None:
    _, settings = job(plan)
    result = train_on_task(settings | {"solved": 100.0}, lambda event: None)
    assert (result["steps"], result["stopped_by"]) == (20, "solved")


def test_a_model_that_grows_grows_here_too(
    plan: RecallPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """brain-v1 begins shallow, and is tested as it ends."""
    entry = parse_variant("grown=brain-v1,layers=2")
    entry = replace(entry, settings={**entry.settings, "model.growth": [1]})
    spec = plan.tasks[0]
    resolved = resolve_run(plan, entry, spec, 1.0, 1).replace(
        {"training.steps": 4, "training.warmup": 0}
    )
    depths: list[int] = []
    micro = Trainer._micro_step

    def watched(trainer: Trainer) -> None:
        depths.append(trainer.model.config.layers)
        micro(trainer)

    monkeypatch.setattr(Trainer, "_micro_step", watched)
    asked = {"sequences": 8, "solved": 100.0}
    monkeypatch.setattr(recall_run, "WINDOW", 1)
    result = train_on_task(
        {"resolved": resolved.to_dict(), "spec": spec.to_dict(), **asked}, lambda e: None
    )
    assert depths == [1, 1, 2, 2]
    assert result["parameters"] == build_model("brain-v1", resolved.model).describe().parameters
    assert (result["steps"], result["stopped_by"]) == (4, "steps")  # solved half-way is not solved


def test_a_length_that_a_model_cannot_read_is_no_score(plan: RecallPlan) -> None:
    """Learned positions end at the trained context: no accuracy, but the reason."""
    _, settings = job(plan, entry=1, **{"training.steps": 5, "training.warmup": 0})
    result = train_on_task(settings, lambda event: None)
    assert [c["accuracy"] is None for c in result["cases"]] == [False, False, True]
    assert "positions" in result["cases"][2]["error"]
