"""The whole of cleaning."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import synthetic_junk
from holo_cli.data.cleaning import Cleaner, CleaningSettings
from holo_cli.data.document import Document
from holo_cli.data.sources.stories.grammar import tell_story

STORIES = [Document(tell_story(n, ("en", "ko")[n % 2]).text, source="s") for n in range(20)]


def test_none_changes_nothing_and_writes_nothing(tmp_path: Path) -> None:
    cleaner = Cleaner(CleaningSettings.of("none"), tmp_path / "c")
    documents = [Document("x"), Document("x"), Document("\ufffd" * 9)]
    assert cleaner.check_batch(documents) == documents
    assert not cleaner.counts
    assert not (tmp_path / "c").exists()
    assert Cleaner(CleaningSettings.of("none"), tmp_path).state() == {"counts": {}, "remembered": 0}


def test_documents_are_returned_unchanged(tmp_path: Path) -> None:
    cleaner = Cleaner(CleaningSettings(), tmp_path)
    assert cleaner.check_batch(STORIES) == STORIES
    assert cleaner.check_batch([]) == []


def test_each_drop_is_counted_by_its_rule(tmp_path: Path) -> None:
    cleaner = Cleaner(CleaningSettings(), tmp_path)
    given = [
        *STORIES[:5],
        Document(synthetic_junk.make("markup", 0)),
        STORIES[2],
        Document(synthetic_junk.make("markup", 1)),
    ]
    found = cleaner.check_batch(given)
    assert [d is not None for d in found] == [True] * 5 + [False] * 3
    assert cleaner.counts == {"markup": 2, "exact duplicates": 1}


def test_what_a_rule_drops_is_not_remembered(tmp_path: Path) -> None:
    """Else the order of the filters would show in the counts after a change of settings."""
    cleaner = Cleaner(CleaningSettings(), tmp_path)
    text = synthetic_junk.make("keywords", 0)
    assert cleaner.check_batch([Document(text), Document(text)]) == [None, None]
    assert "exact duplicates" not in cleaner.counts


def test_state_is_plain_data_and_restores_the_counts(tmp_path: Path) -> None:
    cleaner = Cleaner(CleaningSettings(), tmp_path)
    cleaner.check_batch([*STORIES, Document(synthetic_junk.make("random", 1))])
    state = json.loads(json.dumps(cleaner.state()))
    cleaner.close()
    again = Cleaner(CleaningSettings(), tmp_path)
    again.restore(state)
    assert again.counts == cleaner.counts
    assert again.check(STORIES[3]) is None
    assert again.check(Document(tell_story(99, "en").text)) is not None


def test_a_score_of_the_dataset_decides_before_the_heuristic(tmp_path: Path) -> None:
    cleaner = Cleaner(CleaningSettings.parse("none,education=3"), tmp_path)
    text = STORIES[0].text
    assert cleaner.check(Document(text, score=3.2)) is not None
    assert cleaner.check(Document(text, score=2.9)) is None
    assert cleaner.counts == {"educational value": 1}
