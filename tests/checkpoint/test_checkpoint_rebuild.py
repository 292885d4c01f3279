"""Rebuilding a model that does in its constructor all that models do: tables, seeds, devices."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from holo_cli import registry
from holo_cli.checkpoint import CheckpointError, load_model, model_tensors, save
from holo_cli.config.model_schema import ModelConfig

if TYPE_CHECKING:
    from conftest import Run


class Config(ModelConfig):
    table: int = 8


class Model(nn.Module):
    """Tables made on the CPU by name, a seeded projection, a counter that is saved."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.mix = nn.Linear(config.width, config.width)
        self.head = SimpleNamespace(weight=self.token.weight)
        nn.init.trunc_normal_(self.mix.bias, std=0.1)
        self.mix.weight.splits = 2  # type: ignore[assignment]
        seeded = torch.Generator().manual_seed(5)
        self.noise = nn.Parameter(torch.empty(4).normal_(generator=seeded))
        with torch.no_grad():
            self.noise.normal_(generator=seeded)
        projection = torch.randn(3, 3, generator=seeded)
        table = torch.arange(config.table, dtype=torch.float64, device="cpu").mul(0.5).float()
        self.register_buffer("table", table.to("cpu").cpu(), persistent=False)
        self.register_buffer("projection", projection, persistent=False)
        self.register_buffer("count", torch.zeros(2, dtype=torch.int64))


class Draws(TorchFunctionMode):
    """Notes the shape of every parameter that really gets an initial value by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            target = args[0] if args else kwargs["tensor"]
            if target.ndim == 2 or kwargs.get("generator") is not None:
                self.shapes.append(tuple(target.shape))
        return func(*args, **kwargs)


@pytest.fixture
def tabled(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Model, Path, Run]:
    """The model trained a little, saved, and the run whose header says so."""
    monkeypatch.setattr(registry, "model_names", lambda: ("tabled",))
    monkeypatch.setattr(registry, "config_class", lambda name: Config)
    monkeypatch.setattr(registry, "model_class", lambda name: Model)
    config = Config(vocab_size=run.tokenizer.vocab_size, layers=1, heads=1, width=6, context=8)
    model = Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3).add_(1)
        model.count.add_(7)
    run.header = run.header.model_copy(
        update={"model": "tabled", "config": {"model": config.model_dump()}}
    )
    path = tmp_path / "tabled_best.safetensors"
    save(path, run.header, model_tensors(model))
    return model, path, run


def test_values_come_from_the_file_and_tables_from_the_constructor(
    tabled: tuple[Model, Path, Run],
) -> None:
    saved, path, _ = tabled
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    with Draws() as draws:
        model, _, header = load_model(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert draws.shapes == [(4,), (4,)]  # the seeded one only; others would be overwritten
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    expected: dict[str, Tensor] = {**dict(saved.named_parameters()), **dict(saved.named_buffers())}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert model.mix.weight.splits == 2
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())
    assert header.shared == {}


def test_another_dtype_leaves_integers_alone(tabled: tuple[Model, Path, Run]) -> None:
    model, _, _ = load_model(tabled[1], dtype=torch.bfloat16)
    assert model.count.dtype == torch.int64
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.table.dtype == torch.bfloat16


@pytest.mark.parametrize("size", [10**9, 10**17])
def test_tables_that_would_fill_the_memory_are_refused(
    tabled: tuple[Model, Path, Run], size: int
) -> None:
    saved, path, run = tabled
    run.header.config["model"]["table"] = size
    save(path, run.header, model_tensors(saved))
    small = size <= 10**9  # else the number itself is refused
    says = f"{4 * size + 36} bytes of tables" if small else r"must be at most 1000000000"
    with pytest.raises(CheckpointError, match=says):
        load_model(path)


def test_integers_and_floats_are_not_mistaken(tabled: tuple[Model, Path, Run]) -> None:
    saved, path, run = tabled
    wrong = model_tensors(saved) | {"model/count": torch.zeros(2)}
    save(path, run.header, wrong)
    with pytest.raises(CheckpointError, match="'model/count' cannot be of dtype F32"):
        load_model(path)
