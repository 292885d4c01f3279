"""The embedded stories: deterministic at any size, varied, well formed in both languages."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from holo_cli.data.sources.stories import english, korean
from holo_cli.data.sources.stories.grammar import (
    LANGUAGES,
    Story,
    generate,
    plots,
    stories,
    tell_story,
)
from holo_cli.data.sources.stories.josa import PARTICLES, attach, familiar, final, particle

SAMPLE = 1000
QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
# What a Korean narrator's sentence may end in, per voice; questions to the reader included.
NARRATOR = (
    re.compile(r"(?<!니)다[.!]$|(?:까|니)\?$"),
    re.compile(r"[요]([.!]|\?)$"),
    re.compile(r"(?:니다[.!]|까\?|나요\?|까요\?)$"),
)


@pytest.fixture(scope="module")
def sample() -> dict[str, list[Story]]:
    return {language: [tell_story(n, language) for n in range(SAMPLE)] for language in LANGUAGES}


def digest(count: int) -> str:
    told = hashlib.sha256()
    for document in stories(count, seed=5):
        told.update(document.text.encode())
    return told.hexdigest()


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_another_process_gives_the_same_stories(hash_seed: str) -> None:
    code = "from tests.data.sources.test_stories import digest; print(digest(60))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest(60)


def test_a_smaller_request_is_a_prefix_of_a_larger_one() -> None:
    large = list(stories(80))
    assert list(stories(30)) == large[:30]
    assert list(itertools.islice(generate(), 80)) == large
    sized = list(stories(max_bytes=9_000))
    assert sized == large[: len(sized)]
    total = sum(len(document.text.encode()) for document in sized)
    assert total <= 9_000 < total + len(large[len(sized)].text.encode())


def test_stories_of_a_language_do_not_depend_on_the_other_one() -> None:
    both = list(stories(20))
    assert list(stories(10, languages=["ko"])) == [d for d in both if d.language == "ko"]


def test_another_seed_gives_other_stories() -> None:
    first, second = ({d.text for d in stories(50, seed=seed)} for seed in (0, 1))
    assert not first & second


def test_a_limit_of_zero_gives_nothing() -> None:
    assert list(stories(0)) == []
    assert list(stories(max_bytes=10)) == []


def test_an_unknown_language_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'de'"):
        next(stories(1, languages=["en", "de"]))
    with pytest.raises(ValueError, match="at least one language"):
        next(stories(1, languages=[]))


def test_languages_take_turns_and_weigh_about_the_same() -> None:
    documents = list(stories(600))
    assert [d.language for d in documents[:4]] == ["en", "ko", "en", "ko"]
    assert {d.source for d in documents} == {"stories"}
    size = {
        language: sum(len(d.text.encode()) for d in documents if d.language == language)
        for language in LANGUAGES
    }
    assert 0.8 < size["ko"] / size["en"] < 1.3


@pytest.mark.parametrize("language", LANGUAGES)
def test_at_least_two_thousand_sentence_shapes(language: str) -> None:
    """Every filler masked, facts of the case and narrator's endings included: wording alone."""
    shapes: set[str] = set()
    for number in range(5000):
        shapes.update(tell_story(number, language, with_shapes=True).shapes)
    assert len(shapes) >= 2000


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_shape_has_no_filler_in_it(language: str) -> None:
    for number in range(200):
        plain = tell_story(number, language)
        masked = tell_story(number, language, with_shapes=True)
        assert plain.text == masked.text
        assert len(masked.shapes) == sum(len(p) for p in masked.paragraphs)
        assert not any(plain.words["hero"] in shape for shape in masked.shapes)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_plot_occurs(language: str, sample: dict[str, list[Story]]) -> None:
    assert len(plots(language)) >= 12
    assert {story.plot for story in sample[language]} == set(plots(language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_exact_duplicates_are_rare(language: str) -> None:
    texts = {tell_story(number, language).text for number in range(3000)}
    assert len(texts) >= 3000 - 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_is_clean(language: str, sample: dict[str, list[Story]]) -> None:
    # A quotation ends in a mark of its own; no mark stands doubled or after a space.
    bad = re.compile(r"[{}\[\]|<>~/@=;_]|  | [,.!?]|[?!,]\.|\.\.|,,|[^.,!?]\"(?=\s|$)")
    for story in sample[language]:
        text = story.text
        assert unicodedata.is_normalized("NFC", text)
        assert text.count('"') % 2 == 0
        inside_out = re.sub(r"(^|\s)\"", r"\1“", text)  # opening marks aside
        found = bad.search(inside_out)
        assert not found, (found, text)
        for paragraph in story.paragraphs:
            assert paragraph
            assert all(re.search(r"[.!?][\"']?$", sentence) for sentence in paragraph), paragraph


@pytest.mark.parametrize(("language", "shortest", "longest"), [("en", 300, 1000), ("ko", 150, 550)])
def test_length(language: str, shortest: int, longest: int, sample: dict[str, list[Story]]) -> None:
    lengths = sorted(len(story.text) for story in sample[language])
    assert shortest <= lengths[0]
    assert lengths[-1] <= longest
    sentences = [sum(len(p) for p in story.paragraphs) for story in sample[language]]
    assert min(sentences) >= 5
    assert max(sentences) <= 22


# The thing a plot turns on, by plot: what is lost is found, what is missing is brought.
TURNS_ON = {
    "lost": "item",
    "crossing": "food",
    "baking": "cake",
    "lamp": "sign",
    "rescue": "baby",
    "race": "friend",
    "winter": "friend",
    "gift": "item",
    "newcomer": "friend",
    "favor": "small",
    "lostbaby": "mother",
    "trick": "food",
    "music": "tool",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_story_stays_with_its_hero_and_its_thing(
    language: str, sample: dict[str, list[Story]]
) -> None:
    for story in sample[language]:
        text = story.text
        assert story.words["hero"] in text, text
        if story.plot in TURNS_ON and not (language == "en" and story.plot == "lamp"):
            thing = story.words[TURNS_ON[story.plot]]
            assert text.lower().count(thing.lower()) >= 1, (thing, text)
        if story.plot == "lost":
            sentences = [s for p in story.paragraphs for s in p]
            half = len(sentences) // 2
            assert any(story.words["item"] in s for s in sentences[:half]), text
            assert any(story.words["item"] in s for s in sentences[half:]), text


def test_no_stranger_walks_in(sample: dict[str, list[Story]]) -> None:
    names = {*english.GIRLS, *english.BOYS}
    for story in sample["en"]:
        told = set(re.findall(r"[A-Z][a-z]+", story.text)) & names
        assert told <= {story.words["hero"], story.words["friend"], "Will", "May"}, story.text


def test_there_are_names_enough() -> None:
    assert len({*english.GIRLS, *english.BOYS}) >= 30
    assert len({*korean.CHILDREN, *korean.PETS}) >= 30
    assert not set(english.GIRLS) & set(english.BOYS)


# --- English ------------------------------------------------------------------------------------


def test_articles_agree(sample: dict[str, list[Story]]) -> None:
    wrong = re.compile(r"\b(a [aeiou]\w*|an (?!hour\b)[^aeiou\W]\w*)", re.IGNORECASE)
    for story in sample["en"]:
        assert not wrong.search(story.text), (wrong.search(story.text), story.text)


def test_fillers_need_no_silent_h_and_no_spoken_you() -> None:
    nouns = {word for words in english.THINGS.values() for word in words}
    nouns |= {*english.ANIMALS, *english.WORKERS, *english.ELDERS, *english.MANNERS}
    assert not [noun for noun in nouns if re.match(r"hour|honest|heir|uni|use|eu|one", noun)]
    assert english.article("old boat") == "an old boat"
    assert english.article("boat") == "a boat"


def test_sentences_begin_with_a_capital(sample: dict[str, list[Story]]) -> None:
    for story in sample["en"]:
        for sentence in itertools.chain(*story.paragraphs):
            assert re.match(r"\"?[A-Z]", sentence), sentence


def test_pronouns_agree_with_the_people(sample: dict[str, list[Story]]) -> None:
    """A story in which only the hero has a pronoun never uses the other one."""
    alone = {"rescue", "lamp"}
    checked = 0
    for story in sample["en"]:
        if story.plot not in alone or story.words["rel"] in story.text:
            continue
        other = {"she": r"\b(he|him|his)\b", "he": r"\b(she|her|hers)\b"}[story.words["they"]]
        assert not re.search(other, story.text, re.IGNORECASE), story.text
        checked += 1
    assert checked > 50


# --- Korean -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "name", "right"),
    [
        ("여우", "은", "여우는"),
        ("곰", "은", "곰은"),
        ("달걀", "을", "달걀을"),
        ("피리", "을", "피리를"),
        ("꿀", "으로", "꿀로"),
        ("집", "으로", "집으로"),
        ("바다", "으로", "바다로"),
        ("곰", "과", "곰과"),
        ("수아", "과", "수아와"),
        ("민준", "라는", "민준이라는"),
        ("지호", "라는", "지호라는"),
        ("반지", "예요", "반지예요"),
        ("꽃", "예요", "꽃이에요"),
        ("오소리", "였", "오소리였"),
        ("수달", "였", "수달이었"),
        ("민준", "아", "민준아"),
        ("지수", "아", "지수야"),
    ],
)
def test_particles(word: str, name: str, right: str) -> None:
    assert attach(word, name) == right


def test_particles_need_hangul() -> None:
    with pytest.raises(ValueError, match="Hangul"):
        particle("cake", "은")


def test_familiar_names() -> None:
    assert [familiar(name) for name in ("민준", "지수")] == ["민준이", "지수"]


def test_particles_in_the_stories_fit_their_nouns(sample: dict[str, list[Story]]) -> None:
    """Looks in the finished text for a wrong particle after any filler of the story."""
    wrong_after = {
        True: ("는", "가", "를", "와", "라는", "였"),
        False: ("은", "이", "을", "과", "으로", "이라는", "이었"),
    }
    checked = 0
    for story in sample["ko"]:
        for key, word in story.words.items():
            # Inflected slots, names as they are called out, clauses (past stems), lone syllables.
            if ":" in key or "call" in key or len(word) < 2 or not "가" <= word[-1] <= "힣":
                continue
            if final(word) == final("있"):
                continue
            for wrong in wrong_after[final(word) > 0]:
                # A plain search first: a pattern per word would be slow.
                if word + wrong not in story.text:
                    continue
                found = re.search(rf"(?<![가-힣]){word}{wrong}(?![가-힣])", story.text)
                assert not found, (found, story.text)
            if final(word) == final("물"):
                assert word + "으로" not in story.text
            checked += 1
    assert checked > 10 * SAMPLE


def test_every_particle_of_the_grammar_is_known() -> None:
    used = set(re.findall(r"\{\w+:([^}]+)\}", korean.GRAMMAR))
    assert used <= set(PARTICLES)


def test_a_korean_narrator_keeps_one_voice(sample: dict[str, list[Story]]) -> None:
    styles = set()
    for story in sample["ko"]:
        styles.add(story.style)
        for sentence in itertools.chain(*story.paragraphs):
            told = QUOTED.sub("", sentence).strip()
            # A bare quotation or a sound ("삐걱삐걱!", "출발!") has no narrator's ending.
            if not re.search(r"[가-힣]", told) or re.fullmatch(r"[가-힣, ]{2,8}!", told):
                continue
            assert NARRATOR[story.style].search(told), (story.style, sentence)
    assert styles == {0, 1, 2}


def test_korean_is_korean(sample: dict[str, list[Story]]) -> None:
    for story in sample["ko"]:
        assert not re.search(r"[A-Za-z]", story.text), story.text
    for story in sample["en"]:
        assert story.text.isascii(), story.text
