"""Cleaning changes what it must, counts it, and nothing else."""

from __future__ import annotations

import unicodedata
from collections import Counter

from holo_cli.data.clean import clean, normalise


def test_a_clean_text_goes_through_untouched() -> None:
    counts: Counter[str] = Counter()
    text = "한글 text,\n\n\ttabs  spaces \n👨‍👩‍👧 \u200b\u2028 ½"
    assert clean(text, counts) == text
    assert not counts


def test_what_is_removed_is_counted_by_rule() -> None:
    counts: Counter[str] = Counter()
    assert clean("\ufeffa\0b\x1bc\x85d\ud800e\ufffdf\ufffd", counts) == "abcdef"
    assert counts == {"control characters": 5, "undecodable characters": 2}


def test_line_ends_become_one_kind_uncounted() -> None:
    counts: Counter[str] = Counter()
    assert clean("a\r\nb\rc\n", counts) == "a\nb\nc\n"
    assert not counts


def test_jamo_become_syllables() -> None:
    decomposed = unicodedata.normalize("NFD", "한글 é")
    assert normalise(decomposed) == "한글 é"
    assert clean(decomposed, Counter()) == "한글 é"
