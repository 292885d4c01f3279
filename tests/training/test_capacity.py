"""Absurd sizes are refused before anything is allocated; what fits is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import holo_cli as holo
from holo_cli import registry
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.config.training_schema import MAX_SEED
from holo_cli.data.prepare.prepare import prepare
from holo_cli.errors import UsageError
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.training import capacity
from holo_cli.training.build import new_model
from holo_cli.training.capacity import check_measured, check_rows, check_run
from holo_cli.training.memory_estimate import estimate

CPU = torch.device("cpu")


def config(model: str = "vanilla", **changes: Any) -> Resolved:
    small = {
        "model.layers": 2, "model.width": 32, "model.heads": 2, "model.vocab_size": 50,
        "training.device": "cpu", "training.dtype": "float32",
    }  # fmt: skip
    return resolve(model, flags=small | changes, env={})


@pytest.fixture
def no_building(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models may have shapes, and no storage."""
    build = registry.build_model

    def on_meta(name: str, shape: Any) -> Any:
        assert torch.empty(0).device.type == "meta"
        return build(name, shape)

    monkeypatch.setattr(registry, "build_model", on_meta)
    monkeypatch.setattr(capacity, "capacity", lambda device: 16 * 10**9)


@pytest.mark.parametrize("model", registry.model_names())
@pytest.mark.usefixtures("no_building")
def test_absurd_sizes_are_refused_unbuilt(model: str) -> None:
    for changes in (
        {"training.batch_size": 10**9},
        {"model.context": 10**9},
        {"model.vocab_size": 10**9},
        {"model.width": 2**29},
        {"model.mlp_ratio": 100_000.0, "model.width": 2**13},
    ):
        resolved = config(model, **changes)
        for refuse in (check_run, new_model, lambda r: estimate(r, r.model.vocab_size)):
            with pytest.raises(UsageError, match=r"needs at least .*B of|can be built with"):
                refuse(resolved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.batch_size", 10**20),
        ("training.steps", 10**22),
        ("training.grad_accum", 10**18),
        ("training.eval_every", 10**20),
        ("training.eval_batch_size", 10**20),
        ("training.sample_tokens", 10**11),
        ("training.lr", 1e308),
        ("model.context", 10**20),
        ("model.width", 10**20),
        ("model.bigrams", 10**20),
    ],
)
def test_numbers_that_overflow_are_named(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"{key} .*must be .*(to|at most) \d+"):
        config(**{key: value})


def test_the_largest_run_that_fits_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = config()
    need = sum(estimate(resolved, 50)[f"{part}_bytes"] for part in ("weights", "activations"))
    monkeypatch.setattr(capacity, "capacity", lambda device: need)
    check_run(resolved)  # a lower bound
    monkeypatch.setattr(capacity, "capacity", lambda device: need // 100)
    with pytest.raises(UsageError, match="most of it for") as caught:
        check_run(resolved)
    assert "--force" in caught.value.next_step
    check_run(resolved, force=True)
    assert new_model(resolved, force=True).config.width == 32


def test_measured_sizes_and_rows() -> None:
    whole = capacity.capacity(CPU)
    check_measured(whole, CPU)
    with pytest.raises(UsageError, match="needs at least"):
        check_measured(whole + 1, CPU)
    check_measured(whole + 1, CPU, force=True)
    check_rows(1, whole, "--num-samples", CPU)
    with pytest.raises(UsageError, match="--num-samples 2 needs"):
        check_rows(2, whole, "--num-samples", CPU)


def test_building_in_python_is_refused_too() -> None:
    with pytest.raises(UsageError, match="needs at least"):
        holo.build("vanilla", vocab_size=10**9, width=1024)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 2**64, 10**23])
def test_one_range_of_seeds(seed: int) -> None:
    """Training, preparing and generating refuse the same seeds, with the same words."""
    words = r"must be a whole number from 0 to 2\^63 - 1"
    for refuse in (
        lambda: config(**{"training.seed": seed}),
        lambda: config(**{"training.init_seed": seed}),
        lambda: prepare(["stories"], seed=seed),
        lambda: SamplingConfig(seed=seed),
    ):
        with pytest.raises(UsageError, match=words):
            refuse()


@pytest.mark.parametrize("seed", [0, 2**32, MAX_SEED])
def test_every_seed_of_the_range_works(seed: int) -> None:
    resolved = config(**{"training.seed": seed, "training.init_seed": seed})
    assert torch.isfinite(new_model(resolved).embedding.token.weight).all()
    assert SamplingConfig(seed=seed).seed == seed


def test_a_vocabulary_of_an_absurd_size_is_not_learned() -> None:
    with pytest.raises(UsageError, match="--vocab-size must be at most"):
        prepare(["stories"], vocab_size=10**9)
