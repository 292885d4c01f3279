"""Saving and reading back: every bit, shared tensors once, atomically, or not at all."""

from __future__ import annotations

import errno
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from holo_cli import files
from holo_cli.checkpoint import (
    CheckpointError,
    Header,
    Losses,
    load_model,
    load_training,
    read_header,
    save,
)
from holo_cli.checkpoint import container as container_module
from holo_cli.checkpoint.write import FORMAT_NAMES

if TYPE_CHECKING:
    from conftest import Run


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(
    "keys", [{}, {"recipe": "classic"}, {"tied": False, "bigrams": 40, "conv": 3}]
)
def test_a_loaded_model_is_the_saved_one(
    tmp_path: Path, make: Callable[..., Run], tokens: Tensor, keys: dict[str, Any]
) -> None:
    run = make(**keys)
    path = run.save(tmp_path / "small_best.safetensors")
    model, tokenizer, header = load_model(path)
    assert torch.equal(model(tokens), run.model(tokens))
    assert not model.training
    assert tokenizer.fingerprint == run.tokenizer.fingerprint
    assert header.step == 7
    tied = keys.get("tied", True)
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in run.model.parameters()
    )
    assert (len(header.shared) == 1) == tied


def test_another_dtype_converts_the_model(tmp_path: Path, run: Run, tokens: Tensor) -> None:
    model, _, _ = load_model(run.save(tmp_path / "a.safetensors"), dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.allclose(model(tokens), run.model(tokens), atol=0.1)


def test_the_safetensors_library_reads_the_same_file(tmp_path: Path, run: Run) -> None:
    path = run.save(tmp_path / "a.safetensors")
    saved = run.tensors()
    with safe_open(path, "pt") as file:
        assert Header.from_json(file.metadata()["holo"], path) == read_header(path)
        names = set(file.keys())
        assert names == saved.keys() - {"model/head.weight"}
        assert all(torch.equal(file.get_tensor(name), saved[name]) for name in names)


@pytest.mark.parametrize("dtype", FORMAT_NAMES)
def test_every_dtype_and_awkward_shape_comes_back(
    tmp_path: Path, run: Run, dtype: torch.dtype
) -> None:
    base = torch.arange(24).reshape(4, 6)
    tensors = {
        "optimizer/plain": base.to(dtype),
        "optimizer/transposed": base.to(dtype).T,
        "optimizer/strided": base.to(dtype)[:, ::2],
        "optimizer/scalar": torch.tensor(1).to(dtype),
        "optimizer/empty": torch.empty(0, 3, dtype=dtype),
        "rng/cpu": torch.get_rng_state(),
    }
    path = tmp_path / "a.safetensors"
    size = save(path, run.header, run.tensors() | tensors)
    assert size == path.stat().st_size
    _, found = load_training(path)
    for key, tensor in tensors.items():
        assert found[key].dtype == tensor.dtype
        assert found[key].shape == tensor.shape
        assert torch.equal(found[key].view(-1).view(torch.uint8), _bytes(tensor))
    with safe_open(path, "pt") as file:
        assert file.get_tensor("optimizer/transposed").shape == (6, 4)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def test_shared_tensors_are_stored_once_and_overlapping_views_apart(
    tmp_path: Path, run: Run
) -> None:
    long = torch.arange(10.0)
    tensors = run.tensors() | {
        "grad/a": long,
        "grad/b": long,
        "grad/head": long[:5],
        "grad/tail": long[3:],
    }
    path = tmp_path / "a.safetensors"
    save(path, run.header, tensors)
    header, found = load_training(path)
    assert header.shared == {
        "model/head.weight": "model/embedding.token.weight",
        "grad/b": "grad/a",
    }
    assert found["grad/a"] is found["grad/b"]
    assert torch.equal(found["grad/head"], long[:5])
    assert torch.equal(found["grad/tail"], long[3:])


def test_what_is_read_does_not_depend_on_the_file_any_more(tmp_path: Path, run: Run) -> None:
    path = run.save(tmp_path / "a.safetensors")
    _, tensors = load_training(path)
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert all(torch.equal(tensor, run.tensors()[name]) for name, tensor in tensors.items())


def test_the_header_keeps_everything(run: Run, tmp_path: Path) -> None:
    header = run.header.model_copy(
        update={
            "run": "밤-2",
            "losses": Losses(train=1.25, val=math.inf, bpb=None),
            "history": [{"step": 1, "val": math.nan, "text": "가나 \U0001f600"}],
            "state": {"epoch": 2, "position": 12345678901234567890},
            "kind": "last",
        }
    )
    path = tmp_path / "a.safetensors"
    save(path, header, run.tensors())
    found = read_header(path)
    assert found.losses == Losses(train=1.25, val=None)  # JSON has no infinity
    assert found.history == [{"step": 1, "val": None, "text": "가나 \U0001f600"}]
    assert found.state == header.state
    assert found.versions.keys() == {"holo", "torch", "python"}
    assert (found.run, found.kind, found.created) == ("밤-2", "last", header.created)


# -- what must not be saved -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_model_that_is_not_finite_is_refused(tmp_path: Path, run: Run, value: float) -> None:
    path = run.save(tmp_path / "a.safetensors")
    old = path.read_bytes()
    tensors = run.tensors()
    tensors["model/head.weight"][3, 2] = value
    with pytest.raises(CheckpointError, match="NaN or infinite") as caught:
        save(path, run.header, tensors)
    assert "model/" in caught.value.message
    assert "--lr" in caught.value.next_step
    assert path.read_bytes() == old


def test_a_header_larger_than_the_format_allows_is_refused(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_module, "MAX_HEADER_BYTES", 1000)
    with pytest.raises(CheckpointError, match="1000 are allowed"):
        run.save(tmp_path / "a.safetensors")
    assert entries(tmp_path) == []


# -- a disk that fails ----------------------------------------------------------------------------


def full(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_disk_that_fills_up_leaves_the_old_file_alone(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = run.save(tmp_path / "small_last.safetensors")
    old = path.read_bytes()
    with monkeypatch.context() as patch:
        if where == "fsync":
            patch.setattr(files.os, "fsync", full)
        else:
            patch.setattr(Path, "replace", full)
        with pytest.raises(CheckpointError, match=r"No room to save .*small_last") as caught:
            run.save(path, step=8)
    assert "Free at least 0.1 MB" in caught.value.next_step
    assert "untouched" in caught.value.next_step
    assert path.read_bytes() == old
    assert entries(tmp_path) == [path.name]


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX thing")
def test_a_write_that_stops_half_way_leaves_the_old_file_alone(tmp_path: Path, run: Run) -> None:
    import resource
    import signal

    path = run.save(tmp_path / "a.safetensors")
    old = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then the write fails with EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, hard))
    try:
        with pytest.raises(CheckpointError, match="too large"):
            run.save(path, step=8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == old
    assert entries(tmp_path) == [path.name]


def test_too_little_room_is_seen_before_writing(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9, 2_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match=r"takes 0\.1 MB and 0\.1 MB are free"):
        run.save(tmp_path / "a.safetensors")
    assert entries(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Cannot save"):
        run.save(tmp_path / "file" / "a.safetensors")


def test_saving_clears_what_killed_writers_of_the_run_left(tmp_path: Path, run: Run) -> None:
    of_run = [f".small_{kind}.safetensors.00ff00ff.tmp" for kind in ("best", "last")]
    others = [".small_2_last.safetensors.00ff00ff.tmp", ".smal_last.safetensors.00ff00ff.tmp"]
    for name in of_run + others:
        (tmp_path / name).write_bytes(b"half")
    run.save(tmp_path / "small_last.safetensors")
    assert entries(tmp_path) == sorted([*others, "small_last.safetensors"])
