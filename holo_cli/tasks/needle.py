"""Needle in a story: a fact inside a story, asked for at its end, in English and in Korean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from holo_cli.errors import UsageError
from holo_cli.tasks.base import Task, TaskCase, TokenArray
from holo_cli.tasks.needle_words import NAME, SECRET, WORDINGS, fixed_words, pool

FEWEST = 32  # words that only stories have, in the smallest vocabulary


@dataclass(frozen=True)
class Needle(Task):
    """Secret words are stated somewhere in a story; at the end one of them is asked for.

        x   ... the fox ran home . the secret word of mina is cedar . then it rained . ...
            what is the secret word of mina ?
        y                                   cedar

    The story is a piece of the embedded ones, with facts between its sentences: `items` of them,
    about different persons. `depth` is their place: from 0, the beginning, to 1, just before the
    question; None samples it. Only the last position is scored. Each row pairs names and words
    at random and secret words occur nowhere else, so that only the fact gives the answer.
    """

    depth: float | None = None

    language: ClassVar[str]

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        stories, wording = pool(self.language, self.vocab_size), WORDINGS[self.language]
        who = rng.choice(len(wording.names), size=items, replace=False).tolist()
        what = rng.choice(len(wording.secrets), size=items, replace=False).tolist()
        facts = [
            wording.fact.replace(NAME, wording.names[p]).replace(SECRET, wording.secrets[s])
            for p, s in zip(who, what, strict=True)
        ]
        question = stories.ids(wording.question.replace(NAME, wording.names[who[0]]))
        room = len(x) - len(question) - sum(len(fact.split()) for fact in facts)
        latest = int(np.searchsorted(stories.sentences, len(stories.tokens) - room, side="right"))
        begin = int(stories.sentences[rng.integers(latest)])
        first, last = np.searchsorted(stories.sentences, [begin, begin + room])
        # where sentences begin inside the piece; its end is a place too
        places = np.append(stories.sentences[first:last] - begin, room)
        told: dict[int, list[int]] = {}
        for fact in (facts[n] for n in rng.permutation(items)):
            told.setdefault(self._place(rng, places), []).extend(stories.ids(fact))
        piece = stories.tokens[begin : begin + room].tolist()
        for place in sorted(told, reverse=True):
            piece[place:place] = told[place]
        x[:] = [*piece, *question]
        y[-1] = stories.ids(wording.secrets[what[0]])[0]

    def _place(self, rng: np.random.Generator, places: TokenArray) -> int:
        if self.depth is None:
            return int(rng.choice(places))
        return int(places[np.abs(places - self.depth * places[-1]).argmin()])

    def check(self, case: TaskCase) -> None:
        """Also raises UsageError for a depth outside 0 to 1."""
        super().check(case)
        if self.depth is not None and not 0 <= self.depth <= 1:
            raise UsageError(f"A depth in a story is from 0 to 1, not {self.depth:g}.")

    def least_length(self, items: int) -> int:
        wording = WORDINGS[self.language]
        return items * len(wording.fact.split()) + len(wording.question.split())

    def most_items(self) -> int:
        return len(WORDINGS[self.language].names)

    @property
    def chance(self) -> float:
        return 1 / len(WORDINGS[self.language].secrets)


class EnglishNeedle(Needle):
    """In words: `the secret word of mina is cedar .`, asked for by
    `what is the secret word of mina ?`"""

    language: ClassVar[str] = "en"
    title: ClassVar[str] = "Needle in a story, English"
    least_vocab: ClassVar[int] = fixed_words("en") + FEWEST
    asks: ClassVar[str] = "A secret word is stated somewhere in a story; predict it at the end."


class KoreanNeedle(Needle):
    """In syllables: `민아 의 비 밀 단 어 는 삼나무 입 니 다 .`, asked for by
    `민아 의 비 밀 단 어 는 무 엇 입 니 까 ?`"""

    language: ClassVar[str] = "ko"
    title: ClassVar[str] = "Needle in a story, Korean"
    least_vocab: ClassVar[int] = fixed_words("ko") + FEWEST
    asks: ClassVar[str] = (
        "A secret word is stated somewhere in a Korean story; predict it at the end."
    )
