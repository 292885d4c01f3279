"""Findings and page say what the scores say."""

from __future__ import annotations

from pathlib import Path

from holo_cli.bench.recall.page import findings, write_page
from holo_cli.bench.recall.plan import RecallPlan
from holo_cli.bench.recall.run import Recall, open_recall
from holo_cli.experiment.runner import RunOptions


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
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Associative recall: not run." in text
    assert "<h2>Associative recall</h2>" not in text
