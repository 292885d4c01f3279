"""The recall bench: rows from tasks, right answers counted, runs planned, findings that follow."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli.bench.experiment import code_fingerprint, runner, worker_pool
from holo_cli.bench.experiment.plan import parse_variant
from holo_cli.bench.experiment.runner import RunOptions, execute
from holo_cli.bench.recall import train as recall_run
from holo_cli.bench.recall.page import findings, write_page
from holo_cli.bench.recall.plan import RecallPlan, TaskSpec, named_plan, read_plan, resolve_run
from holo_cli.bench.recall.run import FIRST_SEED, Recall, open_recall
from holo_cli.bench.recall.train import TaskBatches, fresh_rows, score_case, train_on_task
from holo_cli.bench.tasks import TASKS, TaskCase
from holo_cli.config.resolve import Resolved
from holo_cli.data.batches import IGNORE
from holo_cli.errors import UsageError
from holo_cli.models.base import Hidden
from holo_cli.registry import build_model
from holo_cli.training.trainer import Trainer

PLAN = """
sequences = 64
[base.model]
layers = 2
heads = 2
width = 32
conv = 4
soft_cap = 0
[base.training]
steps = 60
batch_size = 16
warmup = 5
log_every = 20
dtype = "float32"
[entry.attention]
model = "vanilla"
[entry.textbook]
model = "vanilla"
recipe = "classic"
[task.mqar]
vocab = 16
train = [[16, 1], [20, 2]]
test = [[32, 2]]
"""


@pytest.fixture
def plan(tmp_path: Path) -> RecallPlan:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN, encoding="utf-8")
    return read_plan(path).check()


def job(plan: RecallPlan, entry: int = 0, **changes: Any) -> tuple[Resolved, dict[str, Any]]:
    spec = plan.tasks[0]
    resolved = resolve_run(plan, plan.entries[entry], spec, 1.0, FIRST_SEED).replace(changes)
    asked = {"sequences": plan.sequences, "solved": plan.solved}
    return resolved, {"resolved": resolved.to_dict(), "spec": spec.to_dict(), **asked}


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


def test_what_changes_while_a_model_learns_changes_here_too(
    plan: RecallPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """brain-v1 begins shallow and with every unit firing, and is tested as it ends."""
    from holo_cli.models.brain_v1.kwta import KWTA

    entry = parse_variant("grown=brain-v1,sparsity=kwta,activity=0.25,dense_start=0.5,layers=2")
    entry = replace(entry, settings={**entry.settings, "model.growth": [1]})
    spec = plan.tasks[0]
    resolved = resolve_run(plan, entry, spec, 1.0, 1).replace(
        {"training.steps": 4, "training.warmup": 0}
    )
    fired: list[list[int]] = []
    micro = Trainer._micro_step

    def watched(trainer: Trainer) -> None:
        fired.append(
            [part.training_k for part in trainer.model.modules() if isinstance(part, KWTA)]
        )
        micro(trainer)

    monkeypatch.setattr(Trainer, "_micro_step", watched)
    asked = {"sequences": 8, "solved": 100.0}
    monkeypatch.setattr(recall_run, "WINDOW", 1)
    result = train_on_task(
        {"resolved": resolved.to_dict(), "spec": spec.to_dict(), **asked}, lambda e: None
    )
    assert fired == [[160], [80], [40, 40], [40, 40]]
    assert result["parameters"] == build_model("brain-v1", resolved.model).describe().parameters
    assert (result["steps"], result["stopped_by"]) == (4, "steps")  # solved half-way is not solved


def test_a_length_that_a_model_cannot_read_is_no_score(plan: RecallPlan) -> None:
    """Learned positions end at the trained context: no accuracy, but the reason."""
    _, settings = job(plan, entry=1, **{"training.steps": 5, "training.warmup": 0})
    result = train_on_task(settings, lambda event: None)
    assert [c["accuracy"] is None for c in result["cases"]] == [False, False, True]
    assert "positions" in result["cases"][2]["error"]


# -- the experiment -------------------------------------------------------------------------------

WORKER = """
import json, sys
job = json.load(sys.stdin)
model = job["resolved"]["config"]["model"]
rate = job["resolved"]["config"]["training"]["lr"]
if model["recipe"] == "classic":
    print(json.dumps(dict(event="failed", kind="x", error="No room for the plates.")))
    sys.exit(1)
good = 1.0 if rate < 0.02 else 0.5
spec = job["spec"]
cases = [dict(length=t, items=n, trained=[t, n] in spec["train"], state_bytes=t * 10,
              accuracy=good if t < 30 else None, **({} if t < 30 else {"error": "Too long."}))
         for t, n in spec["train"] + spec["test"]]
print(json.dumps(dict(event="result", cases=cases, losses=[[10, 0.1, 1.0]], steps=10,
    stopped_by="steps", train_seconds=1.0, threads=1)))
"""


@pytest.fixture
def finished(plan: RecallPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recall:
    import sys

    monkeypatch.setattr(worker_pool, "WORKER", [sys.executable, "-S", "-c", WORKER])
    monkeypatch.setattr(runner, "describe_machine", lambda: {"cpu": "a test's", "threads": 1})
    recall = open_recall(
        replace(plan, rates=(0.5, 1.0), seeds=2), RunOptions(tmp_path / "page.html")
    )
    execute(recall, RunOptions(tmp_path / "page.html"), notify=lambda text: None)
    return recall


def test_the_best_rate_counts_and_failures_are_told(finished: Recall, tmp_path: Path) -> None:
    assert len(finished.rows) == 8
    assert finished.todo() == []
    attention = [s for s in finished.scores() if s.entry == "attention"]
    assert [s.accuracies for s in attention] == [[1.0, 1.0], [1.0, 1.0], []]
    assert {s.rate for s in attention} == {0.5}
    assert attention[2].why == "Too long."
    assert attention[0].state_bytes == 160
    textbook = [s for s in finished.scores() if s.entry == "textbook"]
    assert {s.why for s in textbook} == {"No room for the plates."}
    assert {s.accuracy for s in textbook} == {None}
    again = open_recall(finished.plan, RunOptions(tmp_path / "page.html"))
    assert again.todo() == []
    retried = open_recall(finished.plan, RunOptions(tmp_path / "page.html", retry_failed=True))
    assert len(retried.todo()) == 4


def with_rows(recall: Recall, outcomes: dict[tuple[float, int], float | None]) -> list[Any]:
    """The scores of `attention` where (rate, seed) has that accuracy; None failed, else not run."""
    for made in recall.runs:
        if made.entry != "attention" or (made.rate, made.seed) not in outcomes:
            continue
        accuracy = outcomes[made.rate, made.seed]
        cases = [
            {"accuracy": accuracy, "trained": c in made.spec.train, "state_bytes": 1}
            for c in made.spec.cases
        ]
        row = {
            "key": made.key, "entry": made.entry, "rate": made.rate,
            "model": made.resolved.model_name, "config": made.resolved.to_dict()["config"],
        }  # fmt: skip
        ended: dict[str, Any] = {"status": "done", "cases": cases}
        failed = {"status": "failed", "error": "Training diverged."}
        recall.rows.add(row | (failed if accuracy is None else ended))
    return [s for s in recall.scores() if s.entry == "attention"]


@pytest.fixture
def three_seeds(plan: RecallPlan, tmp_path: Path) -> Recall:
    return open_recall(
        replace(plan, rates=(0.5, 1.0), seeds=3), RunOptions(tmp_path / "three.html")
    )


def test_a_rate_whose_seeds_failed_does_not_win_by_the_one_that_did_not(
    three_seeds: Recall,
) -> None:
    full = {(1.0, seed): 0.9 for seed in (1, 2, 3)}
    scores = with_rows(three_seeds, full | {(0.5, 1): 1.0, (0.5, 2): None, (0.5, 3): None})
    assert {s.rate for s in scores} == {1.0}
    assert [s.accuracies for s in scores] == [[0.9] * 3] * 3
    assert {s.why for s in scores} == {"rate x0.5, seeds 2, 3 failed: Training diverged."}
    assert {s.failed for s in scores} == {0}


def test_a_rate_that_wins_in_spite_of_a_failure_says_so(three_seeds: Recall) -> None:
    full = {(1.0, seed): 0.1 for seed in (1, 2, 3)}
    scores = with_rows(three_seeds, full | {(0.5, 1): 1.0, (0.5, 2): None, (0.5, 3): 1.0})
    assert {s.rate for s in scores} == {0.5}
    assert {s.why for s in scores} == {"rate x0.5, seed 2 failed: Training diverged."}
    assert scores[0].to_dict()["failed"] == 1
    assert "solved by attention (1 of 3 seeds failed)" in findings(three_seeds, scores)[0]


def test_a_rate_that_is_not_all_run_waits_for_its_other_seeds(
    three_seeds: Recall, tmp_path: Path
) -> None:
    scores = with_rows(three_seeds, {(0.5, 1): 1.0, (1.0, 1): 0.2, (1.0, 2): 0.3})
    assert {s.rate for s in scores} == {1.0}  # neither is complete: the one with more
    assert {s.why for s in scores} == {
        "rate x0.5, seeds 2, 3 not run; rate x1, seed 3 not run"
    }  # fmt: skip
    scores = with_rows(three_seeds, {(0.5, 2): 1.0, (0.5, 3): 1.0})
    assert {s.rate for s in scores} == {0.5}
    fresh = open_recall(three_seeds.plan, RunOptions(tmp_path / "fresh.html"))
    scores = with_rows(fresh, {(1.0, seed): 0.4 for seed in (1, 2, 3)})
    assert {(s.rate, s.why) for s in scores} == {(1.0, "rate x0.5 not run")}
    scores = with_rows(three_seeds, {(1.0, 3): 1.0})
    assert {(s.rate, s.why) for s in scores} == {(0.5, "")}


def test_the_page_says_what_the_rate_was_chosen_on(three_seeds: Recall, tmp_path: Path) -> None:
    write_page(three_seeds, three_seeds.scores(), tmp_path / "three.html")
    text = (tmp_path / "three.html").read_text(encoding="utf-8")
    assert "the better of 2 rates, chosen on the same test" in text


def test_findings_and_page_say_what_the_scores_say(finished: Recall, tmp_path: Path) -> None:
    scores = finished.scores()
    said = findings(finished, scores)
    assert said == [
        "Associative recall, 20 tokens and 2 items: solved by attention. "
        "Still solved at 32 tokens and 2 items, which were not trained on: none of these."
    ]
    page = tmp_path / "page.html"
    assert write_page(finished, scores, page) < 6_000_000
    text = page.read_text(encoding="utf-8")
    assert "<h2>Associative recall</h2>" in text
    assert "32/2* %" in text
    assert "No room for the plates." in text
    assert ">100<" in text


def test_nothing_run_is_shown_as_not_run(plan: RecallPlan, tmp_path: Path) -> None:
    recall = open_recall(plan, RunOptions(tmp_path / "page.html"))
    scores = recall.scores()
    assert {s.why for s in scores} == {"not run"}
    assert findings(recall, scores) == ["Associative recall: not run."]
    write_page(recall, scores, tmp_path / "page.html")
    assert "not run" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('recipe = "classic"', "rates = [3.0]", r"rates of \[entry.textbook\] is for a comparison"),
        ('recipe = "classic"', 'match = "none"', r"match of \[entry.textbook\]"),
        ('recipe = "classic"', 'vary = ["model.width"]', r"vary of \[entry.textbook\]"),
        ('recipe = "classic"', "set = { context = 32 }", "model.context from entry textbook"),
        ('recipe = "classic"', "set = { vocab_size = 99 }", "model.vocab_size from entry"),
        ("conv = 4", "context = 32", "model.context from the plan"),
        ("warmup = 5", "seed = 7", "training.seed from the plan"),
        ("warmup = 5", "time_limit = 7", "training.time_limit"),
        ("sequences = 64", "sequences = 64\nbase.data.path = 'x'", "reads no text"),
        ("sequences = 64", "widths = [64]", "model.width from the plan"),
        ("vocab = 16", "vocab = 2", "at least 3 tokens of vocabulary, not 2"),
        ("vocab = 16", "vocab = 16.5", "vocab is a whole number"),
        ("vocab = 16", 'vocab = "many"', "vocab is a whole number"),
    ],
)
def test_what_would_be_without_effect_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in PLAN
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_plan(path).check()


def test_tasks_are_chosen_by_name(plan: RecallPlan) -> None:
    assert plan.select_tasks(["mqar"]).tasks == plan.tasks
    with pytest.raises(UsageError, match="no task 'mqra'"):
        plan.select_tasks(["mqra"])


def test_a_needle_may_have_a_depth(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    needle = PLAN.replace("task.mqar", "task.needle-en").replace("vocab = 16", "vocab = 200")
    needle = needle.replace("[[16, 1], [20, 2]]", "[[64, 1]]").replace("[[32, 2]]", "[[90, 2]]")
    path.write_text(needle, encoding="utf-8")
    (anywhere,) = read_plan(path).check().tasks
    assert "depth" not in anywhere.to_dict()
    path.write_text(f"{needle}depth = 0.25", encoding="utf-8")
    (spec,) = read_plan(path).check().tasks
    assert getattr(spec.task, "depth", None) == 0.25
    assert TaskSpec.from_dict(spec.to_dict()) == spec
    for depth, message in (("2.0", "from 0 to 1, not 2"), ('"deep"', "a number from 0 to 1")):
        path.write_text(f"{needle}depth = {depth}", encoding="utf-8")
        with pytest.raises(UsageError, match=message):
            read_plan(path).check()
    path.write_text(f"{PLAN}depth = 0.5", encoding="utf-8")
    with pytest.raises(UsageError, match="unknown key 'depth'"):
        read_plan(path)


def test_widths_make_an_entry_of_each(plan: RecallPlan) -> None:
    spread = replace(plan, widths=(32, 64)).at_widths()
    assert [e.name for e in spread] == [
        "attention 32", "attention 64", "textbook 32", "textbook 64",
    ]  # fmt: skip
    assert spread[1].settings["model.width"] == 64


def test_an_exam_survives_being_written(plan: RecallPlan) -> None:
    spec = plan.tasks[0]
    assert TaskSpec.from_dict(spec.to_dict()) == spec


def test_code_of_a_recall_run_covers_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed task is another code for a run of recall, and the same one for a comparison."""
    root = tmp_path / "holo_cli"
    folders = shutil.ignore_patterns("__pycache__", "configs", "visualize", "cli")
    shutil.copytree(code_fingerprint.ROOT, root, ignore=folders)
    monkeypatch.setattr(code_fingerprint, "ROOT", root)
    trained, recalled = (
        code_fingerprint.code_fingerprint("vanilla"),
        code_fingerprint.code_fingerprint("vanilla", "recall"),
    )
    assert trained != recalled
    for changed in ("tasks/mqar.py", "recall/train.py", "recall/compressor.py"):
        path = root / "bench" / changed
        path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
        assert code_fingerprint.code_fingerprint("vanilla") == trained
        assert code_fingerprint.code_fingerprint("vanilla", "recall") != recalled
        recalled = code_fingerprint.code_fingerprint("vanilla", "recall")
