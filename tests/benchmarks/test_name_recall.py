"""The small version of bench/name_recall.py: a name told once survives 200 tokens of filler."""

from __future__ import annotations

import torch

from benchmarks.name_recall import (
    ASK,
    TELL,
    FillerRows,
    make_model,
    measure,
    training_losses,
    without,
)

SMALL = FillerRows(told=2, vocabulary=22)


def test_the_answer_is_what_was_told() -> None:
    tokens, answers = SMALL.draw(50, 9, seed=3)
    assert tokens.shape == (50, 3 * 2 + 9 + 2)
    for row, answer in zip(tokens.tolist(), answers.tolist(), strict=True):
        assert [row[0], row[3], row[-2]] == [TELL, TELL, ASK]
        told = {row[1]: row[2], row[4]: row[5]}
        assert len(told) == 2
        assert told[row[-1]] == answer
        assert not {*row[6:-2]} & {TELL, ASK, *told, *told.values()}
    again, _ = SMALL.draw(50, 9, seed=3)
    assert torch.equal(tokens, again)
    assert not torch.equal(tokens, SMALL.draw(50, 9, seed=4)[0])


def test_a_name_told_once_is_recalled_after_200_tokens_of_filler() -> None:
    """Of one person, so that few steps are enough on any processor; one guess of eight is right."""
    torch.manual_seed(0)
    one = FillerRows(told=1, vocabulary=22)
    model = make_model(one, width=32)
    losses = list(training_losses(model, one, steps=70, rows=32, longest=24, seed=0))
    assert losses[-1] < losses[0]
    found = measure(model, one, 200, rows=100, seed=0)
    assert found["accuracy"] > 0.6
    assert found["accuracy"] > found["memory_zeroed"] + 0.3


def test_zeroing_touches_one_part_and_leaves_the_state_whole() -> None:
    model = make_model(SMALL)
    tokens, _ = SMALL.draw(2, 5, seed=0)
    with torch.no_grad():
        _, state = model.step(tokens, model.init_state(2))
    before = [t.clone() for t in state.tensors()]
    for part in ("memory", "ssm"):
        for mixer in without(state, part).mixers:
            assert (mixer.memory.memory == 0).all() == (part == "memory")
            assert (mixer.ssm.state == 0).all() == (part == "ssm")
    for old, t in zip(before, state.tensors(), strict=True):
        assert torch.equal(old, t)
