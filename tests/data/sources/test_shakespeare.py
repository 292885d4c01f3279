"""Tiny Shakespeare: its own split, from a file and in the hub's layout; quick without a network."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from holo_cli.data.dataset import PreparedData
from holo_cli.data.network import reachable
from holo_cli.data.prepare.prepare import prepare
from holo_cli.data.sources import shakespeare
from holo_cli.errors import DataError

TEXT = "KEEPER:\nWho comes so late to the light?\n\nBOATMAN:\nOne who was lost.\n\n" * 30


def test_the_first_nine_tenths_train(tmp_path: Path) -> None:
    path = tmp_path / "input.txt"
    path.write_text(TEXT, encoding="utf-8")
    result = prepare(["shakespeare"], source=str(path), out=tmp_path / "set")
    data = PreparedData.open(result.data)
    at = int(len(TEXT) * 0.9)
    train, val = data.split("train")[0].tolist(), data.split("val")[0].tolist()
    assert data.tokenizer.decode(train) == TEXT[:at]
    assert data.tokenizer.decode(val) == TEXT[at:]
    assert data.tokenizer.kind == "char"
    assert data.tokenizer.vocab_size == len(set(TEXT)) + 1
    # Once there, it is found without opening any source: no network is asked for.
    assert prepare(["shakespeare"], out=tmp_path / "set").already


def test_the_hubs_layout_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real loading code on the parquet files that the hub serves, from a folder."""
    parts = {"train": TEXT[:1000], "validation": TEXT[1000:1500], "test": TEXT[1500:]}
    for split, part in parts.items():
        folder = tmp_path / "repository" / "default" / split
        folder.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table({"text": [part]}), folder / "0000.parquet")
    monkeypatch.setattr(shakespeare, "reachable", lambda url: True)
    assert shakespeare.download(str(tmp_path / "repository")) == TEXT


def test_without_a_network_one_sentence_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    begun = time.monotonic()
    with pytest.raises(DataError, match="does not respond") as caught:
        prepare(["shakespeare"], out=tmp_path / "set")
    assert time.monotonic() - begun < 30  # of a busy machine; the hub's client would wait longer
    assert "--source FILE" in caught.value.next_step
    assert "holo prepare stories" in caught.value.next_step
    assert not (tmp_path / "set").exists()


def test_a_network_without_responses_times_out() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        begun = time.monotonic()
        assert not reachable(f"http://127.0.0.1:{server.getsockname()[1]}", seconds=0.3)
        assert time.monotonic() - begun < 30  # of a busy machine; the connection waits for ever


def test_reachable_means_any_answer() -> None:
    import http.server
    import threading

    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    assert reachable(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
