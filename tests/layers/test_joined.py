"""Rows that have read different numbers of tokens, decoded together as they are alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli import registry
from holo_cli.check.cases import VOCAB, Case, cases_of
from holo_cli.layers.joined import joined_states, row_of, rows_of, state_kind
from holo_cli.layers.positions import RowPositions
from holo_cli.models.base import LanguageModel

CASES = [case for name in registry.model_names() for case in cases_of(name)]
LENGTHS = (3, 9, 4)  # of the prompts
STEPS = 6


def alone(model: LanguageModel, ids: Tensor, prompt: int) -> tuple[list[Tensor], list[Any]]:
    """Logits after each next token of one text (1, T), and the states after them."""
    state = model.step(ids[:, :prompt], model.init_state(1))[1]
    found, states = [], [state]
    for t in range(prompt, ids.shape[1]):
        logits, state = model.step(ids[:, t : t + 1], state)
        found.append(logits[0, -1])
        states.append(state)
    return found, states


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}:{case.label}")
@torch.no_grad()
def test_rows_of_different_lengths_are_decoded_as_alone(case: Case) -> None:
    model = case.build()
    make = torch.Generator().manual_seed(1)
    texts = [torch.randint(0, VOCAB, (1, n + STEPS), generator=make) for n in LENGTHS]
    single = [alone(model, text, n) for text, n in zip(texts, LENGTHS, strict=True)]
    states = [before[0] for _, before in single]
    kinds = [state_kind(state, model.mixed_lengths) for state in states]
    if len(set(kinds)) > 1:
        assert not model.mixed_lengths or case.name == "sliding-window"
        # equal lengths always join
        states, texts, single = [states[0]] * 3, [texts[0]] * 3, [single[0]] * 3
    lengths = [text.shape[1] - STEPS for text in texts]
    state = joined_states(states)
    assert rows_of(state) == 3
    rows = [0, 1, 2]
    for step in range(STEPS):
        if step == 2:  # the second leaves
            state, rows = state.select(torch.tensor([0, 2])), [0, 2]
        if step == 4:  # and comes back, as another state of its kind; the order is another one
            state, rows = joined_states([single[1][1][step], state]), [1, 0, 2]
        tokens = torch.cat([texts[r][:, lengths[r] + step : lengths[r] + step + 1] for r in rows])
        logits, state = model.step(tokens, state)
        for place, r in enumerate(rows):
            torch.testing.assert_close(logits[place, -1], single[r][0][step], atol=1e-9, rtol=1e-9)
    # one of them goes on alone, several tokens at once
    more = torch.randint(0, VOCAB, (1, 3), generator=make)
    expected = model.step(more, single[1][1][-1])[0]
    torch.testing.assert_close(model.step(more, row_of(state, 0))[0], expected, atol=1e-9, rtol=0)


def test_most_models_mix_lengths() -> None:
    """Else the test above would pass with rows of equal lengths alone."""
    mixing = {case.name for case in CASES if case.build().mixed_lengths}
    assert mixing >= {"vanilla", "ngt", "holographic", "brain-v1", "brain-v2", "mamba", "rwkv7"}


@torch.no_grad()
def test_a_joined_state_is_a_value() -> None:
    """Two ways to go on from it do not disturb each other: caches are written in place."""
    model = next(case for case in CASES if case.name == "vanilla").build()
    make = torch.Generator().manual_seed(1)
    texts = [torch.randint(0, VOCAB, (1, n), generator=make) for n in LENGTHS]
    state = joined_states([model.step(text, model.init_state(1))[1] for text in texts])
    assert isinstance(state.position, RowPositions)
    one, other = torch.tensor([[1], [2], [3]]), torch.tensor([[4], [5], [6]])
    first, after = model.step(one, state)
    again = torch.tensor([[7], [8], [9]])
    expected = model.step(again, after)[0]
    model.step(other, state)
    assert torch.equal(model.step(again, after)[0], expected)
    assert torch.equal(model.step(one, state)[0], first)
