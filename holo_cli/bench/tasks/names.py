"""One-shot name binding: told once, asked for much later."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from holo_cli.bench.tasks.base import Task, Tokens

NAME = 2  # tokens of a name


class NameBinding(Task):
    """Each of a few persons is told once, somewhere in talk; at the end one is asked for.

        x    ~ ~ @3 n5 n1 ~ ~ ~ ~ @1 n2 n7 ~ ~ ~ ~ ~ ?3 n5
        y    . .  .  .  . . . . .  .  .  . . . . . . n5 n1

    @i introduces person i with a name of two tokens, ?i asks for it; `items` persons, told in any
    order. The talk between (~) is a chain of its own words in which each word has only a few that
    can follow it, as in language. Unlike associative recall the answer is more than one token, is
    asked for by another token than the one it was told with, and lies at any distance.

    Thirds of the vocabulary: talk; persons, in halves of @ and ?; names.
    """

    title: ClassVar[str] = "Name binding"
    least_vocab: ClassVar[int] = 6  # 2 of talk, a person's @ and ?, 2 for names
    asks: ClassVar[str] = "Persons are introduced once, amid talk; say the name of one much later."

    def fill(self, rng: np.random.Generator, x: Tokens, y: Tokens, items: int) -> None:
        third, persons = self.vocab_size // 3, self.most_items()
        steps = rng.choice(np.array([1, 2, 5]), size=len(x))  # word w goes on with one of these on
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
