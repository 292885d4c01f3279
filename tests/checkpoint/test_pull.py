"""`holo pull` from a server of this machine: whole, resumed, broken, wrong, and refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from holo_cli.checkpoint.lock import RunLock
from holo_cli.checkpoint.pull import PART, fetch_ready, open_table
from holo_cli.checkpoint.ready_table import (
    MAX_BYTES,
    OWN,
    ReadyTable,
    check_address,
    parse_table,
)
from holo_cli.errors import CheckpointError, UsageError
from tests.checkpoint.conftest import make_run


@dataclass
class Shop:
    """What the server gives: `files` by path, and how it misbehaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None  # closes the connection after so many bytes
    ranges: bool = True
    length: bool = True  # says how long its answers are
    wrong_range: bool = False
    status: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Range
    url: str = ""


@pytest.fixture
def shop() -> Iterator[Shop]:
    found = Shop()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            found.asked.append((self.path, asked))
            if self.path in found.moved:
                self.send_response(302)
                self.send_header("Location", found.moved[self.path])
                self.end_headers()
                return
            content = found.files.get(self.path)
            if found.status or content is None:
                self.send_error(found.status or 404)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and found.ranges else 0
            total, body = len(content), content[start:]
            self.send_response(206 if start else 200)
            if start:
                first = 1 if found.wrong_range else start
                self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
            if found.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if found.cut_at is None else body[: found.cut_at])

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/release/"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return make_run(run="ready-vanilla").save(tmp_path / "made.safetensors").read_bytes()


def table_of(content: bytes, base_url: str = "", **changes: Any) -> ReadyTable:
    entry = {
        "name": "vanilla",
        "file": "ready-vanilla.safetensors",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    } | changes
    return parse_table(
        json.dumps({"format": 1, "base_url": base_url, "checkpoints": [entry]}), "table"
    )


def offered(shop: Shop, content: bytes) -> ReadyTable:
    shop.files["/release/ready-vanilla.safetensors"] = content
    return table_of(content, shop.url)


def test_a_checkpoint_is_fetched_and_can_be_read(
    shop: Shop, content: bytes, tmp_path: Path
) -> None:
    table = offered(shop, content)
    seen: list[tuple[int, int]] = []
    done = fetch_ready("vanilla", table=table, root=tmp_path / "c",
                       progress=lambda n, total: seen.append((n, total)))  # fmt: skip
    assert done.path == tmp_path / "c" / "ready-vanilla_best.safetensors"
    assert done.path.read_bytes() == content
    assert not done.already
    assert not done.resumed
    assert seen[-1] == (len(content), len(content))
    assert [path.name for path in done.path.parent.glob("*safetensors*")] == [done.path.name]
    from holo_cli.checkpoint import load_model

    _, _, header = load_model(done.path)
    assert header.run == "ready-vanilla"
    asked = len(shop.asked)
    assert fetch_ready("ready-vanilla", table=table, root=tmp_path / "c").already
    assert fetch_ready("vanilla", table=table, root=tmp_path / "c", offline=True).already
    assert len(shop.asked) == asked


@pytest.mark.parametrize("ranges", [True, False])
def test_a_truncated_download_is_continued(
    shop: Shop, content: bytes, tmp_path: Path, ranges: bool
) -> None:
    table = offered(shop, content)
    shop.cut_at, shop.ranges = 1000, ranges
    with pytest.raises(CheckpointError, match=f"ended after 1000 of {len(content)} bytes") as error:
        fetch_ready("vanilla", table=table, root=tmp_path)
    assert "same command again" in error.value.next_step
    part = tmp_path / f"ready-vanilla_best.safetensors{PART}"
    assert part.read_bytes() == content[:1000]
    assert not (tmp_path / "ready-vanilla_best.safetensors").exists()
    shop.cut_at = None
    done = fetch_ready("vanilla", table=table, root=tmp_path)
    assert done.resumed == ranges
    assert done.path.read_bytes() == content
    assert not part.exists()
    assert shop.asked[-1][1] == "bytes=1000-"


def test_an_answer_that_is_another_part_is_refused(
    shop: Shop, content: bytes, tmp_path: Path
) -> None:
    table = offered(shop, content)
    part = tmp_path / f"ready-vanilla_best.safetensors{PART}"
    part.write_bytes(content[:500])
    shop.wrong_range = True
    with pytest.raises(CheckpointError, match="another part of it than was asked for"):
        fetch_ready("vanilla", table=table, root=tmp_path)
    assert not part.exists()


def test_other_content_is_never_kept(shop: Shop, content: bytes, tmp_path: Path) -> None:
    table = offered(shop, content)
    shop.files["/release/ready-vanilla.safetensors"] = content[:-1] + b"!"
    with pytest.raises(CheckpointError, match="its sha256 is another one"):
        fetch_ready("vanilla", table=table, root=tmp_path)
    shop.files["/release/ready-vanilla.safetensors"] = content + bytes(100_000)
    longer = f"it has {len(content) + 100_000} bytes, and not {len(content)}"
    with pytest.raises(CheckpointError, match=longer):
        fetch_ready("vanilla", table=table, root=tmp_path)
    shop.length = False
    with pytest.raises(CheckpointError, match=f"it has more than {len(content)} bytes"):
        fetch_ready("vanilla", table=table, root=tmp_path)
    shop.length = True
    # such as the page of a network that asks for a password: no beginning to continue from
    shop.files["/release/ready-vanilla.safetensors"] = b"<html>Log in</html>"
    with pytest.raises(CheckpointError, match="it has 19 bytes, and not"):
        fetch_ready("vanilla", table=table, root=tmp_path)
    assert not list(tmp_path.glob("*best*"))
    (tmp_path / f"ready-vanilla_best.safetensors{PART}").write_bytes(bytes(len(content)))
    with pytest.raises(CheckpointError, match="its sha256 is another one"):
        fetch_ready("vanilla", table=table, root=tmp_path)
    assert not list(tmp_path.glob("*best*"))


def test_what_is_no_checkpoint_is_not_kept_although_its_digest_is_right(
    shop: Shop, tmp_path: Path
) -> None:
    table = offered(shop, b"not a checkpoint at all")
    with pytest.raises(CheckpointError, match="but is not a checkpoint") as error:
        fetch_ready("vanilla", table=table, root=tmp_path)
    assert f"{shop.url}ready-vanilla.safetensors" in error.value.message
    assert PART not in error.value.message
    assert not list(tmp_path.glob("*best*"))


def test_a_file_of_ones_own_is_not_replaced_unasked(
    shop: Shop, content: bytes, tmp_path: Path
) -> None:
    table = offered(shop, content)
    own = tmp_path / "ready-vanilla_best.safetensors"
    own.write_bytes(b"mine")
    with pytest.raises(CheckpointError, match="is not the ready checkpoint") as error:
        fetch_ready("vanilla", table=table, root=tmp_path)
    assert own.read_bytes() == b"mine"
    assert "`holo runs rename ready-vanilla NEW`" in error.value.next_step
    assert fetch_ready("vanilla", table=table, root=tmp_path, force=True).path == own
    assert own.read_bytes() == content


def test_no_network_and_errors_of_the_server(shop: Shop, content: bytes, tmp_path: Path) -> None:
    table = offered(shop, content)
    with pytest.raises(CheckpointError, match="--offline forbids"):
        fetch_ready("vanilla", table=table, root=tmp_path, offline=True)
    assert not shop.asked
    shop.status = 503
    with pytest.raises(CheckpointError, match="answers with status 503"):
        fetch_ready("vanilla", table=table, root=tmp_path)
    with pytest.raises(CheckpointError, match="could not be reached") as error:
        fetch_ready("vanilla", table=table, root=tmp_path, base_url="http://127.0.0.1:9/")
    assert "network" in error.value.next_step


def test_a_certificate_that_is_not_accepted_is_told_from_no_network(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise requests.exceptions.SSLError("CERTIFICATE_VERIFY_FAILED")

    monkeypatch.setattr(requests.Session, "get", refuse)
    with pytest.raises(CheckpointError, match="its certificate was not accepted"):
        fetch_ready("vanilla", table=table_of(content, "https://example.org/"), root=tmp_path)


def test_a_server_that_falls_silent_leaves_a_part_to_continue(
    shop: Shop, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = offered(shop, content)

    def stall(answer: Any, size: int) -> Iterator[bytes]:
        yield content[:700]
        raise requests.exceptions.ConnectionError("Read timed out.")

    with monkeypatch.context() as patched:
        patched.setattr(requests.Response, "iter_content", stall)
        with pytest.raises(CheckpointError, match=f"ended after 700 of {len(content)} bytes"):
            fetch_ready("vanilla", table=table, root=tmp_path)
    assert fetch_ready("vanilla", table=table, root=tmp_path).resumed


def test_a_full_disk_leaves_a_part_to_continue_and_says_so(
    shop: Shop, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = offered(shop, content)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="cannot be written") as error:
            fetch_ready("vanilla", table=table, root=tmp_path)
    assert "Free some space" in error.value.next_step
    assert fetch_ready("vanilla", table=table, root=tmp_path).path.read_bytes() == content
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be written") as error:
        fetch_ready("vanilla", table=table, root=tmp_path / "file")
    assert "folder that you can write to" in error.value.next_step


def test_of_two_at_once_the_second_is_told_to_wait(
    shop: Shop, content: bytes, tmp_path: Path
) -> None:
    table = offered(shop, content)
    with (
        RunLock(tmp_path, "ready-vanilla"),
        pytest.raises(CheckpointError, match="Another process is fetching") as error,
    ):
        fetch_ready("vanilla", table=table, root=tmp_path)
    assert "--run" not in error.value.next_step
    assert not shop.asked


def test_redirections_are_followed_where_they_are_safe(
    shop: Shop, content: bytes, tmp_path: Path
) -> None:
    table = offered(shop, content)
    shop.files["/store/file"] = content
    shop.moved["/release/ready-vanilla.safetensors"] = "/store/file"
    assert fetch_ready("vanilla", table=table, root=tmp_path).path.read_bytes() == content
    shop.moved["/release/ready-vanilla.safetensors"] = "http://192.0.2.1/file"
    with pytest.raises(UsageError, match="cannot be fetched"):
        fetch_ready("vanilla", table=table, root=tmp_path / "other")
    shop.moved["/release/ready-vanilla.safetensors"] = "/release/ready-vanilla.safetensors"
    with pytest.raises(CheckpointError, match="more than 5 redirections"):
        fetch_ready("vanilla", table=table, root=tmp_path / "other")


@pytest.mark.parametrize(
    "url",
    ["http://example.org/a", "ftp://127.0.0.1/a", "file:///etc/passwd", "https:///a", "a/b",
     "https://user:word@example.org/a", "http://127.0.0.1.example.org/a", "http://[::1/a"],
)  # fmt: skip
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="cannot be fetched"):
        check_address(url)


@pytest.mark.parametrize("url", ["https://example.org/a", "http://127.0.0.1:8/a",
                                 "http://localhost/a", "http://[::1]:8/a"])  # fmt: skip
def test_safe_addresses(url: str) -> None:
    assert check_address(url) == url


def test_before_a_release_it_says_how_to_make_one(tmp_path: Path) -> None:
    table = open_table()
    assert [entry.name for entry in table.checkpoints] == [
        "vanilla", "holographic", "ngt", "brain-v1", "brain-v2",
    ]  # fmt: skip
    for entry in table.checkpoints:
        assert not entry.published or table.base_url.startswith("https://")
        assert entry.bytes <= 8_000_000
        if not entry.published:
            with pytest.raises(CheckpointError, match="has not been published yet") as error:
                fetch_ready(entry.name, root=tmp_path)
            assert f"ready_checkpoints --only {entry.name}" in error.value.next_step
    with pytest.raises(UsageError, match="no ready checkpoint 'vanila'") as wrong:
        fetch_ready("vanila", root=tmp_path)
    assert "vanilla" in wrong.value.next_step


def test_a_table_from_a_file_or_an_address(shop: Shop, content: bytes, tmp_path: Path) -> None:
    table = offered(shop, content)
    text = json.dumps(table.model_copy(update={"base_url": ""}).model_dump())
    shop.files["/release/ready.json"] = text.encode()
    found = open_table(f"{shop.url}ready.json")
    assert found.base_url == shop.url
    assert fetch_ready("vanilla", table=found, root=tmp_path).path.read_bytes() == content
    path = tmp_path / "ready.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="does not say where its files are") as error:
        fetch_ready("vanilla", table=open_table(str(path)), root=tmp_path / "again")
    assert str(path) in error.value.message
    assert "--base-url" in error.value.next_step
    bare = table_of(content, shop.url, sha256="")
    with pytest.raises(CheckpointError, match="table has no size and sha256 for 'vanilla'"):
        fetch_ready("vanilla", table=bare, root=tmp_path / "again")
    mirrored = fetch_ready("vanilla", table=open_table(str(path)), base_url=shop.url.rstrip("/"),
                           root=tmp_path / "again")  # fmt: skip
    assert mirrored.path.read_bytes() == content
    with pytest.raises(CheckpointError, match="--offline forbids"):
        open_table(f"{shop.url}ready.json", offline=True)
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_table(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "../up"}, "not a name"),
        ({"file": "../../etc/x.safetensors"}, "not the name of a .safetensors file"),
        ({"file": "http://example.org/x.safetensors"}, "not the name of a .safetensors file"),
        ({"sha256": "abc"}, "not a sha256"),
        ({"bytes": -1}, "greater than or equal to 0"),
        ({"bytes": MAX_BYTES + 1}, "less than or equal to"),
    ],
)
def test_a_bad_table_is_refused(content: bytes, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        table_of(content, **change)


def test_what_is_no_table() -> None:
    for text, reason in (("[1]", "is not a table"), ("{", "is not a table"), ("{}", "'format'"),
                         ('{"format": 9}', "newer version")):  # fmt: skip
        with pytest.raises(CheckpointError, match=reason):
            parse_table(text, "table")
    assert parse_table(OWN.read_bytes()).format == 1
