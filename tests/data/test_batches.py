"""Windows without replacement, exact positions, and a validation pass that scores every token."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from holo_cli.data.batches import IGNORE, TokenStream, TrainBatches, shorten, val_batches
from holo_cli.errors import DataError


def shards(*lengths: int) -> list[np.ndarray]:
    """Token i of the whole stream is i, so that a window shows where it came from."""
    whole = np.arange(sum(lengths), dtype=np.uint16)
    return np.split(whole, np.cumsum(lengths)[:-1])


def test_a_stream_reads_across_shards() -> None:
    stream = TokenStream(shards(5, 1, 7, 3))
    assert stream.length == 16
    for start in range(16):
        for count in range(1, 17 - start):
            assert stream.read(start, count).tolist() == list(range(start, start + count))


def test_an_epoch_has_every_window_once_and_targets_are_one_ahead() -> None:
    batches = TrainBatches(shards(100, 61), context=8, seed=3)
    first = [batches.take(1) for _ in range(batches.per_epoch)]
    starts = sorted(int(x[0, 0]) for x, _ in first)
    assert len(set(starts)) == len(starts) == batches.per_epoch
    assert {b - a for a, b in pairwise(starts)} == {8}
    for x, y in first:
        assert torch.equal(x[0] + 1, y[0])
    order = [int(x[0, 0]) for x, _ in first]
    assert order != starts
    second = [int(batches.take(1)[0][0, 0]) for _ in range(batches.per_epoch)]
    assert second != order  # another order, and (for this seed) another cut
    assert sorted(second) != starts
    assert batches.epoch == pytest.approx(2.0)


def test_the_position_alone_says_what_comes_next() -> None:
    one = TrainBatches(shards(300), context=8, seed=1)
    for count in (5, 3, 40, 17):
        one.take(count)
    other = TrainBatches(shards(300), context=8, seed=1)
    other.position = one.position
    for _ in range(5):
        assert torch.equal(one.take(4)[0], other.take(4)[0])
    assert not torch.equal(
        TrainBatches(shards(300), 8, seed=2).take(9)[0], TrainBatches(shards(300), 8, 1).take(9)[0]
    )


def test_processes_share_the_windows() -> None:
    whole = TrainBatches(shards(300), context=8, seed=1).take(6)[0]
    parts = []
    for rank in range(3):
        mine = TrainBatches(shards(300), context=8, seed=1)
        mine.skip(rank * 2)
        parts.append(mine.take(2)[0])
    assert torch.equal(torch.cat(parts), whole)


def test_too_little_text_for_one_context() -> None:
    TrainBatches(shards(9), context=8, seed=0).take(3)
    with pytest.raises(DataError, match=r"has 8 tokens; one context of 8 needs 9"):
        TrainBatches(shards(8), context=8, seed=0)


def test_shorter_contexts_hold_the_same_tokens() -> None:
    x, y = TrainBatches(shards(300), context=8, seed=1).take(2)
    a, b = shorten(x, y, 4)
    assert a.shape == b.shape == (4, 4)
    assert torch.equal(a.reshape(2, 8), x)
    assert torch.equal(a + 1, b)


@pytest.mark.parametrize("lengths", [(40,), (17, 20), (1,), (8,), (33, 31)])
def test_validation_scores_every_token_once_in_order(lengths: tuple[int, ...]) -> None:
    total = sum(lengths)
    targets, inputs = [], []
    for x, y in val_batches(shards(*lengths), context=8, rows=2, first=999):
        assert x.shape == y.shape
        assert x.shape[1] == 8
        keep = y.flatten() != IGNORE
        targets += y.flatten()[keep].tolist()
        inputs += x.flatten()[keep].tolist()
    assert targets == list(range(total))
    assert inputs == [999, *range(total - 1)]
