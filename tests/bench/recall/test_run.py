"""Which rate counts, and what is said of runs that failed or are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holo_cli.bench.recall.page import findings
from holo_cli.bench.recall.run import Recall, open_recall
from holo_cli.experiment.runner import RunOptions


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
