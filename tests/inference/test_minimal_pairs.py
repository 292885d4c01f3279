"""Minimal pairs: chance is one half by construction, and only what is right is right."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from holo_cli.data.sources.stories.josa import final
from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.errors import UsageError
from holo_cli.inference.evaluation.likelihood import rolling
from holo_cli.inference.minimal_pairs import PHENOMENA, Phenomenon
from holo_cli.inference.minimal_pairs.score import (
    Scorer,
    languages_to_score,
    model_scorer,
    score_pairs,
    token_counts,
)
from tests.inference.inference_fakes import Chain, make_loaded

ALL = [(code, p) for code, own in PHENOMENA.items() for p in own]
NAMES = [f"{code} {p.name}" for code, p in ALL]


def even(texts: Sequence[str]) -> list[float]:
    return [1.0] * len(texts)


@pytest.fixture(params=ALL, ids=NAMES)
def phenomenon(request: pytest.FixtureRequest) -> Phenomenon:
    found: Phenomenon = request.param[1]
    return found


def test_there_are_enough() -> None:
    assert len(PHENOMENA["en"]) >= 3
    assert len(PHENOMENA["ko"]) >= 5
    assert len(set(NAMES)) == len(NAMES)


def test_thousands_of_different_pairs(phenomenon: Phenomenon) -> None:
    pairs = phenomenon.draw(2000)
    assert phenomenon.pairs >= 4000
    assert len(set(pairs)) == 2000
    assert pairs == phenomenon.draw(2000)
    assert pairs != phenomenon.draw(2000, seed=1)


def test_every_pair_there_is_is_another_one() -> None:
    """Of the smallest phenomenon, all of them."""
    smallest = min((p for _, p in ALL), key=lambda p: p.pairs)
    every = [pair for n in range(smallest.pairs // 2) for pair in smallest.couple(n)]
    assert len(set(every)) == len(every) == smallest.pairs


def test_two_sentences_differ_in_one_word(phenomenon: Phenomenon) -> None:
    for good, bad in phenomenon.draw(200):
        first, second = good.split(), bad.split()
        assert len(first) == len(second)
        assert sum(a != b for a, b in zip(first, second, strict=True)) == 1
        assert good[-1] == "."
        assert "  " not in good
        assert " ." not in good
        assert "{" not in good + bad
        assert abs(len(good) - len(bad)) <= 4


def words(phenomenon: Phenomenon) -> Scorer:
    """Knows how common words are, of the phenomenon's own sentences; in Korean, where particles are
    joined to words, how common characters are."""
    texts = [text for pair in phenomenon.draw(1000) for text in pair]
    counts = Counter(word for text in texts for word in text.split())
    letters = Counter("".join(texts))
    by_words = phenomenon in PHENOMENA["en"]

    def score(texts: Sequence[str]) -> list[float]:
        if by_words:
            return [float(sum(counts[w] for w in text.split())) for text in texts]
        return [float(sum(letters[c] for c in text)) for text in texts]

    return score


def right(phenomenon: Phenomenon, score: Scorer, count: int = 1000) -> float:
    found = 0.0
    for good, bad in phenomenon.draw(count, seed=3):
        first, second = score([good, bad])
        found += 0.5 if abs(first - second) < 1e-9 else first > second
    return found / count


def test_counting_words_is_right_in_half_of_the_pairs(phenomenon: Phenomenon) -> None:
    """Exactly: what a form gains where it is right it loses where it is wrong."""
    if phenomenon.name.startswith("honorific"):  # words of the two sides are joined to their forms
        assert right(phenomenon, lambda t: [float(len(x)) for x in t]) == 0.5
    else:
        assert right(phenomenon, words(phenomenon)) == 0.5
    assert right(phenomenon, lambda texts: [float(len(text)) for text in texts]) == 0.5
    assert right(phenomenon, lambda texts: [-float(len(text)) for text in texts]) == 0.5
    assert right(phenomenon, even) == 0.5


def test_a_scorer_by_chance_and_one_that_knows() -> None:
    rng = random.Random(0)
    scores = score_pairs(lambda texts: [rng.random() for _ in texts], even, ["en", "ko"], 400)
    assert [s.phenomenon for s in scores if s.language == "ko"][-1] == "all"
    for score in scores:
        low, high = score.interval
        assert low < score.accuracy < high
        assert score.accuracy == pytest.approx(0.5, abs=0.09)
        assert score.shorter == score.pairs / 2
    whole = [s for s in scores if s.phenomenon == "all"]
    assert all(s.accuracy == pytest.approx(0.5, abs=0.03) for s in whole)
    assert all(s.to_dict()["both_right"] == pytest.approx(0.25, abs=0.04) for s in whole)
    good = {pair.good for _, p in ALL for pair in p.draw(400)}
    for score in score_pairs(lambda texts: [t in good for t in texts], even, ["en", "ko"], 400):
        assert (score.accuracy, score.to_dict()["both_right"]) == (1.0, 1.0)
        assert score.interval[1] == 1.0
    for score in score_pairs(lambda texts: [t not in good for t in texts], even, ["en"], 400):
        assert score.accuracy == 0.0


def test_particles_are_those_of_the_last_sound() -> None:
    """Said again in other words: by the final consonant of the noun before them."""
    forms = {"은": "은는", "이": "이가", "을": "을를", "과": "과와", "아": "아야"}
    for phenomenon in PHENOMENA["ko"][:6]:
        for left, right in phenomenon.sides:
            for side in (left, right):
                closed = final(side["noun"]) > 0
                if "으로" in phenomenon.name:
                    assert side["gap"] == ("으로" if final(side["noun"]) not in (0, 8) else "로")
                else:
                    pair = next(p for p in forms.values() if side["gap"] in p)
                    assert side["gap"] == pair[not closed]
    assert {"물", "길", "마을", "굴"} & {
        side["noun"] for p in PHENOMENA["ko"] for both in p.sides for side in both if "noun" in side
    }


def test_most_words_are_those_of_the_stories() -> None:
    """So that a small model can have met them."""
    from holo_cli.data.sources.stories.grammar import tell_story

    for code, share in (("en", 0.97), ("ko", 0.75)):
        read = " ".join(tell_story(n, code).text for n in range(700)).lower()
        known = set(read.replace(".", " ").replace(",", " ").split())
        used = Counter(
            word
            for p in PHENOMENA[code]
            for pair in p.draw(200)
            for word in pair.good.lower().replace(".", " ").replace(",", " ").split()
        )
        met = sum(n for word, n in used.items() if word in known)
        assert met / used.total() > share, code


def test_a_model_is_asked_for_whole_sentences() -> None:
    loaded = make_loaded(Chain())
    pair = PHENOMENA["en"][0].draw(2)[0]
    assert list(model_scorer(loaded)(pair)) == pytest.approx(rolling(loaded, pair))
    assert token_counts(loaded)(["abc", "민"]) == [3, 3]


def test_languages() -> None:
    loaded = make_loaded(Chain())
    assert languages_to_score(loaded, None) == ["en", "ko"]
    assert languages_to_score(loaded, "ko, en,ko") == ["ko", "en"]
    with pytest.raises(UsageError, match="no minimal pairs in the language 'fr'"):
        languages_to_score(loaded, "en,fr")
    with pytest.raises(UsageError, match="lang is empty"):
        languages_to_score(loaded, ",")
    letters = "".join(chr(c) for c in range(32, 127))
    english = make_loaded(Chain(), CharTokenizer("\n" + letters))
    assert languages_to_score(english, "en") == ["en"]
    with pytest.raises(UsageError, match=r"pairs in 'ko' contain .*, which the tokenizer"):
        languages_to_score(english, "ko")
