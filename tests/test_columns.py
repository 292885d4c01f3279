"""Widths in terminal columns, and words kept whole while text arrives."""

from __future__ import annotations

import random
import unicodedata

import pytest

from holo_cli.columns import WordWrap, shown


def wrapped(pieces: list[str], columns: int) -> str:
    wrap = WordWrap(lambda: columns)
    return "".join([*map(wrap.push, pieces), wrap.flush()])


@pytest.mark.parametrize(
    ("text", "width"),
    [("abc", 3), ("한글", 4), (unicodedata.normalize("NFD", "한글"), 4), ("e\u0301", 1), ("🚀", 2)],
)
def test_width(text: str, width: int) -> None:
    assert shown(text) == width


def test_lines_break_at_words_and_hangul_counts_two() -> None:
    assert wrapped(["옛날 옛적에 여우가"], 11) == "옛날 옛적에\n여우가"
    assert wrapped(["옛날 옛적에 여우가"], 10) == "옛날\n옛적에\n여우가"
    assert wrapped(["a fox jumps"], 5) == "a fox\njumps"


def test_line_ends_and_indents_of_the_text_stay() -> None:
    assert wrapped(["a\n\n  b c\n"], 8) == "a\n\n  b c\n"


def test_only_a_word_longer_than_a_line_is_broken() -> None:
    assert wrapped(["ab abcdefgh i"], 4) == "ab\nabcd\nefgh\ni"


def test_chinese_breaks_between_any_letters() -> None:
    assert wrapped(["文字文字文"], 4) == "文字\n文字\n文"


def test_the_pieces_do_not_matter_and_no_line_is_too_long() -> None:
    draw = random.Random(0)
    for _ in range(200):
        text = "".join(draw.choices("ab글 한\n文é", k=60))
        columns = draw.randint(2, 20)
        cuts = sorted(draw.sample(range(60), 5))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, 60], strict=True)]
        made = wrapped(pieces, columns)
        assert made == wrapped([text], columns)
        assert max(map(shown, made.split("\n"))) <= max(columns, 2)
        assert "".join(made.split()) == "".join(text.split())


def test_a_word_is_shown_when_it_is_complete() -> None:
    wrap = WordWrap(lambda: 20)
    assert [wrap.push("the fo"), wrap.push("x "), wrap.flush()] == ["the", " fox", ""]
