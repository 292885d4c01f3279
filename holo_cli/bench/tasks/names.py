"""One-shot name binding: introduced once, asked for much later."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from holo_cli.bench.tasks.base import Task, Tokens

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

    def fill(self, rng: np.random.Generator, x: Tokens, y: Tokens, items: int) -> None:
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
