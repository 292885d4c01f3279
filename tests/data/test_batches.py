"""Windows without replacement, exact positions, and a validation pass that scores every token."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import numpy as np
import pytest
import torch

from holo_cli.data.batches import (
    IGNORE,
    TrainBatches,
    conversation_windows,
    shorten,
    val_batches,
)
from holo_cli.data.dataset import PreparedData
from holo_cli.data.meta import RECORD
from holo_cli.data.windows import DocumentSubset, TokenStream
from holo_cli.errors import DataError, UsageError


def shards(*lengths: int) -> list[np.ndarray]:
    """Token i of the stream is i, so that a window shows its position."""
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


def test_the_position_alone_determines_the_next_window() -> None:
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
        parts.append(mine.take(2, rank, 3)[0])
        assert mine.position == 6
        assert torch.equal(parts[rank], whole[rank::3])


def test_too_little_text_for_one_context() -> None:
    TrainBatches(shards(9), context=8, seed=0).take(3)
    with pytest.raises(DataError, match=r"has 8 tokens; a context of 8 needs 9"):
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


@pytest.mark.parametrize("stride", [0, 3])
@pytest.mark.parametrize("ends", [[40], [3, 20, 21, 40], [8, 16, 40]])
def test_conversations_begin_windows_of_their_own(ends: list[int], stride: int) -> None:
    stream = TokenStream(shards(17, 23))
    seen = []
    shapes = []
    for x, y in conversation_windows(stream, np.array(ends), 8, 2, 999, stride):
        shapes.append(x.shape)
        for inputs, targets in zip(x.tolist(), y.tolist(), strict=True):
            scored = [t for t in targets if t != IGNORE]
            seen += scored
            start = max(end for end in [0, *ends] if end <= scored[0])
            known = [t for t in inputs[: targets.index(scored[-1]) + 1] if t != 999]
            assert all(start <= t < scored[-1] for t in known)
            assert scored[0] != start or inputs[0] == 999
    assert seen == list(range(40))
    assert all(shape == (2, 8) for shape in shapes[:-1])


# -- documents and languages ----------------------------------------------------------------------

END = 5000  # the end-of-text token; token i of the stream is i


class FakeData:
    """Documents of some lengths and languages, over two shards, as `TrainBatches.of` reads them."""

    path = "data/fake"

    def __init__(self, documents: list[tuple[str, int]], split_after: int) -> None:
        self.sizes = [size for _, size in documents]
        self.starts = [sum(self.sizes[:i]) for i in range(len(documents))]
        self.shards = [documents[:split_after], documents[split_after:]]
        self.tokenizer = type("T", (), {"end": END})

    def split(self, split: str) -> list[np.ndarray]:
        return shards(*(sum(size for _, size in shard) for shard in self.shards))

    def stream(self, split: str) -> TokenStream:
        return TokenStream(self.split(split))

    def document_ends(self, split: str) -> list[np.ndarray]:
        return [np.cumsum([size for _, size in s]).astype(np.uint64) for s in self.shards]

    def records(self, split: str) -> list[np.ndarray]:
        out = []
        for shard in self.shards:
            records = np.zeros(len(shard), dtype=RECORD)
            records["language"] = [code.encode() for code, _ in shard]
            out.append(records)
        return out

    def document_of(self, token: int) -> int:
        return int(np.searchsorted(np.cumsum(self.sizes), token, side="right"))


DOCUMENTS = [("en", 5), ("ko", 8), ("en", 1), ("en", 30), ("ko", 17), ("en", 16), ("", 9)] * 3


@pytest.fixture
def fake() -> FakeData:
    return FakeData(DOCUMENTS, split_after=8)


def batches_of(data: FakeData, seed: int = 3, **how: bool) -> TrainBatches:
    return TrainBatches.of(cast(PreparedData, data), 8, seed, **how)


def test_chosen_documents_read_as_one_sequence() -> None:
    stream = TokenStream(shards(20, 13))
    chosen = DocumentSubset(stream, np.array([3, 18, 30]), np.array([4, 5, 3]))
    whole = [3, 4, 5, 6, 18, 19, 20, 21, 22, 30, 31, 32]
    assert chosen.length == 12
    for start in range(12):
        for count in range(1, 13 - start):
            assert chosen.read(start, count).tolist() == whole[start : start + count]


def test_masked_windows_hold_one_document_and_every_token_is_scored_once_per_epoch(
    fake: FakeData,
) -> None:
    batches = batches_of(fake, document_mask=True)
    cuts: list[set[int]] = []
    for _ in range(3):
        seen: list[int] = []
        cuts.append(set())
        rows = [batches.take(1) for _ in range(batches.per_epoch)]
        for x, y in rows:
            assert x.shape == y.shape == (1, 8)
            keep = y[0] != IGNORE
            size = int(keep.sum())
            assert size > 0
            assert keep[:size].all()  # filling only at the end, where scored positions cannot see
            targets = y[0, :size].tolist()
            document = fake.document_of(targets[0])
            assert {fake.document_of(t) for t in targets} == {document}
            opens = targets[0] == fake.starts[document]
            assert x[0, 0] == (END if opens else targets[0] - 1)
            assert x[0, 1:size].tolist() == targets[:-1]
            assert (x[0, size:] == END).all()
            seen += targets
            cuts[-1].add(targets[0])
        assert sorted(seen) == list(range(sum(fake.sizes)))
        assert seen != sorted(seen)
    assert cuts[0] != cuts[1] != cuts[2]  # inside long documents they move
    assert cuts[0] & cuts[1] >= set(fake.starts)
    assert batches.filled == pytest.approx(sum(fake.sizes) / (8 * batches.per_epoch))
    assert batches_of(fake).filled == 1.0


@pytest.mark.parametrize("mask", [False, True])
def test_balanced_rows_take_turns_between_languages(fake: FakeData, mask: bool) -> None:
    batches = batches_of(fake, balance=True, document_mask=mask)
    languages = []
    for _ in range(200):
        _, y = batches.take(1)
        found = {DOCUMENTS[fake.document_of(t)][0] for t in y[0].tolist() if t != IGNORE}
        assert len(found - {""}) <= 1  # those of no known language go with English, the largest
        assert not ({"", "ko"} <= found)
        languages.append("ko" if "ko" in found else "en")
    pairs = [languages[i : i + 2] for i in range(0, 200, 2)]
    assert all(sorted(pair) == ["en", "ko"] for pair in pairs)
    assert len({tuple(pair) for pair in pairs}) == 2  # and not always the same one first


def test_rare_languages_go_with_the_largest() -> None:
    data = FakeData([("en", 900), ("ko", 500), ("fr", 9)], split_after=1)
    batches = batches_of(data, balance=True, document_mask=True)
    y = torch.cat([batches.take(1)[1] for _ in range(400)])
    scored = y[y != IGNORE]
    french = (scored >= 1400).sum() / len(scored)
    assert 0 < french < 0.02


def test_one_language_cannot_be_balanced() -> None:
    with pytest.raises(UsageError, match=r"at least two languages; .* has: en"):
        batches_of(FakeData([("en", 40), ("", 50)], split_after=1), balance=True)
    with pytest.raises(DataError, match=r"8 tokens in 'ko'; a context of 8 needs 9"):
        batches_of(FakeData([("en", 40), ("ko", 8)], split_after=1), balance=True)


@pytest.mark.parametrize(
    "how",
    [
        {"balance": True},
        {"document_mask": True},
        {"balance": True, "document_mask": True},
    ],
)
def test_the_position_determines_the_next_window_in_every_mode(
    fake: FakeData, how: dict[str, bool]
) -> None:
    one = batches_of(fake, **how)
    for count in (5, 3, 40, 17):
        scored = one.scored(one.position, count)
        _, y = one.take(count)
        assert scored == int((y != IGNORE).sum())
    other = batches_of(fake, **how)
    other.position = one.position
    apart = batches_of(fake, **how)  # a second process that reads every other row
    apart.position = one.position
    for _ in range(40):
        a, b = one.take(4), other.take(4)
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
        assert torch.equal(apart.take(2, rank=1, world=2)[0], a[0][1::2])
    assert not torch.equal(one.take(9)[0], batches_of(fake, seed=4, **how).take(9)[0])
