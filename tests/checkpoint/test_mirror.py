"""Checkpoints in an object store: whole or not at all. `memory://` stands for any store."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec  # type: ignore[import-untyped]
import pytest
import torch

from holo_cli.checkpoint import CheckpointError, find_checkpoint, load_model, load_training, mirror
from holo_cli.checkpoint.mirror import Mirror, upload
from holo_cli.checkpoint.parts import parts_folder
from holo_cli.errors import DataError, UsageError
from tests.checkpoint.test_parts import save_in_parts

if TYPE_CHECKING:
    from conftest import Run

ADDRESS = "memory://bucket/runs"


@pytest.fixture
def store() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def names(store: Any) -> list[str]:
    return sorted(str(name) for name in store.find("/bucket/runs"))


def test_what_is_uploaded_is_fetched(store: Any, run: Run, tmp_path: Path) -> None:
    best = run.save(tmp_path / "small_best.safetensors")
    last = save_in_parts(tmp_path / "small_last.safetensors", run.header, run.tensors())
    for path in (best, last):
        upload(path, ADDRESS)
    root = tmp_path / "elsewhere"
    for asked, path in (("small", best), ("small_best", best), ("small_last", last)):
        found = find_checkpoint(f"{ADDRESS}/{asked}", root)
        assert found.read_bytes() == path.read_bytes()
        (_, a), (_, b) = load_training(found), load_training(path)
        assert all(torch.equal(a[name], b[name]) for name in b)
    assert find_checkpoint(f"{ADDRESS}/small", root, prefer=("last",)).name == last.name
    load_model(f"{ADDRESS}/small", root=root)


def test_a_new_copy_replaces_the_old_one(store: Any, run: Run, tmp_path: Path) -> None:
    path = run.save(tmp_path / "small_best.safetensors")
    upload(path, ADDRESS)
    first = find_checkpoint(f"{ADDRESS}/small", tmp_path / "a")
    assert find_checkpoint(f"{ADDRESS}/small", tmp_path / "a") == first
    run.save(path, step=8)
    upload(path, ADDRESS)
    second = find_checkpoint(f"{ADDRESS}/small", tmp_path / "a")
    assert second.read_bytes() == path.read_bytes()
    assert not first.exists()
    assert len(names(store)) == 2  # the pointer and one copy


def test_an_upload_that_fails_leaves_the_copy_before(
    store: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_in_parts(tmp_path / "small_last.safetensors", run.header, run.tensors())
    upload(path, ADDRESS)
    before = path.read_bytes()
    other = {name: torch.zeros_like(t) for name, t in run.tensors().items()}
    save_in_parts(path, run.header, other, token="9" * 8)
    real, count = type(store).put_file, iter(range(9))

    def fail(self: Any, *arguments: Any, **options: Any) -> Any:
        if next(count) == 2:
            raise OSError(5, "the network is gone")
        return real(self, *arguments, **options)

    monkeypatch.setattr(type(store), "put_file", fail)
    with pytest.raises(DataError, match="could not be reached: the network is gone"):
        upload(path, ADDRESS)
    found = find_checkpoint(f"{ADDRESS}/small", tmp_path / "a")
    assert found.read_bytes() == before
    assert load_training(found)[1].keys() == run.tensors().keys()
    monkeypatch.undo()
    upload(path, ADDRESS)
    assert len([name for name in names(store) if "small_last" in name]) == 5


def test_training_does_not_wait_and_of_several_the_newest_is_sent(
    store: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, sent = threading.Event(), []
    real = mirror.upload

    def held(path: Path, address: str) -> None:
        assert go.wait(600)
        sent.append(load_training(path)[0].step)
        real(path, address)

    monkeypatch.setattr(mirror, "upload", held)
    told: list[str] = []
    copies = Mirror(ADDRESS, tmp_path, "small", told.append)
    path = tmp_path / "small_last.safetensors"
    for step in (1, 2, 3):
        save_in_parts(path, run.header.model_copy(update={"step": step}), run.tensors())
        copies.add(path)
        while step == 1 and copies._waiting:  # the first one is under way before the second comes
            pass
    assert names(store) == []
    go.set()
    copies.finish()
    assert sent == [1, 3]  # 1 as it was then, although its file has been replaced since
    assert load_training(find_checkpoint(f"{ADDRESS}/small", tmp_path / "a"))[0].step == 3
    assert told == []
    assert not [one for one in tmp_path.iterdir() if "mirror" in one.name]


def test_a_failed_copy_is_a_warning(
    store: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, *arguments: Any, **options: Any) -> None:
        raise OSError(13, "not allowed")

    monkeypatch.setattr(type(store), "put_file", fail)
    told: list[str] = []
    copies = Mirror(ADDRESS, tmp_path, "small", told.append)
    copies.add(run.save(tmp_path / "small_best.safetensors"))
    copies.finish()
    assert len(told) == 1
    assert "was not copied: memory://bucket/runs/small_best could not be reached" in told[0]


POINTER = {"version": "0" * 16, "files": [{"name": "small_best.safetensors", "bytes": 3}]}
WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "no json": (lambda: b"{", "no pointer to a checkpoint"),
    "a key": (lambda: json.dumps(POINTER | {"x": 1}).encode(), "key 'x' is unknown"),
    "outside": (
        lambda: json.dumps(POINTER | {"files": [{"name": "../x", "bytes": 3}]}).encode(),
        "cannot be used",
    ),
    "version": (lambda: json.dumps(POINTER | {"version": "../.."}).encode(), "'version'"),
    "short": (lambda: json.dumps(POINTER).encode(), "with 2 bytes in place of 3"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_pointer_is_refused(kind: str, store: Any, tmp_path: Path) -> None:
    content, says = WRONG[kind]
    store.pipe_file("/bucket/runs/small_best.json", content())
    store.pipe_file(f"/bucket/runs/small_best/{'0' * 16}/small_best.safetensors", b"ab")
    with pytest.raises(CheckpointError, match=says) as caught:
        find_checkpoint(f"{ADDRESS}/small", tmp_path)
    assert "\n" not in str(caught.value)


def test_addresses_that_hold_nothing(store: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no checkpoint at memory://bucket/runs/x"):
        find_checkpoint(f"{ADDRESS}/x", tmp_path)
    with pytest.raises(UsageError, match="no address of an object store"):
        Mirror("bucket/runs", tmp_path, "small", print)
    with pytest.raises(UsageError, match="no kind of store 'nonsense://'"):
        Mirror("nonsense://bucket", tmp_path, "small", print)
    assert not parts_folder(tmp_path / "x_last.safetensors").exists()
