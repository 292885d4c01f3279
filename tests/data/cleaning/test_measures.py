"""The measures of the rules against plain computations."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from benchmarks import synthetic_junk
from holo_cli.data.cleaning import measures, words
from holo_cli.data.cleaning.measures import Measures
from holo_cli.data.cleaning.thresholds import thresholds_of
from holo_cli.data.cleaning.words import WordTable
from holo_cli.data.sources.stories.grammar import tell_story

TABLE = WordTable(thresholds_of("en"))


def of(text: str) -> Measures:
    return Measures(text, TABLE)


def texts() -> list[str]:
    """Short texts, long texts (computed with numpy), and repetitive ones."""
    rng = random.Random(1)
    made = [tell_story(n, "en").text for n in range(4)]
    made += [" ".join(rng.choices("abcde", k=k)) for k in (1, 2, 5, 6, 30, 299, 300, 700)]
    made += [" ".join(rng.choices("abc", k=900)) + " " + " ".join(map(str, range(900)))]
    return made + [synthetic_junk.make("repeated", n) for n in range(6)] + ["word " * 50, "", " \n"]


def slow_top(text: str, n: int) -> float:
    found = text.split()
    runs = Counter(tuple(found[i : i + n]) for i in range(len(found) - n + 1))
    if not runs or max(runs.values()) == 1:
        return 0.0
    most = max(runs.values())
    longest = max(sum(map(len, run)) for run, count in runs.items() if count == most)
    return most * longest / sum(map(len, found))


def slow_duplicate(text: str, n: int) -> float:
    found, seen = text.split(), set()
    covered: set[int] = set()
    for i in range(len(found) - n + 1):
        run = tuple(found[i : i + n])
        if run in seen:
            covered.update(range(i, i + n))
        seen.add(run)
    return sum(len(found[i]) for i in covered) / max(sum(map(len, found)), 1)


@pytest.mark.parametrize("number", range(len(texts())))
def test_runs_of_words(number: int) -> None:
    text = texts()[number]
    for n in (2, 3, 4):
        expected = slow_top(text, n)
        assert of(text).top_run(n) == pytest.approx(expected)
        for limit in (0.1, 0.2, 0.5):
            assert (of(text).top_run(n, limit) > limit) == (expected > limit)
    for n in (5, 10):
        expected = slow_duplicate(text, n)
        assert of(text).duplicate_runs(n) == pytest.approx(expected)
        for limit in (0.1, 0.2, 0.5):
            assert (of(text).duplicate_runs(n, limit) > limit) == (expected > limit)


def test_words() -> None:
    found = of("The cat, 12 and 3.5 -- it's “gone” x1")
    assert found.word_count == 9
    assert found.alphabetic() == pytest.approx(6 / 9)
    assert found.stop_words() == pytest.approx(3 / 9)  # the, and, it's
    assert found.mean_word() == pytest.approx(sum(map(len, found.text.split())) / 9)
    assert of("a # b ... c…").symbols() == pytest.approx(3 / 5)


def test_korean_particles_are_the_ends_of_words() -> None:
    table = WordTable(thresholds_of("ko"))
    assert table.is_stop("학교에서")
    assert table.is_stop("갔다.")
    assert table.is_stop("‘나무’를")
    assert not table.is_stop("휴대폰")
    assert not table.is_stop("컵")


def test_a_word_is_a_character_where_no_spaces_are_written() -> None:
    found = Measures("我们 的书。", WordTable(thresholds_of("zh")), spaced=False)
    assert found.word_count == 5
    assert found.alphabetic() == pytest.approx(4 / 5)
    assert found.stop_words() == pytest.approx(1 / 5)


def test_a_full_table_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_LIMIT", 10)
    table = WordTable(thresholds_of("en"))
    for start in range(0, 3000, 7):
        asked = [f"w{n}" for n in range(start, start + 9)] + ["the", "w1", "w1"]
        found = table.look_up(asked)
        assert found.lengths.tolist() == list(map(len, asked))
        assert found.stop == 1
        assert found.rows[-1] == found.rows[-2]
        assert len(set(found.rows.tolist())) == len(set(asked))


def test_lines() -> None:
    found = of("- one.\n\n• two...\n  three\n- one.\n" + "x" * 40 + "!")
    assert len(found.lines) == 5
    assert found.bullets() == 3 / 5
    assert found.ellipses() == 1 / 5
    assert found.line_punctuation() == 4 / 5
    assert found.short_lines() == 4 / 5
    assert found.duplicate_lines == (1 / 5, 6 / (6 + 8 + 5 + 6 + 41))
    assert found.line_ends() == 5 / found.word_count


@pytest.mark.parametrize(
    "markup",
    ['<div class="x">', "</p>", "<BR/>", "&nbsp;", "&#8217;", "[/url]", "{{Infobox|a=b}}"],
)
def test_markup_is_found_and_the_text_around_it_is_not(markup: str) -> None:
    assert of(f"before {markup} after").markup() == pytest.approx(len(markup) / (len(markup) + 13))


@pytest.mark.parametrize(
    "code",
    ["if a < b && c > d: x[i] = y[j]", "Vec<T> and Map<String, u8>", "d = {'a': 1}", "A & B; C",
     "the function of the heart", "fn main() { let x = 3; }"],
)  # fmt: skip
def test_code_is_no_markup(code: str) -> None:
    assert of(code).markup() == 0


def test_common_hangul_are_those_of_ks_x_1001() -> None:
    common = measures.common_hangul()
    assert len(common) == 2350
    assert {"가", "힝", "뷁" if "뷁" in common else "한"} <= common
    assert "똠" not in common  # famous for its absence
    assert of("똠방각하").odd() == pytest.approx(1 / 4)
    assert of("안녕하세요 世界, naïve").odd() == 0
