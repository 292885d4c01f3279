"""Texts and sets in an object store: as on a disk. `memory://` stands for any store of fsspec."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest

from holo_cli.data import remote
from holo_cli.data.dataset import PreparedData
from holo_cli.data.prepare.prepare import merge, prepare
from holo_cli.data.sources.found import find_files
from holo_cli.errors import DataError, UsageError
from tests.data.prepared import content, corpus

ROWS = '{"text": "The keeper lit lamp number %d and came home before the storm."}\n'


def fill(files: Any, root: str, folder: Path) -> None:
    """The same texts in a store and in a folder."""
    rows = "".join(ROWS % n for n in range(80)).encode()
    texts = {
        "a.txt": corpus(60).encode(),
        "deep/b.jsonl": rows,
        "deep/c.jsonl.gz": gzip.compress(rows.replace(b"lamp", b"light"), mtime=0),
        "picture.png": b"\x89PNG",
        ".hidden/d.txt": b"not read",
    }
    for name, data in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        files.pipe_file(f"{root}/{name}", data)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a folder in a store, with the texts of `tmp_path / "texts"`."""
    monkeypatch.chdir(tmp_path)
    files = fsspec.filesystem("memory")
    files.store.clear()
    fill(files, "/bucket/texts", tmp_path / "texts")
    yield "memory://bucket"
    files.store.clear()


def check_store(store: str, tmp_path: Path) -> None:
    """Sources, destinations, shards, data and their errors, at an address."""
    common: dict[str, Any] = {"vocab_size": 300, "filter": "near=0.8,rules=off"}
    prepare(["mine"], source=str(tmp_path / "texts"), out=tmp_path / "local", **common)
    prepare(["mine"], source=f"{store}/texts", out=f"{store}/set", **common)
    copy = PreparedData.open(f"{store}/set")
    assert content(copy.path) == content(tmp_path / "local")
    assert copy.meta.sources[0]["passed_over"] == {".png": 1, ".txt": 1}
    # shards of machines that share the store alone
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        os.chdir(tmp_path / str(number))
        address = f"{store}/merged"
        prepare(["mine"], source=f"{store}/texts", out=address, shard=f"{number}/2", **common)
    (tmp_path / "3").mkdir()
    os.chdir(tmp_path / "3")
    merge(["mine"], out=f"{store}/merged")
    again = PreparedData.open(f"{store}/merged")
    assert content(again.path) == content(tmp_path / "local")
    files, path = remote.filesystem(f"{store}/merged")
    assert not files.exists(f"{path}/.shards")
    # one file, and a pattern
    (one,) = find_files(f"{store}/texts/a.txt", None).paths
    assert str(one) == f"{store}/texts/a.txt"
    assert len(find_files(f"{store}/texts/deep/*", None).paths) == 2
    for source in (f"{store}/nothing", f"{store}/texts/*.pdf"):
        with pytest.raises(DataError, match="There is nothing at"):
            find_files(source, None)
    with pytest.raises(DataError, match="is not a prepared set"):
        PreparedData.open(f"{store}/texts")


def test_a_store_is_like_a_disk(store: str, tmp_path: Path) -> None:
    check_store(store, tmp_path)


def test_a_copy_is_fetched_again_when_the_set_changes(store: str, tmp_path: Path) -> None:
    common: dict[str, Any] = {"source": f"{store}/texts", "tokenizer": "char"}
    prepare(["mine"], out=f"{store}/set", **common)
    copy = PreparedData.open(f"{store}/set").path
    before = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    assert PreparedData.open(f"{store}/set").path == copy
    assert {path.name: path.stat().st_mtime_ns for path in copy.iterdir()} == before
    prepare(["mine"], out=f"{store}/set", max_docs=30, force=True, **common)
    assert PreparedData.open(f"{store}/set").document_count("train") < 31


def test_a_text_that_changes_is_noticed(store: str) -> None:
    prepare(["mine"], source=f"{store}/texts", tokenizer="char")
    assert prepare(["mine"], source=f"{store}/texts", tokenizer="char").already
    fsspec.filesystem("memory").pipe_file("/bucket/texts/a.txt", corpus(61).encode())
    with pytest.raises(DataError, match="source has changed"):
        prepare(["mine"], source=f"{store}/texts", tokenizer="char")


def test_what_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no kind of store 'nope://'"):
        remote.filesystem("nope://bucket/x")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError, match="package that is not installed: s3fs"):
        remote.filesystem("s3://bucket/x")


def test_a_loopback_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="the extra 's3' is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    running = server.ThreadedMotoServer(port=0)
    running.start()
    try:
        host, port = running.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        files = fsspec.filesystem("s3")
        files.mkdir("bucket")
        fill(files, "bucket/texts", tmp_path / "texts")
        check_store("s3://bucket", tmp_path)
    finally:
        running.stop()
    files.invalidate_cache()
    with pytest.raises(DataError, match="could not be reached"):
        find_files("s3://bucket/texts", None)
