"""The size and the word count of a document."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace

import pytest

from holo_cli.data import document as documents
from holo_cli.data.document import Document, count_words


def test_the_size_is_of_the_text_that_is_there() -> None:
    document = Document("등불 lamp")
    assert document.size == 11
    assert replace(document, language="ko").size == 11
    assert replace(document, text="등불").size == 6
    assert Document("a \ud800").size == 5
    assert document == Document("등불 lamp")  # whether its size was asked for or not


@pytest.mark.parametrize("alphabet", ["ab \n", "가 \u3000\xa0", " ", "a"])
def test_words_are_those_of_split(alphabet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_BLOCK", 7)
    chance = random.Random(0)
    for length in (0, 1, 6, 7, 8, 14, 15, *range(40, 60)):
        text = "".join(chance.choices(alphabet, k=length))
        assert count_words(text) == len(text.split())


def test_words_of_a_giant_text_are_not_kept() -> None:
    text = "the lamp burns on " * 200_000
    tracemalloc.start()
    try:
        assert count_words(text) == 800_000
        assert tracemalloc.get_traced_memory()[1] < len(text)
    finally:
        tracemalloc.stop()
