"""The windows of `benchmarks.suffix_recall`, and its row of a model that can only recall."""

from __future__ import annotations

import random

import pytest
import torch

from benchmarks.suffix_recall import measured, windows
from holo_cli.errors import UsageError
from holo_cli.models.vanilla.config import Config
from holo_cli.models.vanilla.model import Modern


def test_windows_have_their_past() -> None:
    found = list(windows([list(range(20)), [1, 2]], 4, 8))
    assert [w.ids[0] for w in found] == [8, 12]
    assert all(w.before == list(range(w.ids[0] - 8, w.ids[0])) for w in found)
    assert all(len(w.ids) == 5 for w in found)


def test_only_the_own_document_helps() -> None:
    """Each document repeats eight tokens of its own."""
    draw = random.Random(0)
    documents = [draw.sample(range(10 * n, 10 * n + 10), 8) * 3 for n in range(3)]
    torch.manual_seed(0)
    keys = {"vocab_size": 30, "layers": 1, "heads": 2, "width": 32, "context": 4, "suffix": True}
    model = Modern(Config.model_validate(keys)).eval()
    assert model.suffix is not None
    torch.nn.init.normal_(model.embedding.token.weight)
    model.suffix.bias.data.fill_(0.5)
    row = measured(model, documents, 8)
    assert row["documents"] == 3
    assert row["document_gain"] < -0.1  # type: ignore[operator]
    assert row["others_gain"] == 0
    with pytest.raises(UsageError, match="No document has 100 tokens"):
        measured(model, documents, 100)
