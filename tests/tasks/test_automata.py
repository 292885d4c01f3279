"""Strings of random automata: what is allowed is what the automaton allows, and can be learned."""

from __future__ import annotations

import numpy as np
import pytest

from holo_cli.data.batches import IGNORE
from holo_cli.tasks import TaskCase
from holo_cli.tasks.automata import EDGES, LONGEST, SHORTEST, Automata
from holo_cli.tasks.base import TokenArray

TASK = Automata(13)


def test_a_row_is_a_walk_through_its_automaton() -> None:
    """The same generator draws the automaton first: the row follows its edges, from state 0."""
    for seed in range(20):
        symbols, targets = TASK.draw(np.random.default_rng(seed), 5)
        x, y, allowed = TASK.graded(np.random.default_rng(seed), 1, TaskCase(120, 5))
        assert allowed is not None
        state = 0
        for t, token in enumerate(x[0].tolist()):
            if token == 0:
                state = 0
            else:
                edge = symbols[state].tolist().index(token)
                state = int(targets[state, edge])
            if y[0, t] == IGNORE:
                assert not allowed[0, t].any()
            else:
                assert set(np.flatnonzero(allowed[0, t])) == set(symbols[state].tolist())
                assert allowed[0, t, y[0, t]]
                if t < 119:
                    assert y[0, t] == x[0, t + 1]


def test_the_strings() -> None:
    x, y, allowed = TASK.graded(np.random.default_rng(0), 400, TaskCase(200, 4))
    assert allowed is not None
    whole = [len(part) for row in x for part in "".join(map(chr, row)).split("\0")[1:-1]]
    assert {min(whole), max(whole)} == {SHORTEST, LONGEST}
    assert np.mean(whole) == pytest.approx((SHORTEST + LONGEST) / 2, rel=0.03)
    # blind guessing among the symbols is right as often as `chance` says
    guess = np.random.default_rng(1).integers(1, 13, size=x.shape)
    right = np.take_along_axis(allowed, guess[..., None], axis=2)[y != IGNORE]
    assert right.mean() == pytest.approx(TASK.chance, rel=0.03)
    assert TASK.chance == EDGES / 12
    twice, _ = TASK.sample(np.random.default_rng(0), 400, TaskCase(200, 4))
    assert (twice == x).all()  # trained and tested rows are made alike


def longest_match(x: TokenArray, t: int) -> int:
    """What came after the longest piece of this string that was read before; -1 for none."""
    row = x[: t + 1].tolist()
    begin = t - row[::-1].index(0)
    for start in range(begin, t + 1):
        piece = row[start:]
        for end in range(t, len(piece) - 1, -1):
            if row[end - len(piece) : end] == piece and row[end] != 0:
                return int(row[end])
    return -1


def test_what_is_allowed_can_be_learned_from_the_row() -> None:
    """A rule that reads nothing but the row is nearly always right once it has read some strings.

    At the beginning it cannot be: nothing is known of the automaton.
    """
    x, y, allowed = TASK.graded(np.random.default_rng(3), 20, TaskCase(200, 3))
    assert allowed is not None
    shares = []
    for part in (range(12), range(150, 200)):
        found = [
            bool(said >= 0 and allowed[row, t, said])
            for row in range(20)
            for t in part
            if y[row, t] != IGNORE
            for said in [longest_match(x[row], t)]
        ]
        shares.append(np.mean(found))
    assert shares[0] < 0.5
    assert shares[1] > 0.95
