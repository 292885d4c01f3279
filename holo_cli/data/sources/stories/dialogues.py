"""`dialogues` and `exercises`: conversations about the embedded stories, in English and Korean.

A user greets, asks for a story, has words repeated, or gives pairs of words, a sentence about each
of several people or the beginning of a story, and asks about it; the assistant tells and answers.
Words and several people make a model look back: of one hero it could tell what fits most stories.
`exercises` are these three kinds alone, and short. A small model that begins with them learns to
look back, and one that reads everything at once does not (docs/results/ready-checkpoints.md).

What is said is in `english_talk.txt` and `korean_talk.txt`, in the form of the story grammar
(`grammar.py`): rules are phrases of both sides, and a plot has the questions about its stories, as
`question :: answer`. A question is asked only of a story whose text holds every word that the
question and the answer name, so that each answer can be found in the conversation.

Conversation n of a language depends on (seed, language, n) alone, so every set is a prefix of a
larger one. It tells story n of the same seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from holo_cli.data.chat_format import ASSISTANT, USER, Utterance
from holo_cli.data.document import Document
from holo_cli.data.sources.stories import english, korean
from holo_cli.data.sources.stories.grammar import (
    LANGUAGES,
    SIDES,
    Grammar,
    Language,
    Nodes,
    Story,
    say,
    tell_story,
)

_MODULES: dict[str, tuple[Language, str]] = {
    "en": (english, "english_talk.txt"),
    "ko": (korean, "korean_talk.txt"),
}
WORD = re.compile(r"\w+")
# words that need no place in the story's text
FREE = frozenset(
    {
        "hero", "they", "them", "their", "themself", "hand", "call", "fcall",
        "fthey", "fthem", "ftheir", "rthey", "rthem", "rtheir",
    }
)  # fmt: skip
# kinds of conversations
TALK, REPEAT, PAIRS, PEOPLE, STORY = "talk", "repeat", "pairs", "people", "story"
SECOND = 0.1  # of those about a story
MOST_QUESTIONS = 8
SHORTEST, LONGEST = 2, 4  # sentences of a story that the user gives
FEWEST_PEOPLE, FEWEST_PAIRS, FEWEST_WORDS = 2, 2, 3
MANY = 1_000_000_000  # stories to take people from


@dataclass(frozen=True)
class Kinds:
    """The conversations of a source: the shares of the kinds, where `given` are the stories that
    the user gives and the rest asks for one; and the most of what is said in one."""

    talk: float
    repeat: float
    pairs: float
    people: float
    given: float
    most_words: int
    most_pairs: int
    most_people: int


DIALOGUES = Kinds(
    talk=0.06,
    repeat=0.2,
    pairs=0.1,
    people=0.3,
    given=0.28,
    most_words=12,
    most_pairs=8,
    most_people=6,
)
EXERCISES = Kinds(
    talk=0.0,
    repeat=0.25,
    pairs=0.4,
    people=0.35,
    given=0.0,
    most_words=10,
    most_pairs=6,
    most_people=4,
)
SOURCES = {"dialogues": DIALOGUES, "exercises": EXERCISES}


@dataclass(frozen=True)
class Exchange:
    """A question and its answer; `keys` are the words that the answer must have, as far as possible
    those that a question about a story does not give away."""

    question: str
    answer: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Dialogue:
    """One conversation. `kind` is TALK, REPEAT, PAIRS, PEOPLE or STORY;
    `exchanges` are the questions that
    what was said before answers, in order: none in a TALK."""

    language: str
    kind: str
    messages: tuple[Utterance, ...]
    exchanges: tuple[Exchange, ...]


@lru_cache(maxsize=len(LANGUAGES))
def _talk(language: str) -> Grammar:
    if language not in _MODULES:
        known = ", ".join(LANGUAGES)
        raise ValueError(f"dialogues exist in {known}, not in {language!r}")
    module, name = _MODULES[language]
    return Grammar(module, Path(__file__).with_name(name).read_text(encoding="utf-8"))


def exchanges(
    story: Story, rng: random.Random, most: int | None = None, text: str = ""
) -> list[Exchange]:
    """The questions that the story answers, at most so many, in a random order and wording; with
    `text`, the beginning of the story, those that it answers. Where there are fewer than `most`,
    they are asked once more in other words."""
    talk = _talk(story.language)
    text = (text or story.text).casefold()
    asked = [
        (nodes, slots)
        for plot in ("every", story.plot)
        for nodes, slots in talk.questions(plot, story)
        if all(_told(story, slot, text) for slot in slots - FREE)
    ]
    rng.shuffle(asked)
    found: list[Exchange] = []
    for nodes, slots in (asked * 2)[: len(asked) if most is None else most]:
        one = _exchange(nodes, slots, story, rng)
        if all(one.question != other.question for other in found):
            found.append(one)
    return found


def _exchange(nodes: Nodes, slots: frozenset[str], story: Story, rng: random.Random) -> Exchange:
    question, answer = say(nodes, rng, story).split(SIDES)
    told = [word for word in sorted({story.words[slot] for slot in slots - FREE | {"hero"}})
            if word.casefold() in answer.casefold()]  # fmt: skip
    new = [word for word in told if word.casefold() not in question.casefold()]
    return Exchange(question, answer, tuple(new or told))


def several_people(
    language: str, seed: int, rng: random.Random, most: int
) -> tuple[str, list[Exchange]]:
    """A sentence about each of at most so many people, and a question about each, in another order.
    No two of them share a name, a kind or a home, or a part of one."""
    talk = _talk(language)
    count = _count(rng, FEWEST_PEOPLE, most)
    told: list[str] = []
    asked: list[Exchange] = []
    taken: set[str] = set()
    while len(told) < count:
        story = tell_story(int(rng.random() * MANY), language, seed)
        words = {story.words[slot] for slot in ("hero", "who", "home")}
        if any(one in other or other in one for one in words for other in taken):
            continue
        taken |= words
        options = talk.questions("people", story)
        one = _exchange(*options[int(rng.random() * len(options))], story, rng)
        told.append(one.answer)
        asked.append(one)
    rng.shuffle(asked)
    # on a line of its own a sentence has the tokens of the answer, from the name on
    return "\n".join((talk.phrase("people", rng, story), *told)), asked


def _words(language: str, seed: int, rng: random.Random) -> tuple[Story, list[str]]:
    """The words of a story, in any order."""
    story = tell_story(int(rng.random() * MANY), language, seed)
    words = sorted(set(WORD.findall(story.text)))
    rng.shuffle(words)
    return story, words


def _repeated(language: str, seed: int, rng: random.Random, most: int) -> Exchange:
    """At most so many words of a story, to be said again. Only what was said before tells a token
    of them, so a small model learns here, and soon, to look back."""
    story, words = _words(language, seed, rng)
    count = _count(rng, FEWEST_WORDS, most)
    answer = " ".join(words[:count])
    # on a line of its own the first word is the same token as in the answer
    question = f"{_talk(language).phrase('repeat', rng, story)}\n\n{answer}"
    return Exchange(question, answer, tuple(words[:count]))


def _pairs(language: str, seed: int, rng: random.Random, most: int) -> tuple[str, Exchange]:
    """At most so many pairs of words, to be said in another order. Every second word has to be
    found by the first: associative recall (Arora et al., 2023, https://arxiv.org/abs/2312.04927),
    many times in one answer."""
    talk = _talk(language)
    story, words = _words(language, seed, rng)
    count = _count(rng, FEWEST_PAIRS, most)
    pairs = list(zip(words[:count], words[count : 2 * count], strict=True))
    told = f"{talk.phrase('pairs', rng, story)} {_listed(pairs)}"
    rng.shuffle(pairs)
    question, answer = talk.phrase("order", rng, story).split(SIDES)
    order = ", ".join(first for first, _ in pairs)
    return told, Exchange(
        f"{question} {order}.",
        f"{answer} {_listed(pairs)}",
        tuple(f"{first}: {second}" for first, second in pairs),
    )


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{first}: {second}" for first, second in pairs) + "."


def _count(rng: random.Random, fewest: int, most: int) -> int:
    return fewest + int(rng.random() * (most - fewest + 1))


def _told(story: Story, slot: str, text: str) -> bool:
    """Whether the story's text has the filler of a slot."""
    return slot in story.words and story.words[slot].casefold() in text


def beginning(story: Story, rng: random.Random) -> str:
    """The first sentences of a story, which hold its people and its trouble."""
    sentences = [one for paragraph in story.paragraphs for one in paragraph]
    count = _count(rng, SHORTEST, LONGEST)
    return " ".join(sentences[:count])


def tell_dialogue(number: int, language: str, seed: int = 0, kinds: Kinds = DIALOGUES) -> Dialogue:
    """Conversation `number` of a language, a function of the arguments alone."""
    talk = _talk(language)
    rng = random.Random(f"{seed}:dialogue:{language}:{number}")
    story = tell_story(number, language, seed)
    said: list[Utterance] = []
    asked: list[Exchange] = []

    def add(question: str, answer: str) -> None:
        said.extend((Utterance(USER, question), Utterance(ASSISTANT, answer)))

    def pair(rule: str) -> None:
        question, answer = talk.phrase(rule, rng, story).split(SIDES)
        add(question, answer)

    drawn = rng.random()
    limits = tuple(accumulate((kinds.talk, kinds.repeat, kinds.pairs, kinds.people)))
    kind = (TALK, REPEAT, PAIRS, PEOPLE, STORY)[sum(drawn >= limit for limit in limits)]
    if kinds.talk and rng.random() < 0.3:
        pair("hello")
    if kind == TALK:
        pair("chat")
        if rng.random() < 0.5:
            pair("chat")
    elif kind == REPEAT:
        asked = [_repeated(language, seed, rng, kinds.most_words)]
        add(asked[0].question, asked[0].answer)
    elif kind == PAIRS:
        text, one = _pairs(language, seed, rng, kinds.most_pairs)
        asked = [one]
        add(f"{text}\n\n{one.question}", one.answer)
    elif kind == PEOPLE:
        text, asked = several_people(language, seed, rng, kinds.most_people)
        add(f"{text}\n\n{asked[0].question}", asked[0].answer)
        for one in asked[1:]:
            add(one.question, one.answer)
    else:
        text = beginning(story, rng) if drawn < limits[-1] + kinds.given else ""
        questions = exchanges(story, rng, 1 + int(rng.random() * MOST_QUESTIONS), text)
        if text and questions:
            first = questions.pop(0)
            asked.append(first)
            opening = f"{talk.phrase('given', rng, story)}\n\n{text}"
            add(f"{opening}\n\n{first.question}", first.answer)
        else:
            add(talk.phrase("ask", rng, story), story.text)
        for one in questions:
            asked.append(one)
            add(one.question, one.answer)
        if rng.random() < SECOND:
            other = tell_story(number, language, seed + 1_000_003)
            add(talk.phrase("more", rng, other), other.text)
    if kinds.talk and rng.random() < 0.2:
        pair("thanks")
    return Dialogue(language, kind, tuple(said), tuple(asked))


def generate_dialogues(
    seed: int = 0, languages: Sequence[str] = LANGUAGES, name: str = "dialogues"
) -> Iterator[Document]:
    """An endless sequence of conversations, the languages alternating; `name` is one of SOURCES."""
    kinds = SOURCES[name]
    for language in languages:
        _talk(language)  # an unknown language raises before the first conversation
    number = 0
    while True:
        for language in languages:
            messages = tell_dialogue(number, language, seed, kinds).messages
            yield Document.of_messages(messages, language=language, source=name)
        number += 1


def dialogues(
    count: int | None = None,
    max_bytes: int | None = None,
    seed: int = 0,
    languages: Sequence[str] = LANGUAGES,
    name: str = "dialogues",
) -> Iterator[Document]:
    """The first `count` conversations, at most `max_bytes` of UTF-8; whole ones only."""
    total = 0
    for number, document in enumerate(generate_dialogues(seed, languages, name)):
        total += document.size
        if (count is not None and number >= count) or (max_bytes is not None and total > max_bytes):
            return
        yield document
