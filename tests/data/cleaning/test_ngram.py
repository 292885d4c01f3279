"""The character model against plain counting, and the texts that it separates."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from benchmarks import synthetic_junk
from holo_cli.data.cleaning import CleaningSettings
from holo_cli.data.cleaning.document_filter import DocumentFilter
from holo_cli.data.cleaning.ngram import ORDER, CharacterModel, Reference, load_reference
from holo_cli.data.document import Document
from holo_cli.data.sources.stories.grammar import tell_story
from holo_cli.errors import DataError


def slow_bits(learnt: list[str], text: str) -> float:
    """Witten and Bell's interpolation, with dicts."""
    followers: dict[str, Counter[str]] = defaultdict(Counter)
    for one in learnt:
        for i, character in enumerate(one):
            for length in range(min(i, ORDER - 1) + 1):
                followers[f"{length}:{one[i - length : i]}"][character] += 1
    total = 0.0
    for i, character in enumerate(text):
        chance = 1 / 0x110000
        for length in range(min(i, ORDER - 1) + 1):
            seen = followers.get(f"{length}:{text[i - length : i]}")
            if seen:
                kinds = len(seen)
                chance = (seen[character] + kinds * chance) / (seen.total() + kinds)
        total -= math.log2(chance)
    return total / len(text)


def test_as_counted_by_hand() -> None:
    learnt = [tell_story(n, ("en", "ko")[n % 2]).text for n in range(6)]
    model = CharacterModel(learnt)
    for text in ("the boat", "zzz", "q", "🧑‍🚀 나무"):
        assert model.bits_per_character(text) == pytest.approx(slow_bits(learnt, text), rel=1e-9)
    for text in (
        tell_story(8, "en").text,
        tell_story(9, "ko").text,
    ):  # long enough for a few collisions
        assert model.bits_per_character(text) == pytest.approx(slow_bits(learnt, text), rel=0.01)
    assert model.bits_per_character("") == 0


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(tell_story(n, language).text for n in range(250) for language in ("en", "ko"))


def test_a_ratio_is_about_one_for_the_like_and_large_for_junk(reference: Reference) -> None:
    assert set(reference.bits) == {"en", "ko"}
    for language in ("en", "ko"):
        for n in range(900, 910):
            assert 0.3 < reference.ratio(tell_story(n, language).text) < 2
    noise = "".join(chr(0xAC00 + 37 * n % 11172) for n in range(400))
    assert reference.ratio(noise, "ko") > 5
    assert reference.ratio("xq zvk wjjp qqx " * 20, "en") > 5


def test_nothing_is_said_about_a_language_the_reference_lacks(reference: Reference) -> None:
    german = "Der Leuchtturmwärter blickte auf das Meer und wartete auf die Rückkehr des Bootes."
    assert reference.ratio(german) == 0


def test_the_filter_drops_what_the_reference_finds_strange(tmp_path: Path) -> None:
    path = tmp_path / "좋은 글.txt"
    path.write_text("\n\n\n".join(tell_story(n, "ko").text for n in range(300)), encoding="utf-8")
    screen = DocumentFilter(CleaningSettings.parse(f"none,reference={path}"))
    assert screen.judge(Document(tell_story(900, "ko").text)) == ""
    assert screen.judge(Document(synthetic_junk.make("random", 5), "ko")) == "perplexity"
    lax = DocumentFilter(CleaningSettings.parse(f"none,reference={path},perplexity=1000"))
    assert lax.judge(Document(synthetic_junk.make("random", 5), "ko")) == ""


def test_a_reference_that_is_too_short_or_not_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("A line.", encoding="utf-8")
    with pytest.raises(DataError, match="too short"):
        load_reference(CleaningSettings.parse(f"reference={path}"))
    path.write_bytes(b"\xb0\xa1" * 100)
    with pytest.raises(DataError, match="cannot be read"):
        load_reference(CleaningSettings.parse(f"reference={path}"))
