"""Normalization changes and counts what it must, and nothing else."""

from __future__ import annotations

import unicodedata
from collections import Counter

from holo_cli.data.normalize import normalize, to_nfc


def test_a_normalized_text_is_unchanged() -> None:
    counts: Counter[str] = Counter()
    text = "한글 text,\n\n\ttabs  spaces \n👨‍👩‍👧 \u200b\u2028 ½"
    assert normalize(text, counts) == text
    assert not counts


def test_what_is_removed_is_counted_by_rule() -> None:
    counts: Counter[str] = Counter()
    assert normalize("\ufeffa\0b\x1bc\x85d\ud800e\ufffdf\ufffd", counts) == "abcdef"
    assert counts == {"control characters": 5, "undecodable characters": 2}


def test_line_ends_are_unified_and_not_counted() -> None:
    counts: Counter[str] = Counter()
    assert normalize("a\r\nb\rc\n", counts) == "a\nb\nc\n"
    assert not counts


def test_jamo_become_syllables() -> None:
    decomposed = unicodedata.normalize("NFD", "한글 é")
    assert to_nfc(decomposed) == "한글 é"
    assert normalize(decomposed, Counter()) == "한글 é"


def test_every_control_character_is_found() -> None:
    """The check of bytes finds every control character; false alarms are allowed."""
    codes = [*range(0x100), 0x2028, 0xAC00, 0xD7A3, 0xD800, 0xDFFF, 0xFEFF, 0x1F600]
    taken = {*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0xD800, 0xDFFF, 0xFEFF}
    for code in codes:
        counts: Counter[str] = Counter()
        found = normalize(f"a{chr(code)}가", counts)
        kept = "" if code in taken - {0x0D} else "\n" if code == 0x0D else chr(code)
        assert found == f"a{kept}가", hex(code)
        assert counts["control characters"] == (code in taken - {0x0D}), hex(code)
