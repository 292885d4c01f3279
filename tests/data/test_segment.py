"""Text files are split at empty lines or into pieces, without loss or change."""

from __future__ import annotations

import random

import pytest

from holo_cli.data import segment


def blocks(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


def split(text: str, *, whole: bool, size: int = 7) -> list[str]:
    return list(segment.documents(blocks(text, size), whole=whole))


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_documents_lie_between_two_empty_lines(size: int, end: str) -> None:
    text = "\n\n\nfirst\n\nstill first\n\n\nsecond\n \n\t\n\n\nthird\n\n\n\n".replace("\n", end)
    assert split(text, whole=True, size=size) == ["first\n\nstill first", "second", "third"]


def test_short_documents_stay_whole_even_if_there_are_few() -> None:
    assert split("one\n\n\ntwo\n", whole=False) == ["one\n", "two\n"]


@pytest.mark.parametrize(
    "unit",
    ["word ", "A line of text.\n", "A paragraph.\nOf two lines.\n\n", "한글 문장입니다. ", "x"],
)
def test_pieces_joined_are_the_text(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    found = split(text, whole=False, size=5000)
    assert "".join(found) == text
    assert len(found) > 10
    assert all(segment.SHORTEST <= len(piece) <= segment.LONGEST for piece in found[:-1])
    if unit != "x":
        assert all(piece.endswith(unit[-1]) for piece in found)


def test_pieces_end_at_paragraphs_if_there_are_any() -> None:
    text = "\n\n".join(["A sentence. " * 20] * 400)
    assert all(piece.endswith("\n\n") for piece in split(text, whole=False)[:-1])


def test_one_giant_line_takes_little_memory() -> None:
    def endless() -> object:
        for _ in range(2000):
            yield "0123456789" * 100

    longest = 0
    for piece in segment.documents(endless(), whole=False):  # type: ignore[arg-type]
        longest = max(longest, len(piece))
    assert longest <= segment.LONGEST


def test_separators_are_counted_no_further_than_needed() -> None:
    lines = ["a\n", "\n", "\n", "\n", "b\n"] * 100
    assert segment.count_separators(lines) == segment.ENOUGH
    assert segment.count_separators(lines[:10]) == 2
    assert segment.count_separators(["a\n", "\n", "b\n"]) == 0


def test_a_single_text_is_cut_in_two_near_the_share() -> None:
    random_ = random.Random(0)
    for _ in range(100):
        text = "".join(random_.choice("ab \n") for _ in range(random_.randint(2, 400)))
        head, tail = segment.split_in_two(text, 0.1)
        assert head
        assert tail
        assert head + tail == text
    head, tail = segment.split_in_two("word " * 1000, 0.1)
    assert len(tail) == pytest.approx(500, abs=10)
