"""A run whose checkpoints are copied to an object store goes on from there on another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
import torch
from safetensors.torch import load_file

from holo_cli.config.resolve import Resolved
from holo_cli.errors import Stopped
from holo_cli.inference.generation.loaded_model import load
from holo_cli.training.run import resume, train
from tests.training.conftest import same_files
from tests.training.test_run import ignore

ADDRESS = "memory://bucket/runs"
LAST = Path("checkpoints/a_last.safetensors")


@pytest.fixture
def store() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def test_a_run_moves_to_another_machine_through_the_store(
    small: Callable[..., Resolved],
    store: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("one", "two", "whole"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    mirrored = small(**{"training.mirror": ADDRESS})
    train(mirrored, run="a", events=ignore)
    store.store.clear()

    monkeypatch.chdir(tmp_path / "one")
    with pytest.raises(Stopped):
        train(mirrored, run="a", events=ignore, stop_at=7)
    there = load_file(LAST)

    monkeypatch.chdir(tmp_path / "two")  # where nothing is
    assert load(f"{ADDRESS}/a").header.step == 5  # _best, of the evaluation before
    resume(f"{ADDRESS}/a", events=ignore)
    ended = load_file(LAST)
    assert not all(torch.equal(there[name], ended[name]) for name in there)
    same_files_of("a", tmp_path / "whole")
    store_last = load(f"{ADDRESS}/a_last")  # the resumed run is copied there too
    assert store_last.header.step == 12


def same_files_of(run: str, other: Path) -> None:
    """The last checkpoint of a run here is, but for the time it took, that in another folder."""
    copy = Path("checkpoints") / f"other_{run}_last.safetensors"
    copy.write_bytes((other / "checkpoints" / f"{run}_last.safetensors").read_bytes())
    same_files(run, f"other_{run}")


def test_a_store_that_fails_costs_a_warning(
    small: Callable[..., Resolved], store: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, *arguments: Any, **options: Any) -> None:
        raise OSError(28, "the store is full")

    monkeypatch.setattr(type(store), "put_file", fail)
    seen: list[dict[str, Any]] = []
    train(small(**{"training.mirror": ADDRESS}), run="a", events=seen.append)
    told = [event["message"] for event in seen if event["event"] == "warning"]
    assert [text for text in told if "was not copied" in text and "the store is full" in text]
    assert LAST.exists()
    assert not store.find("/bucket/runs")
