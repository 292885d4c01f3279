"""Files of format 1, whose parameters had other names, load as they always did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from holo_cli.checkpoint import CheckpointError, load_model, load_training, read_header, save
from holo_cli.checkpoint.renames import RENAMED_SINCE_1
from holo_cli.export.targets import export
from tests.checkpoint.old_format import rewrite_as_format_1

if TYPE_CHECKING:
    from conftest import Run

# model, its settings, and names that files of format 1 have for it
OLD: list[tuple[str, dict[str, Any], set[str]]] = [
    (
        "holographic",
        {},
        {
            "blocks.0.mixer.memory.binding.code.weight",
            "blocks.0.mixer.memory.dials.weight",
            "blocks.0.mixer.memory.dials_bias",
        },
    ),
    ("holographic", {"mixer": "fftconv"}, {"blocks.1.mixer.memory.code.weight"}),
    (
        "ngt",
        {"coords_from": "position+token", "radius_mode": "soft"},
        {"start.origin", "start.token.weight", "blocks.0.mixer.reach.radius"},
    ),
    (
        "brain-v2",
        {},
        {
            "blocks.0.mixer.ssm.inward.weight",
            "blocks.0.mixer.ssm.code.weight",
            "blocks.0.mixer.ssm.step_size.weight",
            "blocks.0.mixer.ssm.step_bias",
            "blocks.1.mixer.memory.dials.weight",
            "blocks.1.mixer.memory.dials_bias",
        },
    ),
    (
        "brain-v2",
        {"ssm": "selective"},
        {"blocks.0.mixer.ssm.narrow.weight", "blocks.0.mixer.ssm.broad.weight"},
    ),
    ("gated-deltanet", {}, {"blocks.0.mixer.dials.weight"}),
]


@pytest.mark.parametrize(
    ("name", "keys", "old"),
    OLD,
    ids=lambda value: f"{sorted(value)}"[:40] if isinstance(value, set) else f"{value}"[:40],
)
def test_a_file_of_format_1_loads(
    tmp_path: Path,
    make: Callable[..., Run],
    tokens: Tensor,
    name: str,
    keys: dict[str, Any],
    old: set[str],
) -> None:
    run = make(name, **keys)
    path = run.save(tmp_path / "old_best.safetensors")
    _, before = load_training(path)
    rewrite_as_format_1(path)
    with safe_open(path, "pt") as file:
        assert {f"model/{found}" for found in old} <= set(file.keys())
    assert read_header(path).format == 1
    model, _, _ = load_model(path)
    assert torch.equal(model(tokens), run.model(tokens))
    _, after = load_training(path)
    assert after.keys() == before.keys()
    # what is exported from it has today's names, and says so
    exported = export(path, "dir", tmp_path / "exported").path
    assert read_header(exported).format == 2
    assert torch.equal(load_model(exported)[0](tokens), run.model(tokens))


def test_every_renamed_model_is_tested() -> None:
    assert {name for name, _, _ in OLD} == set(RENAMED_SINCE_1)


def test_a_name_of_format_1_is_unknown_in_a_newer_file(
    tmp_path: Path, make: Callable[..., Run]
) -> None:
    run = make("gated-deltanet")
    path = run.save(tmp_path / "a_best.safetensors")
    rewrite_as_format_1(path)
    header, tensors = load_training(path)
    was, now = (f"model/blocks.0.mixer.{name}.weight" for name in ("dials", "decay_write"))
    save(path, header.model_copy(update={"format": 2}), tensors | {was: tensors[now].clone()})
    with pytest.raises(CheckpointError, match="no place for the tensor"):
        load_model(path)
    save(path, header.model_copy(update={"format": 1}), tensors | {was: tensors[now].clone()})
    with pytest.raises(CheckpointError, match="under its old name and under its new one"):
        load_model(path)
