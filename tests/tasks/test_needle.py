"""Needle in a story: one place tells the answer, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from holo_cli.errors import UsageError
from holo_cli.tasks import TaskCase
from holo_cli.tasks.needle import EnglishNeedle, KoreanNeedle, Needle
from holo_cli.tasks.needle_words import WORDINGS, fixed_words, pool

NEEDLES = [EnglishNeedle, KoreanNeedle]
V = 384


@pytest.mark.parametrize("needle", NEEDLES)
@pytest.mark.parametrize("items", [1, 3])
def test_an_answer_stands_in_one_place_only(needle: type[Needle], items: int) -> None:
    x, y = needle(V).sample(np.random.default_rng(0), 300, TaskCase(160, items))
    words = pool(needle.language, V).words
    secrets = [words.index(word) for word in WORDINGS[needle.language].secrets]
    assert (np.isin(x, secrets).sum(axis=1) == items).all()
    assert ((x == y[:, -1:]).sum(axis=1) == 1).all()
    assert not np.isin(pool(needle.language, V).tokens, secrets).any()


@pytest.mark.parametrize("needle", NEEDLES)
def test_neither_the_name_nor_the_story_tells_the_answer(needle: type[Needle]) -> None:
    """Guessing the commonest answer by the name asked for, or by the words of the story, fitted on
    half of the rows, is right by chance on the other half."""
    task, language = needle(V), needle.language
    x, y = task.sample(np.random.default_rng(0), 6000, TaskCase(80, 1))
    words = pool(language, V).words
    names = [words.index(name) for name in WORDINGS[language].names]
    asked = x[:, -len(WORDINGS[language].question.split()) :]
    name = np.array([next(v for v in row if v in names) for row in asked.tolist()])
    for cue in (name, x[:, 0], x[:, 20]):
        table = np.zeros((V, V), dtype=int)
        np.add.at(table, (cue[:3000], y[:3000, -1]), 1)
        right = (table.argmax(axis=1)[cue[3000:]] == y[3000:, -1]).mean()
        # x[:, 20] is the answer itself where the fact happens to lie there: one row in some forty
        assert right < task.chance + 0.04
    assert len(np.unique(name)) == len(names)


@pytest.mark.parametrize("needle", NEEDLES)
def test_the_fact_lies_at_the_depth_asked_for(needle: type[Needle]) -> None:
    case = TaskCase(240, 1)
    ends = []
    for depth in (0.0, 0.5, 1.0):
        x, y = needle(V, depth).sample(np.random.default_rng(0), 50, case)
        places = (x == y[:, -1:]).argmax(axis=1)
        ends.append((places.min(), places.max()))
    assert ends[0][1] < 15
    assert ends[1][0] > 80
    assert ends[1][1] < 160
    assert ends[2][0] > 240 - 30
    x, y = needle(V).sample(np.random.default_rng(0), 400, case)  # anywhere
    spread = (x == y[:, -1:]).argmax(axis=1)
    assert np.percentile(spread, 10) < 50
    assert np.percentile(spread, 90) > 160
    with pytest.raises(UsageError, match="from 0 to 1, not"):
        needle(V, 1.5).check(case)


@pytest.mark.parametrize("needle", NEEDLES)
def test_the_vocabulary(needle: type[Needle]) -> None:
    stories = pool(needle.language, V)
    assert len(set(stories.words)) == len(stories.words) == V
    assert (stories.tokens == 0).mean() < 0.2  # rare words
    assert needle.least_vocab > fixed_words(needle.language)
    assert stories.tokens.max() == V - 1
    text = " ".join(stories.words[v] for v in stories.tokens[: stories.sentences[1]])
    assert text[-1] in ".!?"
