"""Tokens as a person reads them: whole characters, no artefacts, the right language."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holo_cli.checkpoint import Header
from holo_cli.checkpoint.header import ChatFormat
from holo_cli.data.chat_format import MARK_NAMES
from holo_cli.data.tokenizers import Tokenizer
from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.errors import UsageError
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.visualize.model_reading import (
    SENTENCES,
    SPECIAL,
    Reading,
    TokenGroup,
    read_text,
    token_groups,
    token_languages,
)
from tests.visualize.conftest import MIXED, make_model


def loaded(tokenizer: Tokenizer, languages: tuple[str, ...] = ("en", "ko")) -> LoadedModel:
    data = {"languages": dict.fromkeys(languages, 5), "markers": True, "documents": 10}
    header = Header(model="vanilla", config={"model": {}}, tokenizer={}, data=data)
    return LoadedModel(make_model(tokenizer.vocab_size), tokenizer, header)


def test_parts_of_a_character_are_named_by_it(tokenizer: Tokenizer) -> None:
    reading = read_text(loaded(tokenizer), "the 배", 100)
    count = len(reading.groups[-1].pieces)
    assert count > 1, "this test needs a tokenizer that cuts Hangul"
    assert reading.labels[-count:] == [f"배 {k}/{count}" for k in range(1, count + 1)]
    everything = "".join(reading.labels) + "".join(reading.data()["faces"])
    assert not any(sign in everything for sign in ("\\x", "Ġ", "▁", "�"))


def test_sentences_name_a_part_of_a_word_inside_its_word() -> None:
    def reading(*pieces: str | list[str]) -> Reading:
        groups = [
            TokenGroup(p if isinstance(p, str) else p[0], [p] if isinstance(p, str) else p[1:])
            for p in pieces
        ]
        special = [replace(g, special=g.text.startswith("<|")) for g in groups]
        return Reading(ids=[], groups=special, languages=[], whole=0, unknown=[])

    english = reading("<|en|>", "The", " hu", "ngry", " cat", ",", " f", "ish", ".", "\n", "ish")
    assert english.in_words == [
        "<|en|>", "The", "[hu]ngry", "hu[ngry]", "cat", ",", "[f]ish", "f[ish]", ".", "⏎", "ish",
    ]  # fmt: skip
    korean = reading(" 동", ["생", "a", "b", "c"], "에게", "<|end|>", "에게", " 물", "고기")
    parts = [f"동[생 {k}/3]에게".replace(" ", "\u00a0") for k in (1, 2, 3)]
    assert korean.in_words == [
        "[동]생에게", *parts, "동생[에게]", "<|end|>", "에게", "[물]고기", "물[고기]",
    ]  # fmt: skip
    assert reading("饥饿", "的猫").in_words == ["饥饿", "的猫"]  # no spaces: no words to be in


def test_groups_give_the_text_back(tokenizer: Tokenizer) -> None:
    text = "the cat\n고양이 👩‍🚀!"
    groups = token_groups(tokenizer, tokenizer.encode(text))
    assert "".join(group.text for group in groups) == text
    assert sum(len(group.pieces) for group in groups) == len(tokenizer.encode(text))


def test_a_character_cut_off_at_the_end_stays_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a배")
    groups = token_groups(tokenizer, ids[:-1])
    assert groups[0].text == "a"
    assert groups[-1].text.startswith("\\x")


def test_each_token_has_its_language(tokenizer: Tokenizer) -> None:
    reading = read_text(loaded(tokenizer), MIXED, 100)
    assert reading.languages[:2] == [SPECIAL, SPECIAL]
    assert len(reading.languages) == len(reading.ids) == len(reading.labels)
    words = list(zip(reading.labels[2:], reading.languages[2:], strict=True))
    korean = [label for label, language in words if language == "ko"]
    english = [label for label, language in words if language == "en"]
    assert len(korean) + len(english) == len(words)
    assert "".join(english).replace(" ", "") == "Thecatwalked."
    assert not any(c.isascii() and c.isalpha() for label in korean for c in label)


def test_languages_of_bytes_that_end_within_a_character() -> None:
    pieces = [b"cat ", "고".encode(), "양".encode()[:2]]
    found = token_languages(pieces, [False] * 3, ("en", "ko"))
    assert found[1] == "ko"
    assert len(found) == 3
    assert token_languages([b"", b"!"], [True, False], ("en", "ko")) == [SPECIAL, ""]


def test_contexts_show_the_words_around(tokenizer: Tokenizer) -> None:
    reading = read_text(loaded(tokenizer), "the cat gave the dog\na fish", 100)
    for at, (before, after) in enumerate(reading.contexts):
        assert "\n" not in before + after
        assert "<|" not in before + after
        if reading.labels[at] == "cat":
            assert (before, after) == ("the ", " gave the dog a fish")


def test_default_text_speaks_every_language_of_the_data(tokenizer: Tokenizer) -> None:
    both = read_text(loaded(tokenizer), None, 1000)
    assert (
        "".join(g.text for g in both.groups if not g.special) == SENTENCES["en"] + SENTENCES["ko"]
    )
    assert set(both.languages) == {SPECIAL, "en", "ko"}
    korean = read_text(loaded(tokenizer, ("ko",)), None, 1000)
    assert set(korean.languages) == {SPECIAL, "ko"}


def test_a_model_of_conversations_is_said_to_read_plain_text(tokenizer: Tokenizer) -> None:
    base = loaded(tokenizer)
    talk = loaded(tokenizer.with_specials(MARK_NAMES))
    talk.header.data.chat = ChatFormat()
    for text in (None, "the cat"):
        assert "conversations" not in read_text(base, text, 100).section().note
        assert "reads plain text here" in read_text(talk, text, 100).section().note


def test_what_is_not_shown_is_said(tokenizer: Tokenizer) -> None:
    cut = read_text(loaded(tokenizer), "the cat " * 50, 20)
    assert len(cut.ids) == 20
    assert cut.section().note.startswith(f"The first 20 of {cut.whole} tokens.")
    limited = read_text(loaded(tokenizer), "the cat " * 500, 10_000)
    assert len(limited.ids) == 256  # the context
    letters = CharTokenizer("abc ").with_specials(["<|en|>", "<|ko|>"])
    assert "cannot write: x 가" in read_text(loaded(letters), "a가xb", 50).section().note


def test_an_empty_text_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="no text"):
        read_text(loaded(tokenizer), " \n", 50)


def test_a_short_room_is_shared_by_the_languages(tokenizer: Tokenizer) -> None:
    """As where a token is a letter: the sample must not end before the second language begins."""
    for room in (20, 31, 64):
        cut = read_text(loaded(tokenizer), None, room)
        assert len(cut.ids) == room
        counts = [cut.languages.count(code) for code in ("en", "ko")]
        assert abs(counts[0] - counts[1]) <= 1
        assert "the beginning of each text" in cut.section().note


def test_languages_without_a_sample_and_texts_in_others_are_said(tokenizer: Tokenizer) -> None:
    assert set(SENTENCES) >= {"en", "ko", "ja", "zh", "de", "es", "fr"}
    silent = read_text(loaded(tokenizer, ("en", "tlh")), None, 100)
    assert "no sample sentence for tlh" in silent.section().note
    foreign = read_text(loaded(tokenizer, ("en", "de")), "고양이가 걸었다.", 100)
    assert "trained on de, en, and this text is in ko" in foreign.section().note
    assert "trained on" not in read_text(loaded(tokenizer), "고양이가 걸었다.", 100).section().note


def test_a_sample_is_repeated_where_a_page_needs_a_long_text(tokenizer: Tokenizer) -> None:
    short = read_text(loaded(tokenizer), None, 200)
    assert len(read_text(loaded(tokenizer), None, 200, least=200).ids) == 200
    assert len(short.ids) < 200
    assert len(read_text(loaded(tokenizer), "the cat", 200, least=200).ids) < 20
    # a page on what repeats: within each document, not one document after the other
    twice = read_text(loaded(tokenizer), None, 500, twice=True)
    begun = [group.text for group in twice.groups if group.special]
    assert begun == [group.text for group in short.groups if group.special]
    assert twice.whole > 1.9 * short.whole - len(begun)
