"""Every task can be solved from what the model reads, by a rule written apart from the task."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from holo_cli.bench.tasks import TASKS, Case, Task
from holo_cli.bench.tasks.base import Tokens
from holo_cli.data.batches import IGNORE
from holo_cli.errors import UsageError

VOCAB = 24
CASES = [Case(20, 3), Case(40, 3), Case(31, 2)]


def mqar(x: Tokens, t: int) -> int:
    """The token after the first time this one was read."""
    return int(x[list(x[:t]).index(x[t]) + 1])


def copying(x: Tokens, t: int) -> int:
    """Since the mark, so many tokens: as many into the string, filler left out."""
    mark = list(x).index(1)
    string = [v for v in x[:mark] if v != 0]
    return int(string[t - mark])


def names(x: Tokens, t: int) -> int:
    """The person asked for, seven tokens of persons below; the name follows where it was told."""
    third, persons = VOCAB // 3, VOCAB // 6
    ask = next(i for i, v in enumerate(x) if third + persons <= v < third + 2 * persons)
    told = list(x[:ask]).index(x[ask] - persons)
    return int(x[told + 1 + t - ask])


RULES: dict[str, Callable[[Tokens, int], int]] = {
    "mqar": mqar,
    "induction": mqar,
    "copying": copying,
    "selective-copying": copying,
    "names": names,
}


def made(name: str, case: Case, rows: int = 40, seed: int = 0) -> tuple[Task, Tokens, Tokens]:
    task = TASKS[name](VOCAB)
    task.check(case)
    return task, *task.sample(np.random.default_rng(seed), rows, case)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("case", CASES)
def test_answers_follow_from_the_past(name: str, case: Case) -> None:
    task, x, y = made(name, case)
    assert x.shape == y.shape == (40, case.length)
    assert x.dtype == y.dtype == np.int64
    assert x.min() >= 0
    assert x.max() < VOCAB
    for row in range(40):
        asked = np.flatnonzero(y[row] != IGNORE)
        assert len(asked) == task.answers(case.items)
        for t in asked:
            # the rule may read up to t only: what comes later is wiped out
            past = np.where(np.arange(case.length) <= t, x[row], 2)
            assert RULES[name](past, int(t)) == y[row, t]


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_of_their_seed_and_differ(name: str) -> None:
    _, x, _ = made(name, CASES[1])
    _, same, _ = made(name, CASES[1])
    _, other, _ = made(name, CASES[1], seed=1)
    assert (x == same).all()
    assert not (x == other).all()
    assert len({row.tobytes() for row in x}) == 40


@pytest.mark.parametrize("name", TASKS)
def test_guessing_has_the_chance_that_is_told(name: str) -> None:
    """The commonest answer over many rows is right about as often as `chance` says."""
    task, _, y = made(name, CASES[0], rows=4000)
    answers = y[y != IGNORE]
    share = np.bincount(answers).max() / len(answers)
    assert task.chance == pytest.approx(1 / len(set(answers)), rel=1e-9)
    assert share == pytest.approx(task.chance, rel=0.25)


@pytest.mark.parametrize("name", TASKS)
def test_cases_that_cannot_be_made_are_refused(name: str) -> None:
    task = TASKS[name](VOCAB)
    with pytest.raises(UsageError, match="at least"):
        task.check(Case(4, 3))
    with pytest.raises(UsageError, match="items"):
        task.check(Case(4, 0))
    task.check(Case(task.least_length(3), 3))
    task.sample(np.random.default_rng(0), 50, Case(task.least_length(3), 3))


@pytest.mark.parametrize("name", TASKS)
def test_a_vocabulary_that_is_too_small_is_refused(name: str) -> None:
    least = TASKS[name].least_vocab
    for length in range(4, 12):  # the least there is works, at any length
        task, case = TASKS[name](least), Case(length, 1)
        if length >= task.least_length(1):
            task.check(case)
            x, y = task.sample(np.random.default_rng(0), 20, case)
            assert max(x.max(), y.max()) < least
            assert task.chance <= 1
    for fewer in (least - 1, 1, 0):
        with pytest.raises(UsageError, match=f"at least {least} tokens of vocabulary"):
            TASKS[name](fewer).check(Case(20, 1))


def test_places_of_selective_copying_and_queries_differ_from_row_to_row() -> None:
    _, x, _ = made("selective-copying", Case(40, 3))
    places = {tuple(np.flatnonzero(row[:37])) for row in x}
    assert len(places) > 30
    _, _, y = made("mqar", Case(40, 3))
    assert len({tuple(np.flatnonzero(row != IGNORE)) for row in y}) > 30
