"""An existing set is kept, refused, or replaced as a whole."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from holo_cli.data.dataset import PreparedData
from holo_cli.data.prepare import shards
from holo_cli.data.prepare.prepare import PrepareResult, prepare
from holo_cli.errors import DataError
from tests.data.prepared import content, corpus


def test_the_same_set_is_not_prepared_again(source: Path, tmp_path: Path) -> None:
    def again(**settings: Any) -> PrepareResult:
        given = {"source": str(source), "out": tmp_path / "set", "tokenizer": "char", **settings}
        return prepare(**given)

    again()
    before = content(tmp_path / "set")
    assert again().already
    with pytest.raises(DataError, match=r"val-fraction was 0\.05 and is 0.2 now"):
        again(val_fraction=0.2)
    with pytest.raises(DataError, match="tokenizer was char and is bpe now"):
        again(tokenizer="bpe")
    source.write_text(corpus(50), encoding="utf-8")
    with pytest.raises(DataError, match="whose source has changed"):
        again()
    assert content(tmp_path / "set") == before
    result = again(force=True)
    assert not result.already
    assert content(tmp_path / "set") != before
    PreparedData.open(tmp_path / "set")


def test_force_removes_shards_that_are_no_more(source: Path, tmp_path: Path) -> None:
    prepare(source=str(source), out=tmp_path / "s", tokenizer="char", shard_bytes=3000)
    prepare(source=str(source), out=tmp_path / "s", tokenizer="char", force=True)
    names = {p.name for p in (tmp_path / "s").iterdir()}
    assert {n for n in names if n.endswith(".bin")} == {"train_00000.bin", "val_00000.bin"}


def test_a_failing_force_keeps_the_old_set(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    before = content(tmp_path / "s")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards._OpenShard, "finish", full)
    with pytest.raises(DataError, match="disk is full"):
        prepare(source=str(source), out=tmp_path / "s", tokenizer="bpe", force=True)
    assert content(tmp_path / "s") == before
    PreparedData.open(tmp_path / "s")
