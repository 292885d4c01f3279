"""Exact hashes and MinHash signatures."""

from __future__ import annotations

import random

import numpy as np
import pytest

from benchmarks.near_duplicates import TOLERANCE, altered
from holo_cli.data.cleaning.fingerprint import (
    SHINGLE,
    VALUES,
    exact,
    folded,
    jaccard,
    shingles,
    signatures,
)
from holo_cli.data.sources.stories.grammar import tell_story

STORY = tell_story(1, "ko").text


def slow_jaccard(a: str, b: str) -> float:
    first, second = (
        {text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)} for text in (a, b)
    )
    return len(first & second) / len(first | second)


def test_spaces_and_capitals_make_no_difference() -> None:
    assert exact(folded("Two  Words\n\nhere")) == exact(folded("two words here"))
    assert exact(folded("Two words here")) != exact(folded("Two words there"))
    assert len(exact("")) == 16


def test_similarity_is_that_of_the_sets_of_shingles() -> None:
    a, b = folded(STORY), folded(tell_story(2, "ko").text + STORY[:200])
    assert jaccard(a, b) == pytest.approx(slow_jaccard(a, b))
    assert jaccard(STORY, STORY.replace(" ", "\n")) == 1


@pytest.mark.parametrize("text", ["", "a", "abcd", "abcde"])
def test_the_shortest_texts_have_one_shingle(text: str) -> None:
    assert len(shingles(text)) == 1
    assert jaccard(text, text) == 1


def test_short_texts_differ() -> None:
    assert len({int(shingles(t)[0]) for t in ("", "a", "b", "ab", "ba", "abcd")}) == 6


def test_signatures_estimate_the_similarity() -> None:
    texts = [
        folded(" ".join(tell_story(n, "en").text for n in range(3 * k, 3 * k + 3)))
        for k in range(9)
    ]
    rows = signatures(texts)
    assert rows.shape == (9, VALUES)
    assert rows.dtype == np.uint16
    assert np.array_equal(rows[3:5], signatures(texts[3:5]))  # whatever batch they are in
    for i in range(9):
        for j in range(i):
            estimate, true = float((rows[i] == rows[j]).mean()), jaccard(texts[i], texts[j])
            assert abs(estimate - true) < 5 * np.sqrt(true * (1 - true) / VALUES) + 1e-9
    assert signatures([]).shape == (0, VALUES)


@pytest.mark.parametrize("similarity", [0.5, 0.8])
def test_planted_copies_are_as_similar_as_they_should_be(similarity: float) -> None:
    text = " ".join(tell_story(n, "en").text for n in range(4))
    others = tell_story(9, "en").text.split()
    copy = altered(text, others, similarity, random.Random(2))
    assert abs(jaccard(text, copy) - similarity) <= TOLERANCE
    assert copy == altered(text, others, similarity, random.Random(2))
