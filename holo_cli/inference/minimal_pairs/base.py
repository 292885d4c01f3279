"""A phenomenon: a sentence frame with a gap, and words on two sides that need different forms.

    frame   {when} the {noun} near the {away} {gap} {how}.
    left    noun = fox,     away = hills,  gap = was
    right   noun = foxes,   away = hill,   gap = were

    pair 1  Then the fox near the hills [was / *were] hungry.
    pair 2  Then the foxes near the hill [were / *was] hungry.

Pairs come in such couples: the form that is right in one is wrong in the other. So each form is
right as often as it is wrong, and a model that only knows how frequent or how long the forms are is
right in exactly half of the pairs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

WordForms = Mapping[str, str]


class MinimalPair(NamedTuple):
    """Two sentences that differ in one word. Neighbours 2n and 2n + 1 are a couple."""

    good: str
    bad: str


@dataclass(frozen=True)
class Phenomenon:
    """One rule of a language. `shared` are the slots with the same words on both sides."""

    name: str
    about: str
    frame: str
    shared: Mapping[str, tuple[str, ...]]
    sides: tuple[tuple[WordForms, WordForms], ...]  # each side has `gap`, its correct form

    @property
    def pairs(self) -> int:
        """Number of different pairs."""
        return 2 * len(self.sides) * prod(len(words) for words in self.shared.values())

    def draw(self, count: int, seed: int = 0) -> list[MinimalPair]:
        """`count` (even) different pairs, as couples; deterministic in the arguments."""
        assert count % 2 == 0
        chosen = random.Random(f"{self.name}:{seed}").sample(range(self.pairs // 2), count // 2)
        return [pair for number in chosen for pair in self.couple(number)]

    def couple(self, number: int) -> Iterator[MinimalPair]:
        """Couple `number`, from 0 to pairs / 2 - 1."""
        words = {}
        for slot, choices in self.shared.items():
            number, index = divmod(number, len(choices))
            words[slot] = choices[index]
        left, right = self.sides[number]
        for own, other in ((left, right), (right, left)):
            good = words | dict(own)
            yield MinimalPair(self._sentence(good), self._sentence(good | {"gap": other["gap"]}))

    def _sentence(self, words: dict[str, str]) -> str:
        # a slot may be empty
        sentence = " ".join(self.frame.format(**words).split()).replace(" .", ".")
        return sentence[0].upper() + sentence[1:]


def choices(text: str) -> tuple[str, ...]:
    """Phrases separated by bars, stripped of white space."""
    return tuple(phrase.strip() for phrase in text.split("|"))
