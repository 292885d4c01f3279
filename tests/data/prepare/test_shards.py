"""The layout of shards, and resuming after a crash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from holo_cli.data.meta import RECORD
from holo_cli.data.prepare.shards import ShardWriter, language_totals
from holo_cli.errors import DataError


def test_the_layout_is_the_one_written_down(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "uint16", {})
    writer.add("train", [1, 2, 3], 10, "ko", 0, words=2, score=3.5)
    writer.add("train", [4, 500], 7, "en", 3, perplexity=250.5)
    writer.add("val", [65_535], 1)
    shards = writer.finish()
    assert [(s.name, s.tokens, s.documents, s.bytes, s.words) for s in shards] == [
        ("train_00000", 5, 2, 17, 2),
        ("val_00000", 1, 1, 1, 0),
    ]
    assert (tmp_path / "train_00000.bin").read_bytes() == bytes(
        [1, 0, 2, 0, 3, 0, 4, 0, 500 % 256, 500 // 256]
    )
    assert (tmp_path / "train_00000.idx").read_bytes() == bytes([3, *[0] * 7, 5, *[0] * 7])
    records = np.load(tmp_path / "train_00000.docs.npy", allow_pickle=False)
    assert records.dtype == RECORD
    assert records[["bytes", "language", "source", "words"]].tolist() == [
        (10, b"ko", 0, 2),
        (7, b"en", 3, 0),
    ]
    assert records["score"][0] == 3.5
    assert np.isnan(records["score"][1])
    assert np.isnan(records["perplexity"][0])
    assert records["perplexity"][1] == 250.5
    assert not list(tmp_path.glob("*.part"))
    assert language_totals(tmp_path, shards[:1]) == {
        "en": {"documents": 1, "bytes": 7, "tokens": 2},
        "ko": {"documents": 1, "bytes": 10, "tokens": 3},
    }


def test_a_document_longer_than_a_shard_has_its_own(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "uint32", {}, shard_bytes=40)
    for length in (4, 50, 4, 4, 4):
        writer.add("train", [7] * length, length)
    assert [shard.tokens for shard in writer.finish()] == [4, 50, 8, 4]


def test_what_was_written_after_the_last_checkpoint_is_cut_off(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "uint16", {})
    writer.add("train", [1, 2], 2)
    writer.checkpoint()
    writer.add("train", [3, 4, 5], 3)
    writer.close()
    with (tmp_path / "train_00000.idx.part").open("ab") as file:
        file.write(b"torn")
    again = ShardWriter(tmp_path, "uint16", {})
    assert again.position == 1
    again.add("train", [9], 1)
    (shard,) = again.finish()
    assert np.fromfile(tmp_path / f"{shard.name}.bin", "<u2").tolist() == [1, 2, 9]
    assert np.fromfile(tmp_path / f"{shard.name}.idx", "<u8").tolist() == [2, 3]


def test_files_shorter_than_noted_are_refused(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "uint16", {})
    writer.add("train", [1, 2], 2)
    writer.checkpoint()
    writer.close()
    (tmp_path / "train_00000.bin.part").write_bytes(b"\1")
    with pytest.raises(DataError, match=r"shorter than progress\.json says"):
        ShardWriter(tmp_path, "uint16", {})
    (tmp_path / "progress.json").write_text(json.dumps({})[:1], encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        ShardWriter(tmp_path, "uint16", {})
