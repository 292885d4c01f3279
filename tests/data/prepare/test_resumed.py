"""Preparations that are interrupted at a chosen point resume to the same bytes.

Moments chosen by chance are those of test_killed.py.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from holo_cli.data.dataset import PreparedData
from holo_cli.data.prepare import build, pipeline, shards, staging
from holo_cli.data.prepare.prepare import PrepareResult, prepare
from holo_cli.errors import DataError
from tests.data.prepared import content, corpus
from tests.forked_workers import end_of_module


def child(source: Path, out: Path, die_at: int, force: bool = False) -> tuple[int | None, str]:
    """Exit code and output of a preparation that dies at a step; 0: it says how many there are."""
    words = [str(source), str(out), str(die_at), *["force"] * force]
    env = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    return end_of_module("tests.data.prepare.dying", *words, env=env, timeout=600)


def finish(source: Path, out: Path) -> PrepareResult:
    return prepare(source=str(source), out=out, tokenizer="bpe", vocab_size=300, shard_bytes=6000)


def test_a_killed_preparation_resumes_to_the_same_bytes(source: Path, tmp_path: Path) -> None:
    code, said = child(source, tmp_path / "whole", 0)
    assert code == 0, said
    steps = int(said)
    expected = content(tmp_path / "whole")
    resumed = 0
    for die_at in [*range(steps // 9, steps - 9, steps // 5), steps - 9, steps - 1]:
        out = tmp_path / f"killed at {die_at}"
        assert child(source, out, die_at)[0] == 9
        if not (out / "meta.json").exists():
            with pytest.raises(DataError, match=r"no meta\.json"):
                PreparedData.open(out)
        resumed += finish(source, out).resumed
        assert content(out) == expected, die_at
        PreparedData.open(out)
    assert resumed >= 4


def test_a_kill_while_replacing_never_mixes_two_sets(source: Path, tmp_path: Path) -> None:
    code, said = child(source, tmp_path / "new", 0)
    assert code == 0, said
    steps, new = int(said), content(tmp_path / "new")
    other = tmp_path / "other.txt"
    other.write_text(corpus(40), encoding="utf-8")
    for die_at in (steps // 2, steps - 8, steps - 2):
        out = tmp_path / f"replaced {die_at}"
        prepare(source=str(other), out=out, tokenizer="char")
        old = content(out)
        assert child(source, out, die_at, force=True)[0] == 9
        if (out / "meta.json").exists():
            PreparedData.open(out)
            assert content(out) == old
        else:
            assert finish(source, out).already
            assert content(out) == new
    assert not (out / staging.BUILDING).exists()


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Raise KeyboardInterrupt after some documents, with a checkpoint before it."""
    add = shards.ShardWriter.add

    def failing(self: shards.ShardWriter, *args: Any, **known: Any) -> None:
        if self.position == after:
            self.checkpoint()
            raise KeyboardInterrupt
        add(self, *args, **known)

    monkeypatch.setattr(shards.ShardWriter, "add", failing)


def test_only_the_same_settings_resume(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(source=str(source), out=tmp_path / "whole", tokenizer="char")
    with monkeypatch.context() as patch:
        interrupt(patch, 30)
        with pytest.raises(KeyboardInterrupt):
            prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    with pytest.raises(DataError, match="tokenizer was char and is bpe now"):
        prepare(source=str(source), out=tmp_path / "s", tokenizer="bpe")
    result = prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    assert result.resumed
    assert content(tmp_path / "s") == content(whole.data)


def test_resuming_tokenizes_only_what_is_missing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holo_cli.data.tokenizers.char import CharTokenizer

    with monkeypatch.context() as patch:
        interrupt(patch, 100)
        with pytest.raises(KeyboardInterrupt):
            prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    seen: list[str] = []
    encode = CharTokenizer._encode
    monkeypatch.setattr(
        CharTokenizer, "_encode", lambda self, text: seen.append(text) or encode(self, text)
    )
    prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    assert len(seen) == 20


def test_interrupted_again_while_skipping(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint while documents are skipped would repeat some of them."""
    settings: dict[str, Any] = {"source": str(source), "tokenizer": "char", "shard_bytes": 3000}
    monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", 20)
    for after, seconds in ((70, 1e9), (71, -1)):  # no checkpoint; one after every batch
        with monkeypatch.context() as patch:
            patch.setattr(build, "CHECKPOINT_SECONDS", seconds)
            interrupt(patch, after)
            with pytest.raises(KeyboardInterrupt):
                prepare(out=tmp_path / "s", **settings)
    result = prepare(out=tmp_path / "s", **settings)
    assert result.resumed
    assert content(result.data) == content(prepare(out=tmp_path / "whole", **settings).data)


def test_an_interrupted_preparation_can_be_started_over(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, 30)
        with pytest.raises(KeyboardInterrupt):
            prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    assert not prepare(source=str(source), out=tmp_path / "s", force=True, vocab_size=300).resumed


def test_a_full_disk_is_one_sentence_and_resumes_later(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", 5)
    sync, calls = shards.sync, 0

    def full(file: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    out = tmp_path / "s"
    with monkeypatch.context() as patch:
        patch.setattr(shards, "sync", full)
        with pytest.raises(DataError, match="disk is full") as caught:
            prepare(source=str(source), out=out, tokenizer="char", shard_bytes=3000)
    assert "same command" in caught.value.next_step
    assert [p.name for p in out.iterdir() if p.suffix in (".bin", ".idx", ".npy")] == []
    result = prepare(source=str(source), out=out, tokenizer="char", shard_bytes=3000)
    assert result.resumed
    whole = prepare(source=str(source), out=tmp_path / "w", tokenizer="char", shard_bytes=3000)
    assert content(out) == content(whole.data)
