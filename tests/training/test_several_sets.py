"""Several prepared sets in one run: shares, exact resume, figures of each, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holo_cli.checkpoint import inspect_checkpoint, load_model, read_header
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.config.training_schema import DataConfig
from holo_cli.data.batches import TrainBatches
from holo_cli.data.combined import CombinedData, open_data
from holo_cli.data.prepare.prepare import prepare
from holo_cli.data.weighted import PERIOD, WeightedBatches, counts, turns
from holo_cli.errors import DataError, HoloError, Stopped, UsageError
from holo_cli.inference.trained_data import open_trained
from holo_cli.training.evaluate import evaluate
from holo_cli.training.run import resume, train
from tests.training.conftest import SMALL, same_files, write_text


def ignore(event: dict[str, Any]) -> None:
    pass


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/a and data/b with one tokenizer, data/c with another one."""
    home = tmp_path_factory.mktemp("pair")
    for name, documents, tokenizer in (("a", 40, "char"), ("b", 20, str(home / "data/a"))):
        source = write_text(home / f"{name}.txt", documents, seed=documents)
        prepare([name], source=str(source), out=home / "data" / name, tokenizer=tokenizer)
    other = home / "c.txt"
    other.write_text(write_text(home / "x.txt").read_text("utf-8").upper(), encoding="utf-8")
    prepare(["c"], source=str(other), out=home / "data/c", tokenizer="char")
    return home / "data"


def config(pair: Path, *sets: str, **changes: Any) -> Resolved:
    flags = SMALL | {"data.sets": [str(pair / one) for one in sets]} | changes
    return resolve("vanilla", flags=flags, env={})


@pytest.mark.parametrize("weights", [[0.7, 0.3], [1, 1, 1], [1, 1e-9], [0.5, 0.4999, 0.0001]])
def test_every_prefix_has_the_shares(weights: list[float]) -> None:
    each = counts(weights)
    assert int(each.sum()) == PERIOD
    assert each.min() >= 1
    order = turns(each)
    assert np.bincount(order, minlength=len(weights)).tolist() == each.tolist()
    for number, size in enumerate(each):
        found = np.cumsum(order == number)
        wanted = np.arange(1, PERIOD + 1) * (int(size) / PERIOD)
        assert np.abs(found - wanted).max() < len(weights)


def test_windows_depend_on_their_number_alone(pair: Path) -> None:
    data = open_data(DataConfig(sets=(f"{pair / 'a'}=3", f"{pair / 'b'}=1")))
    assert isinstance(data, CombinedData)

    def batches() -> WeightedBatches:
        parts = [TrainBatches.of(p, 16, 5, number=n) for n, p in enumerate(data.parts)]
        return WeightedBatches(parts, data.weights)

    whole = batches().take(24)[0]
    again = batches()
    again.position = 10
    assert torch.equal(again.take(14)[0], whole[10:])
    ranks = []  # two processes with three rows each
    for rank in range(2):
        mine = batches()
        for _ in range(4):
            ranks.append(mine.take(3, rank, 2)[0])
    pairs = zip(torch.cat(ranks[:4]), torch.cat(ranks[4:]), strict=True)
    assert torch.equal(torch.stack([x for pair in pairs for x in pair]), whole)
    # beyond a period, each set goes on where it was
    late = batches()
    part, own = late._part_of(PERIOD + 1)
    assert (part, own) == (late.sets[0].parts[0], 7500 + int((late._order[:1] == 0).sum()))
    assert batches().epochs(PERIOD)[0] == pytest.approx(7500 / late.sets[0].per_epoch)


def test_a_run_on_two_sets_resumes_exactly_and_says_what_it_read(pair: Path, home: Path) -> None:
    seen: list[dict[str, Any]] = []
    small = config(pair, "a=0.7", "b=0.3")
    train(small, run="whole", events=seen.append)
    with pytest.raises(Stopped):
        train(small, run="halves", stop_at=7, events=ignore)
    resume("halves", events=ignore)
    same_files("whole", "halves")
    start = next(event for event in seen if event["event"] == "start")
    assert (start["data"], [one["weight"] for one in start["sets"]]) == ("a-b", [0.7, 0.3])
    row = [event for event in seen if event["event"] == "eval"][-1]
    by_set = [row["sets"][name]["val_loss"] for name in ("a", "b")]
    assert row["val_loss"] == pytest.approx(0.7 * by_set[0] + 0.3 * by_set[1], rel=1e-12)

    path = Path("checkpoints/whole_last.safetensors")
    header = read_header(path)
    assert header.data.title == "a (70.0%) + b (30.0%)"
    assert header.history[-1]["sets"].keys() == {"a", "b"}
    found = inspect_checkpoint(path)
    assert [one["name"] for one in found["data"]["sets"]] == ["a", "b"]
    data = open_trained(header.data)
    assert data.matches_fingerprint(header.data.fingerprint)
    assert data.token_count("val") == sum(len(shard) for shard in data.split("val"))
    assert header.data.documents == data.document_count("train")
    # the figures of a set are those of an evaluation of it alone
    model = load_model(path)[0]
    alone = evaluate(model, open_data(DataConfig(path=str(pair / "b"))), torch.float32)
    assert alone.loss == pytest.approx(by_set[1], rel=1e-5)


def test_without_weights_sets_count_by_their_tokens(pair: Path) -> None:
    data = open_data(DataConfig(sets=(str(pair / "a"), str(pair / "b"))))
    assert isinstance(data, CombinedData)
    tokens = [part.token_count("train") for part in data.parts]
    assert data.weights == pytest.approx([n / sum(tokens) for n in tokens])


def test_one_of_the_sets_was_prepared_again(pair: Path, home: Path) -> None:
    for name in ("a", "b"):
        source = write_text(home / f"{name}.txt")
        prepare([name], source=str(source), out=home / name, tokenizer="char")
    small = config(home, "a", "b")
    with pytest.raises(UsageError, match="twice"):
        open_data(DataConfig(sets=(str(home / "a"), str(home / "a"))))
    with pytest.raises(Stopped):
        train(small, run="r", stop_at=2, events=ignore)
    write_text(home / "b.txt", seed=9)
    prepare(["b"], source=str(home / "b.txt"), out=home / "b", tokenizer="char", force=True)
    with pytest.raises(DataError):
        resume("r", events=ignore)


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (("a", "c"), "another tokenizer"),
        (("a=0.5", "b"), "has no weight"),
        (("a=0", "b=1"), "not a positive number"),
        (("a=nan", "b=1"), "not a positive number"),
        (("a=much", "b=1"), "not a positive number"),
        (("a", "nothing"), "no prepared set"),
    ],
)
def test_what_is_refused(pair: Path, sets: tuple[str, ...], says: str) -> None:
    with pytest.raises(HoloError, match=says) as caught:
        open_data(DataConfig(sets=tuple(str(pair / one) for one in sets)))
    assert "\n" not in str(caught.value)


def test_a_set_may_have_an_equals_sign_in_its_name(pair: Path, home: Path) -> None:
    source = write_text(home / "words.txt")
    prepare(["x=1"], source=str(source), out=home / "x=1", tokenizer="char")
    prepare(["y"], source=str(source), out=home / "y", tokenizer=str(home / "x=1"))
    data = open_data(DataConfig(sets=(str(home / "x=1"), str(home / "y"))))
    assert isinstance(data, CombinedData)
    assert data.labels == ["x=1", "y"]


def test_path_and_sets_exclude_each_other(pair: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.path and data\.sets"):
        config(pair, "a", "b", **{"data.path": "x"})
