"""A prompt is encoded as a document begins in the training data."""

from __future__ import annotations

import pytest

from holo_cli.checkpoint.header import DataInfo
from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.errors import UsageError
from holo_cli.inference.generation.prompt import PromptFormat, guess_language
from tests.inference.inference_fakes import ByteTokenizer

BOTH = ByteTokenizer(["<|en|>", "<|ko|>"])
END, EN, KO = 256, 257, 258


def form(tokenizer: ByteTokenizer | CharTokenizer = BOTH, **data: object) -> PromptFormat:
    return PromptFormat.of(tokenizer, DataInfo.model_validate(data))


def test_with_markers_the_language_is_found() -> None:
    marked = form(markers=True)
    assert marked.encode("hi") == [END, EN, *b"hi"]
    assert marked.encode("안녕") == [END, KO, *"안녕".encode()]
    assert marked.encode("안녕", "en") == [END, EN, *"안녕".encode()]
    assert marked.encode("") == [END, EN]


def test_end_before_the_prompt_where_there_were_documents() -> None:
    assert form(documents=32).encode("hi") == [END, *b"hi"]
    assert form(documents={"train": 30, "val": 2}).encode("hi") == [END, *b"hi"]
    assert form(documents=31).encode("hi") == [*b"hi"]
    assert form(documents=32).encode("") == [END]


def test_markers_of_the_tokenizer_alone_are_not_used() -> None:
    """The tokenizer may know markers that this model was never shown."""
    assert form(markers=False).encode("안녕") == [*"안녕".encode()]


def test_empty_prompt_without_documents() -> None:
    assert form().encode("") == [*b"\n"]
    assert form(CharTokenizer("ab c")).encode("") == [2]  # the space; it has no line end
    assert form(CharTokenizer("xy")).encode("") == [0]
    assert form(CharTokenizer("xy")).encode("안녕") == [0]  # nothing of it is in the alphabet


def test_unknown_language_names_the_known() -> None:
    with pytest.raises(UsageError, match=r"was not trained on the language 'fr'.*Known: en, ko"):
        form(markers=True).encode("oui", "fr")
    with pytest.raises(UsageError, match=r"'ko'.*Known: en"):
        form(languages={"en": 5}).encode("hi", "ko")
    assert form(languages={"en": 5}).encode("hi", "en") == [*b"hi"]
    assert form().encode("hi", "xx") == [*b"hi"]  # nobody knows what it was trained on
    assert form(languages={"": 5}).encode("hi", "xx") == [*b"hi"]


@pytest.mark.parametrize(
    ("text", "known", "wanted"),
    [
        ("Once upon a time", ["en", "ko"], "en"),
        ("옛날 옛적에", ["en", "ko"], "ko"),
        ("ㅋㅋㅋ", ["en", "ko"], "ko"),
        ("GPT와 CPU", ["en", "ko"], "ko"),
        ("Im Wald lebte ein kleiner Fuchs allein.", ["de", "en", "fr", "ko"], "de"),
        ("Im Wald", ["de", "en", "fr", "ko"], "en"),
        ("나는 Python을 좋아한다", ["en", "ko"], "ko"),
        ("안녕", ["en", "de"], "en"),
        ("hello", ["ko"], "ko"),
        ("hello", ["ko", "ja"], "ja"),
        ("안녕", ["ko", "ja"], "ko"),
        ("123", ["en", "ko"], "en"),
        ("", ["en", "ko"], "en"),
    ],
)
def test_guess_language(text: str, known: list[str], wanted: str) -> None:
    assert guess_language(text, known) == wanted


def test_only_language_codes_are_languages() -> None:
    tokenizer = ByteTokenizer(["<|en|>", "<|endoftext|>", "<|im_start|>"])
    assert form(tokenizer, markers=True).languages == ("en",)


def test_ids_that_are_never_sampled() -> None:
    assert BOTH.unsampled(261) == [EN, KO, 259, 260]
