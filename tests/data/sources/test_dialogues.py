"""The embedded conversations: deterministic, in the chat's form, and answered by their stories."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from functools import cache

import pytest

from holo_cli.data.chat_format import ASSISTANT, ROLES, USER
from holo_cli.data.sources.stories.dialogues import (
    FEWEST_PAIRS,
    FEWEST_PEOPLE,
    FEWEST_WORDS,
    PAIRS,
    PEOPLE,
    REPEAT,
    SOURCES,
    STORY,
    TALK,
    Dialogue,
    dialogues,
    exchanges,
    generate_dialogues,
    tell_dialogue,
)
from holo_cli.data.sources.stories.grammar import LANGUAGES, plots, tell_story

SAMPLE = 400
LEFTOVER = re.compile(r"[{}\[\]|<>~/]|::|\b_\b")


@cache
def told(name: str, language: str) -> list[Dialogue]:
    return [tell_dialogue(n, language, kinds=SOURCES[name]) for n in range(SAMPLE)]


@pytest.fixture
def sample() -> dict[str, list[Dialogue]]:
    return {language: told("dialogues", language) for language in LANGUAGES}


def test_a_smaller_request_is_a_prefix_of_a_larger_one() -> None:
    large = list(dialogues(60))
    assert list(dialogues(20)) == large[:20]
    assert list(itertools.islice(generate_dialogues(), 60)) == large
    sized = list(dialogues(max_bytes=6_000))
    assert sized == large[: len(sized)]
    total = sum(document.size for document in sized)
    assert total <= 6_000 < total + large[len(sized)].size


def test_those_of_a_language_do_not_depend_on_the_other_one() -> None:
    assert list(dialogues(10, languages=["ko"])) == [d for d in dialogues(20) if d.language == "ko"]


def test_another_seed_gives_other_conversations() -> None:
    first, second = ([d.text for d in dialogues(60, seed=seed)] for seed in (0, 1))
    assert first != second


def test_no_other_language() -> None:
    with pytest.raises(ValueError, match="not in 'de'"):
        list(dialogues(1, languages=["de"]))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_user_and_the_assistant_take_turns(
    sample: dict[str, list[Dialogue]], language: str
) -> None:
    for dialogue in sample[language]:
        roles = [message.role for message in dialogue.messages]
        assert roles == [USER, ASSISTANT] * (len(roles) // 2)
        assert set(roles) <= set(ROLES)
        for message in dialogue.messages:
            assert message.text == message.text.strip()
            assert not LEFTOVER.search(message.text), message.text
            assert "  " not in message.text
            korean = sum("가" <= c <= "힣" for c in message.text)
            assert (korean > 0) == (language == "ko"), message.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_an_answer_names_was_said_before(
    sample: dict[str, list[Dialogue]], language: str
) -> None:
    asked = 0
    for dialogue in sample[language]:
        texts = [message.text for message in dialogue.messages]
        for one in dialogue.exchanges:
            at = next(n for n, text in enumerate(texts) if text.endswith(one.question))
            assert texts[at + 1] == one.answer
            asked += 1
            before = "\n".join(texts[: at + 1]).casefold()
            assert one.keys
            for key in one.keys:
                assert key.casefold() in before
                assert key.casefold() in one.answer.casefold()
    assert asked > SAMPLE


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_plot_has_questions_of_its_own(language: str) -> None:
    found: dict[str, set[str]] = {plot: set() for plot in plots(language)}
    for number in range(600):
        story = tell_story(number, language)
        found[story.plot].update(one.answer for one in exchanges(story, _rng()))
    assert min(len(answers) for answers in found.values()) > 8, found


def test_questions_of_a_beginning_are_answered_by_it() -> None:
    story = tell_story(0, "en")
    first = story.paragraphs[0][0]
    some = exchanges(story, _rng(), text=first)
    assert 0 < len(some) < len(exchanges(story, _rng()))
    assert all(key.casefold() in first.casefold() for one in some for key in one.keys)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", SOURCES)
def test_kinds_have_their_shares(name: str, language: str) -> None:
    found = Counter(dialogue.kind for dialogue in told(name, language))
    kinds = SOURCES[name]
    shares = {kind: getattr(kinds, kind) for kind in (TALK, REPEAT, PAIRS, PEOPLE)}
    shares[STORY] = 1 - sum(shares.values())
    for kind, wanted in shares.items():
        assert found[kind] / SAMPLE == pytest.approx(wanted, abs=0.07)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", SOURCES)
def test_only_one_of_several_people_fits_a_question(name: str, language: str) -> None:
    seen = set()
    for dialogue in (one for one in told(name, language) if one.kind == PEOPLE):
        opening = next(m.text for m in dialogue.messages if m.text.count("\n\n") == 1)
        people = opening.partition("\n\n")[0]
        assert len({one.answer for one in dialogue.exchanges}) == len(dialogue.exchanges)
        for one in dialogue.exchanges:
            assert people.count(one.answer) == 1
            (key,) = one.keys
            assert people.casefold().count(key.casefold()) == 1
        seen.add(len(dialogue.exchanges))
    assert seen == set(range(FEWEST_PEOPLE, SOURCES[name].most_people + 1))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", SOURCES)
def test_words_are_repeated_as_they_were_said(name: str, language: str) -> None:
    seen = set()
    for dialogue in (one for one in told(name, language) if one.kind == REPEAT):
        (one,) = dialogue.exchanges
        assert one.question.endswith(f":\n\n{one.answer}")
        assert tuple(one.answer.split()) == one.keys
        seen.add(len(one.keys))
    assert seen == set(range(FEWEST_WORDS, SOURCES[name].most_words + 1))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", SOURCES)
def test_pairs_of_words_are_said_in_the_order_asked_for(name: str, language: str) -> None:
    seen = set()
    for dialogue in (one for one in told(name, language) if one.kind == PAIRS):
        opening = next(m.text for m in dialogue.messages if "\n\n" in m.text)
        given, _, question = opening.partition("\n\n")
        (one,) = dialogue.exchanges
        assert one.question == question
        assert one.answer.endswith(f": {', '.join(one.keys)}.")
        assert question.endswith(f": {', '.join(key.split(': ')[0] for key in one.keys)}.")
        assert set(given.partition(": ")[2].rstrip(".").split(", ")) == set(one.keys)
        words = [word for key in one.keys for word in key.split(": ")]
        assert len(set(words)) == len(words)
        seen.add(len(one.keys))
    assert seen == set(range(FEWEST_PAIRS, SOURCES[name].most_pairs + 1))


def test_exercises_are_a_source_of_their_own() -> None:
    documents = list(dialogues(20, name="exercises"))
    assert {document.source for document in documents} == {"exercises"}
    assert documents != list(dialogues(20))
    longest = max(document.size for document in dialogues(200, name="exercises"))
    assert longest < max(document.size for document in dialogues(200))


def test_sentences_begin_with_a_capital_in_english(sample: dict[str, list[Dialogue]]) -> None:
    for dialogue in sample["en"]:
        if dialogue.kind in (REPEAT, PAIRS):  # words in any order
            continue
        for message in dialogue.messages:
            first = message.text.lstrip('"')[0]
            assert first.isupper(), message.text


def _rng():  # type: ignore[no-untyped-def]
    import random

    return random.Random(1)
