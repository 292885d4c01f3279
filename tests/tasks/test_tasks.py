"""Every task can be solved from what the model reads, by a rule written apart from the task."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from holo_cli.data.batches import IGNORE
from holo_cli.errors import UsageError
from holo_cli.tasks import TASKS, Task, TaskCase
from holo_cli.tasks.base import TokenArray
from holo_cli.tasks.in_context import FuzzyRecall
from holo_cli.tasks.memorisation import Memorisation
from holo_cli.tasks.needle_words import pool

VOCAB = 24
CASES = [TaskCase(20, 3), TaskCase(40, 3), TaskCase(31, 2)]
OTHER_CASES = {
    "fuzzy-recall": [TaskCase(24, 3), TaskCase(40, 3), TaskCase(31, 2)],
    "multi-hop": [TaskCase(34, 3), TaskCase(40, 3), TaskCase(37, 2)],
    "needle-en": [TaskCase(40, 3), TaskCase(80, 3), TaskCase(51, 2)],
    "needle-ko": [TaskCase(60, 3), TaskCase(90, 3), TaskCase(61, 2)],
}
OTHER_VOCAB = {"needle-en": 200, "needle-ko": 200}


def mqar(x: TokenArray, t: int) -> int:
    """The token after the first time this one was read."""
    return int(x[list(x[:t]).index(x[t]) + 1])


def copying(x: TokenArray, t: int) -> int:
    """Since the mark, so many tokens: as many into the string, filler left out."""
    mark = list(x).index(1)
    string = [v for v in x[:mark] if v != 0]
    return int(string[t - mark])


def name_recall(x: TokenArray, t: int) -> int:
    """The name after the first time that the person asked for was told."""
    return int(x[list(x[:t]).index(x[t]) + 1])


def names(x: TokenArray, t: int) -> int:
    """The person asked for, seven tokens of persons below; the name follows where it was told."""
    third, persons = VOCAB // 3, VOCAB // 6
    ask = next(i for i, v in enumerate(x) if third + persons <= v < third + 2 * persons)
    told = list(x[:ask]).index(x[ask] - persons)
    return int(x[told + 1 + t - ask])


def fuzzy(x: TokenArray, t: int) -> int:
    """The row as keys and values: the value of the same key before, at the place that comes."""
    split = 1 + (VOCAB - 1) // 2
    pairs: list[tuple[list[int], list[int]]] = []
    for v in x[: t + 1].tolist():
        if v and v < split and (not pairs or pairs[-1][1]):
            pairs.append(([], []))
        if v:
            pairs[-1][v >= split].append(v)
    key, value = pairs[-1]
    return next(w for k, w in pairs[:-1] if k == key)[len(value)]


def memorisation(x: TokenArray, t: int) -> int:
    return int(Memorisation(VOCAB).facts()[x[t - 1] - 1])


def multi_hop(x: TokenArray, t: int) -> int:
    """Edges are pairs of nodes from the beginning on; hops are tokens 1 to 8."""
    nodes = VOCAB - 9
    edges = dict(zip(x[0 : 2 * nodes : 2].tolist(), x[1 : 2 * nodes : 2].tolist(), strict=True))
    node = int(x[t])
    for _ in range(x[t - 1]):
        node = edges[node]
    return node


def needle(language: str) -> Callable[[TokenArray, int], int]:
    """Read as words: who is asked for, and what is told of them."""
    words = pool(language, OTHER_VOCAB[f"needle-{language}"]).words
    told, asked = {
        "en": (r"the secret word of (\S+) is (\S+) \.", r"what is the secret word of (\S+) \?$"),
        "ko": (
            r"(\S+) 의 비 밀 단 어 는 (\S+) 입 니 다 \.",
            r"(\S+) 의 비 밀 단 어 는 무 엇 입 니 까 \?$",
        ),
    }[language]

    def rule(x: TokenArray, t: int) -> int:
        text = " ".join(words[v] for v in x[: t + 1])
        who = re.search(asked, text)
        assert who is not None
        return words.index(dict(re.findall(told, text))[who[1]])

    return rule


RULES: dict[str, Callable[[TokenArray, int], int]] = {
    "mqar": mqar,
    "induction": mqar,
    "copying": copying,
    "selective-copying": copying,
    "names": names,
    "name-recall": name_recall,
    "in-context-recall": mqar,
    "noisy-recall": mqar,
    "fuzzy-recall": fuzzy,
    "compression": lambda x, t: int(x[t]),  # a decoder may see all: `compressor.py`
    "memorisation": memorisation,
    "multi-hop": multi_hop,
    "needle-en": needle("en"),
    "needle-ko": needle("ko"),
}
# scored positions of a row, at least; for other tasks as many as there are items
ANSWERS: dict[str, Callable[[TaskCase], int]] = {
    "names": lambda case: 2,
    "name-recall": lambda case: 1,
    "in-context-recall": lambda case: (case.length + 1) // 2 - case.items,
    "noisy-recall": lambda case: 2 * case.length // 5 - case.items,
    "fuzzy-recall": lambda case: 1,
    "multi-hop": lambda case: (case.length - 2 * (VOCAB - 9)) // 2,
    "needle-en": lambda case: 1,
    "needle-ko": lambda case: 1,
}
OPEN = {"automata"}  # more than one answer is right: test_automata.py


def cases(name: str) -> list[TaskCase]:
    return OTHER_CASES.get(name, CASES)


def made(
    name: str, case: TaskCase, rows: int = 40, seed: int = 0
) -> tuple[Task, TokenArray, TokenArray]:
    task = TASKS[name](OTHER_VOCAB.get(name, VOCAB))
    task.check(case)
    return task, *task.sample(np.random.default_rng(seed), rows, case)


def test_every_task_has_a_rule() -> None:
    assert RULES.keys() | OPEN == TASKS.keys()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("number", range(3))
def test_answers_follow_from_the_past(name: str, number: int) -> None:
    case = cases(name)[number]
    task, x, y = made(name, case)
    assert x.shape == y.shape == (40, case.length)
    assert x.dtype == y.dtype == np.int64
    assert x.min() >= 0
    assert x.max() < task.vocab_size
    for row in range(40):
        asked = np.flatnonzero(y[row] != IGNORE)
        assert len(asked) >= ANSWERS.get(name, lambda case: case.items)(case)
        for t in asked:
            # the rule may read up to t only: what comes later is wiped out
            past = np.where(np.arange(case.length) <= t, x[row], 2)
            assert RULES[name](past, int(t)) == y[row, t]


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_of_their_seed_and_differ(name: str) -> None:
    case = cases(name)[1]
    _, x, _ = made(name, case)
    _, same, _ = made(name, case)
    _, other, _ = made(name, case, seed=1)
    assert (x == same).all()
    assert not (x == other).all()
    assert len({row.tobytes() for row in x}) == 40


@pytest.mark.parametrize("name", RULES)
def test_guessing_has_the_chance_that_is_told(name: str) -> None:
    """The commonest answer over many rows is right about as often as `chance` says."""
    task, _, y = made(name, cases(name)[0], rows=4000)
    answers = y[y != IGNORE]
    share = np.bincount(answers).max() / len(answers)
    assert task.chance == pytest.approx(1 / len(set(answers)), rel=1e-9)
    assert share == pytest.approx(task.chance, rel=0.25)


@pytest.mark.parametrize("name", TASKS)
def test_cases_that_cannot_be_made_are_refused(name: str) -> None:
    task = TASKS[name](OTHER_VOCAB.get(name, VOCAB))
    with pytest.raises(UsageError, match="at least"):
        task.check(TaskCase(task.least_length(3) - 1, 3))
    with pytest.raises(UsageError, match="items"):
        task.check(TaskCase(4, 0))
    task.check(TaskCase(task.least_length(3), 3))
    task.sample(np.random.default_rng(0), 50, TaskCase(task.least_length(3), 3))


@pytest.mark.parametrize("name", TASKS)
def test_a_vocabulary_that_is_too_small_is_refused(name: str) -> None:
    least = TASKS[name].least_vocab
    shortest = TASKS[name](least).least_length(1)
    # the least there is works, at any length
    for length in {*range(4, 12), *range(shortest, shortest + 4)}:
        task, case = TASKS[name](least), TaskCase(length, 1)
        if length >= task.least_length(1):
            task.check(case)
            x, y = task.sample(np.random.default_rng(0), 20, case)
            assert max(x.max(), y.max()) < least
            assert task.chance <= 1
    for fewer in (least - 1, 1, 0):
        with pytest.raises(UsageError, match=f"at least {least} tokens of vocabulary"):
            TASKS[name](fewer).check(TaskCase(20, 1))


def test_places_of_selective_copying_and_queries_differ_from_row_to_row() -> None:
    _, x, _ = made("selective-copying", TaskCase(40, 3))
    places = {tuple(np.flatnonzero(row[:37])) for row in x}
    assert len(places) > 30
    _, _, y = made("mqar", TaskCase(40, 3))
    assert len({tuple(np.flatnonzero(row != IGNORE)) for row in y}) > 30


# -- what is true of one task ----------------------------------------------------------------------


def test_a_known_key_is_asked_for_each_time() -> None:
    _, x, y = made("in-context-recall", TaskCase(41, 5))
    for row, answers in zip(x, y, strict=True):
        keys = row[0::2].tolist()
        assert len(set(keys)) == 5
        scored = [keys[n] in keys[:n] for n in range(len(keys))]
        assert (answers[0::2] != IGNORE).tolist() == scored
        assert (answers[1::2] == IGNORE).all()


def test_a_fifth_is_noise_and_none_is_inside_a_pair() -> None:
    task, x, _ = made("noisy-recall", TaskCase(100, 4), rows=200)
    noise = x < VOCAB // 4
    assert (noise.sum(axis=1) == 20).all()
    half = task.most_items()
    key = (x >= VOCAB // 4) & (x < VOCAB // 4 + half)
    assert (x[:, 1:][key[:, :-1]] >= VOCAB // 4 + half).all()
    assert noise.mean(axis=0).std() < 0.05  # anywhere in the row


def test_keys_of_fuzzy_recall_have_any_length_and_none_begins_another() -> None:
    task = FuzzyRecall(VOCAB)
    rng = np.random.default_rng(0)
    lengths = []
    for _ in range(300):
        keys = task._keys(rng, 6)
        lengths += [len(key) for key in keys]
        ordered = sorted(keys)
        for first, second in pairwise(ordered):
            assert second[: len(first)] != first
    shares = np.bincount(lengths)[1:] / len(lengths)
    assert shares.min() > 0.2
    assert len(FuzzyRecall(5)._keys(rng, 2)) == 2  # as many keys as there are key tokens


def test_facts_are_the_same_everywhere_and_each_value_is_one_keys() -> None:
    facts = Memorisation(VOCAB).facts()
    assert sorted(facts) == list(range(12, 23))
    assert (facts == Memorisation(VOCAB).facts()).all()
    assert not (facts == np.sort(facts)).all()
    _, x, _ = made("memorisation", TaskCase(40, 3))
    assert not np.isin(x, facts).any()  # no row shows a value


def test_the_graph_is_one_cycle_and_starts_are_even() -> None:
    _, x, y = made("multi-hop", TaskCase(60, 4), rows=400)
    for row in x[:40]:
        edges = dict(zip(row[0:30:2].tolist(), row[1:30:2].tolist(), strict=True))
        node, visited = int(row[0]), set()
        while node not in visited:
            visited.add(node)
            node = edges[node]
        assert len(visited) == VOCAB - 9
    assert (x[:, 30::2] == 4).all()
    counts = np.bincount(y[y != IGNORE])[9:]
    assert counts.min() > 0.85 * counts.mean()


@pytest.mark.parametrize(
    ("name", "vocab", "case", "says"),
    [
        ("in-context-recall", 8, TaskCase(64, 5), "8 tokens has from 1 to 4 items, not 5"),
        ("noisy-recall", 24, TaskCase(8, 3), "with 3 items needs at least 9 positions, not 8"),
        ("fuzzy-recall", 24, TaskCase(23, 3), "needs at least 24 positions, not 23"),
        ("multi-hop", 24, TaskCase(20, 1), "needs at least 32 positions, not 20"),
        ("multi-hop", 24, TaskCase(64, 9), "from 1 to 8 items, not 9"),
        ("automata", 4, TaskCase(64, 3), "at least 5 tokens of vocabulary, not 4"),
        ("needle-en", 40, TaskCase(64, 1), "tokens of vocabulary, not 40"),
        ("needle-ko", 384, TaskCase(24, 1), "needs at least 25 positions, not 24"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    name: str, vocab: int, case: TaskCase, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        TASKS[name](vocab).check(case)
