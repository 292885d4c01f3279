"""Likelihoods where the tokenizer lacks characters, and in batches of any size."""

from __future__ import annotations

import pytest

from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.errors import UsageError
from holo_cli.inference.evaluation import likelihood
from holo_cli.inference.evaluation.likelihood import continuations, rolling
from holo_cli.inference.generation.loaded_model import LoadedModel
from tests.inference.inference_fakes import Attentive, Chain, make_loaded

LETTERS = CharTokenizer("\n abc")


@pytest.fixture
def loaded() -> LoadedModel:
    return make_loaded(Chain(), LETTERS)


def test_a_text_is_not_scored_without_the_characters_it_needs(loaded: LoadedModel) -> None:
    assert rolling(loaded, ["abc"])[0] < 0
    with pytest.raises(UsageError, match="contains 글 한, which the tokenizer") as error:
        rolling(loaded, ["abc", "abc한글한글"])
    assert "--tokenizer bpe" in error.value.next_step


@pytest.mark.parametrize("choice", [" a한", "한글"])
def test_nor_is_a_choice(loaded: LoadedModel, choice: str) -> None:
    with pytest.raises(UsageError, match=r"contains .*한, which the tokenizer"):
        continuations(loaded, [("a", " b"), ("a", choice)])


def test_a_question_is_read_without_them(loaded: LoadedModel) -> None:
    known, unknown = continuations(loaded, [("a b", " c"), ("a한 b글", " c")])
    assert unknown == known


@pytest.mark.parametrize("rows", [1, 3])
def test_any_number_of_rows_gives_the_same(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = make_loaded(Attentive(limit=16))
    texts = ["The river ran to the sea.", "x", "and the night fell"]
    pairs = [(text, " y") for text in texts]
    expected, whole = continuations(loaded, pairs), rolling(loaded, texts)
    sizes: list[int] = []
    batches = likelihood._batches

    def counted(*arguments: object) -> object:
        for numbers in batches(*arguments):  # type: ignore[arg-type]
            sizes.append(len(numbers))
            yield numbers

    monkeypatch.setattr(likelihood, "_batches", counted)
    found = continuations(loaded, pairs, rows)
    assert sizes == ([3] if rows == 3 else [1, 1, 1])
    assert [one.logprob for one in found] == pytest.approx([one.logprob for one in expected])
    assert rolling(loaded, texts, rows) == pytest.approx(whole)
    assert max(sizes) == rows
