"""Damage to any bit is noticed, of files that have digests; older files load without."""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from holo_cli.checkpoint import (
    CheckpointError,
    inspect_checkpoint,
    load_model,
    load_training,
    read_header,
    save,
)
from holo_cli.checkpoint.digest import digest, not_finite_in_bytes
from holo_cli.checkpoint.tensor_bytes import is_finite
from holo_cli.checkpoint.tensor_bytes import not_finite as not_finite_of
from holo_cli.export.targets import export
from tests.checkpoint.old_format import rewrite_head

if TYPE_CHECKING:
    from conftest import Run


@pytest.fixture
def good(tmp_path: Path, run: Run) -> Path:
    """A file as `_last` files are: with more than weights."""
    path = tmp_path / "small_last.safetensors"
    tensors = {f"optimizer/{name}": t + 1 for name, t in run.tensors().items()}
    save(path, run.header, run.tensors() | tensors)
    return path


def start_of_data(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def flip(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_a_digest_is_the_crc_of_kind_and_bytes() -> None:
    content = torch.arange(6).reshape(2, 3).numpy().tobytes()
    expected = zlib.crc32(b"I64 [2, 3]" + content)
    assert digest("I64", (2, 3), content) == f"{expected:08x}"
    assert digest("I64", (3, 2), content) != digest("I64", (2, 3), content)


def test_every_flipped_bit_is_noticed(good: Path) -> None:
    content, draw = good.read_bytes(), random.Random(3)
    for _ in range(150):
        flip(good, draw.randrange(len(content)), draw.randrange(8))
        with pytest.raises(CheckpointError):
            load_training(good)
        good.write_bytes(content)
    load_training(good)


def test_damage_to_a_tensor_names_it(good: Path) -> None:
    size = good.stat().st_size
    flip(good, size - 1, 6)
    with pytest.raises(CheckpointError, match=r"tensor '(model|optimizer)/.*' differs from its d"):
        load_training(good)
    found = inspect_checkpoint(good)["verified"]
    assert len(found["damaged"]) == 1
    assert found["digests"] == len(read_header(good).digests) > 10


def test_damage_to_the_header_is_noticed_without_reading_tensors(good: Path) -> None:
    text = good.read_bytes()
    for before, after in ((b'\\"step\\":7', b'\\"step\\":3'), (b"holo_crc32", b"holo_crc33")):
        assert before in text
        good.write_bytes(text.replace(before, after))
        with pytest.raises(CheckpointError, match=r"header (differs|has lost a digest)"):
            read_header(good)


def test_a_tensor_and_its_digest_belong_together(good: Path) -> None:
    def lose(entries: object, header: dict[str, dict[str, str]]) -> None:
        del header["digests"]["model/embedding.token.weight"]

    rewrite_head(good, lose, digests=True)
    with pytest.raises(CheckpointError, match=r"'model/embedding.token.weight' and the digests"):
        load_model(good)


def test_files_without_digests_load(good: Path, run: Run) -> None:
    rewrite_head(good, lambda entries, header: None)
    model, _, header = load_model(good)
    assert not header.digests
    assert torch.equal(model.embedding.token.weight, run.model.embedding.token.weight)
    assert inspect_checkpoint(good)["verified"] == {"digests": 0, "damaged": [], "not_finite": {}}


def test_exports_have_digests(good: Path, tmp_path: Path) -> None:
    weights = export(good, "weights").path
    folder = export(good, "dir", tmp_path / "folder").path
    for path in (weights, folder):
        checked = inspect_checkpoint(path)["verified"]
        assert checked["digests"] > 10
        assert not checked["damaged"]
    flip(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 3)
    assert len(inspect_checkpoint(folder)["verified"]["damaged"]) == 1
    with pytest.raises(CheckpointError, match="differs from its digest"):
        load_model(folder)


def spoil(path: Path, value: float) -> None:
    """Put a value into a tensor of a file without digests, as other programs might."""
    rewrite_head(path, lambda entries, header: None)
    content = bytearray(path.read_bytes())
    content[-4:] = torch.tensor([value]).numpy().tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, run: Run, value: float) -> None:
    path = run.save(tmp_path / "a_best.safetensors")
    spoil(path, value)
    for load in (load_model, load_training):
        with pytest.raises(CheckpointError, match=r"1 values? of 'model/.*NaN or infinite") as got:
            load(path)
        assert "holo inspect" in got.value.next_step
    ((name, count),) = inspect_checkpoint(path)["verified"]["not_finite"].items()
    assert count == 1
    model, _, _ = load_model(path, finite=False)
    assert not is_finite(model.state_dict()[name.removeprefix("model/")])


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2]
)
def test_counting_values_that_are_no_numbers(dtype: torch.dtype) -> None:
    names = {
        torch.float32: "F32", torch.float64: "F64", torch.float16: "F16",
        torch.bfloat16: "BF16", torch.float8_e5m2: "F8_E5M2",
    }  # fmt: skip
    largest = torch.finfo(dtype).max
    whole = torch.tensor([0.0, -1.5, largest, largest, -largest], dtype=torch.float64).to(dtype)
    spoiled = torch.cat([whole.double(), torch.tensor([1, -1, 0]) / 0]).to(dtype)
    for values, count in ((whole, 0), (spoiled, 3)):
        assert (
            not_finite_in_bytes(names[dtype], values.view(torch.uint8).numpy().tobytes()) == count
        )
        assert not_finite_of(values) == count
        assert is_finite(values) == (count == 0)
    assert not_finite_in_bytes("I64", bytes([255] * 8)) == 0
