"""RegBench (Akyurek et al. 2024, arXiv 2401.12973): in-context learning of a regular language.

Deviation from the paper: automata are not minimised, all edges of a state are equally likely, and
strings are short enough that a row of some hundred tokens holds a dozen of them.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.batches import IGNORE
from holo_cli.tasks.base import Allowed, Task, TaskCase, TokenArray

EDGES = 3  # outgoing edges of a state
SHORTEST, LONGEST = 3, 15  # symbols of a string

Automaton = tuple[NDArray[np.int64], NDArray[np.int64]]


class Automata(Task):
    """Strings of one random automaton, a new one in each row: continue each string.

        state 0: a -> 1, c -> 0     state 1: b -> 0, c -> 1

        x   |  a  b  c  a  |  c  a  c  b  |  a  c
        y   a  b  c  a  .  c  a  c  b  .  a  c  b      trained on
        ok  a  b  a  b  .  a  a  b  b  .  a  b  b      right in the test: either of the two
            c  c  c  c  .  c  c  c  c  .  c  c  c

    Token 0 (|) stands before each string, the other tokens are symbols. The automaton has `items`
    states; each has 3 edges (here 2) with different symbols to random states, and strings begin in
    state 0. A row is trained on as text; where a string ends is random and not scored. In the test
    an answer is correct if the automaton allows it, whether or not it is the next token. A model
    has to infer the state of a string from the earlier strings: the first string can only be
    guessed, so no model reaches 100 %.
    """

    title: ClassVar[str] = "Automata"
    least_vocab: ClassVar[int] = EDGES + 2  # the mark, and one symbol more than a state has edges
    asks: ClassVar[str] = (
        "Strings of a random automaton, a new one in each row; predict a symbol that it allows."
    )

    def draw(self, rng: np.random.Generator, items: int) -> Automaton:
        """Symbols of each state's edges, (items, EDGES), and the states they lead to."""
        symbols = 1 + rng.random((items, self.vocab_size - 1)).argsort(axis=1)[:, :EDGES]
        return symbols, rng.integers(items, size=(items, EDGES))

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        self._write(rng, x, y, items)

    def graded(
        self, rng: np.random.Generator, rows: int, case: TaskCase
    ) -> tuple[TokenArray, TokenArray, Allowed]:
        x = np.zeros((rows, case.length), dtype=np.int64)
        y = np.full((rows, case.length), IGNORE, dtype=np.int64)
        allowed = np.zeros((rows, case.length, self.vocab_size), dtype=bool)
        for row in range(rows):
            symbols, states = self._write(rng, x[row], y[row], case.items)
            scored = np.flatnonzero(y[row] != IGNORE)
            allowed[row, scored[:, None], symbols[states[scored]]] = True
        return x, y, allowed

    def _write(
        self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fill in a row; the symbols of its automaton's edges, and the state at each position."""
        symbols, targets = self.draw(rng, items)
        edges = rng.integers(EDGES, size=len(x)).tolist()
        lengths = iter(rng.integers(SHORTEST, LONGEST + 1, size=1 + len(x) // SHORTEST).tolist())
        table = [list(zip(s, t, strict=True)) for s, t in
                 zip(symbols.tolist(), targets.tolist(), strict=True)]  # fmt: skip
        tokens, states = [0], [0]
        left, state = next(lengths), 0
        for edge in edges:
            if left:
                symbol, state = table[state][edge]
                left -= 1
            else:
                symbol, state, left = 0, 0, next(lengths)
            tokens.append(symbol)
            states.append(state)
        whole = np.array(tokens)
        x[:] = whole[:-1]
        y[:] = np.where(whole[1:] == 0, IGNORE, whole[1:])
        return symbols, np.array(states[:-1])

    def least_length(self, items: int) -> int:
        return 2

    def most_items(self) -> int:
        return 1 << 30

    @property
    def chance(self) -> float:
        return EDGES / (self.vocab_size - 1)
