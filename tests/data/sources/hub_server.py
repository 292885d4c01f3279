"""A stand-in for the Hugging Face hub on the loopback interface, as far as datasets are read.

It serves folders as dataset repositories: the commit of a branch, the tree with sizes and hashes,
and the files by ranges. It can misbehave on demand: answer with an error status, cut a file off in
the middle, send other bytes than promised, be slow, or be gone for some requests.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 2000  # bytes from which on a file counts as in large-file storage


class Hub:
    """What is served, what was asked for, and what is to go wrong.

    `faults` are taken in order by requests for the content of files: a status to answer, "cut"
    (half of what was promised, then the line is dead), "drop" (no answer at all) or "wrong"
    (other bytes of the same length). `wrong_always`: every content is changed.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.pages: dict[str, bytes] = {}  # other addresses, as "/listings/de.txt"
        self.commits: dict[str, str] = {}  # what a branch is at; a commit is at itself
        self.faults: list[int | str] = []
        self.wrong_always = False
        self.slow = 0.0  # seconds before each answer with content
        self.asked: list[str] = []  # "GET /path" with the range, if any
        self.endpoint = ""

    def add(self, repository: str, folder: Path) -> None:
        self.repositories[repository] = folder
        self.commits[repository] = hashlib.sha1(repository.encode()).hexdigest()

    def contents(self) -> list[str]:
        """Which files had bytes read from them, in order."""
        return [line for line in self.asked if line.startswith("GET") and "/resolve/" in line]


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub at `hub.endpoint` while the context lasts."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 20  # in one piece: a body would wait 40 ms for the receipt of its headers

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        sent = self.rfile.read(length).decode("utf-8")
        self._note()
        found = re.match(r"/api/datasets/(.+)/paths-info/([^/]+)$", urlsplit(self.path).path)
        if not found:
            return self._status(404)
        try:
            paths = json.loads(sent)["paths"]
        except ValueError:  # a form
            paths = [unquote(p) for p in re.findall(r"paths=([^&]*)", sent)]
        folder = self.hub.repositories[found[1]]
        return self._json([_entry(folder, folder / p) for p in paths if (folder / p).exists()])

    def _note(self) -> None:
        asked = f"{self.command} {unquote(self.path)}"
        if self.headers.get("Range"):
            asked += f" {self.headers['Range']}"
        self.hub.asked.append(asked)

    def _answer(self, body: bool) -> None:
        self._note()
        path = unquote(urlsplit(self.path).path)
        if path in self.hub.pages:
            return self._content(self.hub.pages[path], body, {})
        if path == "/":
            return self._json({})
        for pattern, serve in (
            (r"/api/datasets/(.+?)/revision/(.+)", self._revision),
            (r"/api/datasets/(.+?)/tree/([^/]+)/?(.*)", self._tree),
            (r"/datasets/(.+?)/resolve/([^/]+)/(.+)", self._file),
        ):
            found = re.fullmatch(pattern, path)
            if found:
                if found[1] not in self.hub.repositories:
                    return self._status(404, "RepoNotFound")
                return serve(*found.groups(), body=body)
        return self._status(404)

    def _revision(self, repository: str, revision: str, body: bool) -> None:
        del body
        commit = revision if len(revision) == 40 else self.hub.commits[repository]
        self._json({"id": repository, "sha": commit, "siblings": []})

    def _tree(self, repository: str, revision: str, inside: str, body: bool) -> None:
        del revision, body
        folder = self.hub.repositories[repository]
        if not (folder / inside).is_dir():
            return self._status(404, "EntryNotFound")
        paths = sorted((folder / inside).rglob("*"))
        return self._json([_entry(folder, path) for path in paths])

    def _file(self, repository: str, revision: str, inside: str, body: bool) -> None:
        path = self.hub.repositories[repository] / inside
        if not path.is_file():
            return self._status(404, "EntryNotFound")
        revision = revision if len(revision) == 40 else self.hub.commits[repository]
        headers = {"X-Repo-Commit": revision, "ETag": f'"{_etag(path)}"'}
        if path.stat().st_size >= LARGE:
            headers["X-Linked-Etag"] = headers["ETag"]
            headers["X-Linked-Size"] = str(path.stat().st_size)
        return self._content(path.read_bytes(), body, headers)

    def _content(self, data: bytes, body: bool, headers: dict[str, str]) -> None:
        fault = self.hub.faults.pop(0) if body and self.hub.faults else None
        if body and self.hub.slow:
            time.sleep(self.hub.slow)
        if isinstance(fault, int):
            return self._status(fault)
        if fault == "drop":
            self.close_connection = True
            return self.connection.close()
        if fault == "wrong" or (body and self.hub.wrong_always):
            data = bytes(byte ^ 1 for byte in data)
        status, first, last = 200, 0, len(data) - 1
        if found := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first = int(found[1])
            last = min(int(found[2] or last), last)
            if first >= len(data):
                return self._status(416)
            status = 206
        piece = data[first : last + 1]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        for key, value in {"Accept-Ranges": "bytes", **headers}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(piece)))
        self.end_headers()
        if not body:
            return None
        if fault == "cut":
            self.wfile.write(piece[: len(piece) // 2])
            self.wfile.flush()
            self.close_connection = True
            return self.connection.close()
        self.wfile.write(piece)
        return None

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _status(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    size = path.stat().st_size
    entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": _blob(path)}
    if size >= LARGE:
        entry["lfs"] = {"oid": _sha256(path), "size": size, "pointerSize": 134}
    return entry


def _etag(path: Path) -> str:
    return _sha256(path) if path.stat().st_size >= LARGE else _blob(path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _blob(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
