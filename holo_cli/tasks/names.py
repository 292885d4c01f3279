"""One-shot name binding: introduced once, asked for much later.

`names` and `name-recall` ask the same question. In the first one introductions are anywhere in
filler text, so the distance to the question is random; in the second one they all come first, so
the length of a case is the distance.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from holo_cli.tasks.base import Task, TokenArray

NAME = 2  # tokens of a name


class NameBinding(Task):
    """Each of a few persons is introduced once amid filler text; at the end one name is asked for.

        x    ~ ~ @3 n5 n1 ~ ~ ~ ~ @1 n2 n7 ~ ~ ~ ~ ~ ?3 n5
        y    . .  .  .  . . . . .  .  .  . . . . . . n5 n1

    @i introduces person i with a name of two tokens, ?i asks for it; `items` persons in any order.
    The filler text (~) is a Markov chain over its own words in which each word has only a few
    successors, as in language. Unlike in associative recall, the answer is more than one token, the
    question is another token than the introduction, and the distance is arbitrary.

    Thirds of the vocabulary: filler text; persons, in halves of @ and ?; names.
    """

    title: ClassVar[str] = "Name binding"
    least_vocab: ClassVar[int] = 6  # 2 of talk, a person's @ and ?, 2 for names
    asks: ClassVar[str] = (
        "Persons are introduced once amid filler text; predict the name of one at the end."
    )

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        third, persons = self.vocab_size // 3, self.most_items()
        steps = rng.choice(np.array([1, 2, 5]), size=len(x))  # from word w to one of w + steps
        x[:] = (int(rng.integers(third)) + np.cumsum(steps)) % third
        who = rng.choice(persons, size=items, replace=False)
        names = (
            third
            + 2 * persons
            + rng.integers(self.vocab_size - third - 2 * persons, size=(items, NAME))
        )
        end = len(x) - NAME  # where the question stands
        slots = end // (NAME + 1)
        starts = (NAME + 1) * rng.choice(slots, size=items, replace=False)
        for person, name, start in zip(who, names, starts, strict=True):
            x[start], x[start + 1 : start + 1 + NAME] = third + person, name
        asked = int(rng.integers(items))
        x[end], x[end + 1 :] = third + persons + who[asked], names[asked][:-1]
        y[end:] = names[asked]

    def least_length(self, items: int) -> int:
        return (NAME + 1) * items + NAME

    def most_items(self) -> int:
        return self.vocab_size // 6

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - self.vocab_size // 3 - 2 * self.most_items())


class NameRecall(Task):
    """The names of a few persons are given once, at the start; after filler one is asked for.

        x    ! @3 n5 ! @1 n2 ~ ~ ~ ~ ~ ~ ~ ~ ? @3
        y    .  .  . .  .  . . . . . . . . . . n5

    ! tells and ? asks; `items` persons, in any order, each with another name of one token. The
    filler (~) is random, so a case of T tokens puts T - 3 items - 2 tokens between the last
    introduction and the question. Names are drawn for every row: a right answer was learned from
    one example, not from the weights.

    The vocabulary: ! and ?, then fifths of the rest: one of persons, two of names, two of filler.
    """

    title: ClassVar[str] = "Name recall"
    least_vocab: ClassVar[int] = 7  # ! and ?, a person, 2 names, 2 words of filler
    asks: ClassVar[str] = (
        "The names of a few persons are given at the start; predict one of them after filler text."
    )
    tell: ClassVar[int] = 0
    ask: ClassVar[int] = 1

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        persons, names = self.most_items(), self.most_names()
        first_name = 2 + persons
        filler = first_name + names
        told = 3 * items
        who = 2 + rng.choice(persons, size=items, replace=False)
        name = first_name + rng.choice(names, size=items, replace=False)
        x[0:told:3], x[1:told:3], x[2:told:3] = self.tell, who, name
        x[told:-2] = rng.integers(filler, self.vocab_size, size=len(x) - told - 2)
        asked = int(rng.integers(items))
        x[-2:] = self.ask, who[asked]
        y[-1] = name[asked]

    def least_length(self, items: int) -> int:
        return 3 * items + 2

    def most_items(self) -> int:
        return (self.vocab_size - 2) // 5

    def most_names(self) -> int:
        return 2 * self.most_items()

    @property
    def chance(self) -> float:
        return 1 / self.most_names()
