"""HTML files that were written before, in runs/, bench/ and pages/: the index, and their content.

A file may come from anybody: it is shown in a sandbox of its own, where its scripts can neither
read this server's answers nor load anything. Nothing is written, and no path leads out of the
three folders, be it by `..` or by a link.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from holo_cli.paths import BENCH, PAGES, RUNS
from holo_cli.serve.refusal import Refusal

ROOTS = {"runs": RUNS, "bench": BENCH, "pages": PAGES}
SUFFIX = ".html"
MOST = 1000  # files in the index, the newest
LARGEST = 64 * 10**6  # bytes of a file that is shown
HEAD = 4096  # bytes in which its title must stand
TITLE = re.compile(r"<title>([^<]*)</title>", re.IGNORECASE)
VALID = 3600  # seconds that a link holds, where the server has a key
POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def listed(key: str) -> list[dict[str, Any]]:
    """All files, newest first; with the server's key each link carries a proof of it."""
    found = [row for name, root in ROOTS.items() for row in _inside(name, root)]
    found.sort(key=lambda row: -row["modified"])
    for row in found[:MOST]:
        row["title"] = _title(row.pop("file"))
        ticket = f"?ticket={ticket_of(row['path'], key)}" if key else ""
        row["href"] = f"/written/{quote(row['path'])}{ticket}"
    return found[:MOST]


def _inside(name: str, root: Path) -> Iterator[dict[str, Any]]:
    for folder, _, files in os.walk(root):  # does not follow links to folders
        for file in files:
            path = Path(folder) / file
            if path.suffix != SUFFIX or path.is_symlink():
                continue
            try:
                stat = path.stat()
            except OSError:  # deleted since it was listed
                continue
            place = f"{name}/{path.relative_to(root).as_posix()}"
            yield {"path": place, "file": path, "bytes": stat.st_size, "modified": stat.st_mtime}


def _title(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD).decode("utf-8", errors="ignore")
    except OSError:
        return ""
    found = TITLE.search(head)
    return " ".join(unescape(found[1]).split()) if found else ""


def content(path: str) -> bytes:
    """A file by its path in the index. Raises Refusal for anything that is not in it."""
    file = located(path)
    if file is None:
        raise Refusal(404, "There is no such page.", code="page_not_found")
    try:
        if file.stat().st_size > LARGEST:
            raise Refusal(413, "The page is too large to be shown.", code="page_too_large")
        return file.read_bytes()
    except OSError as error:
        raise Refusal(404, "The page cannot be read.", code="page_not_found") from error


def located(path: str) -> Path | None:
    """The file at a path below one of the folders; None for all other paths."""
    name, *parts = path.split("/")
    root = ROOTS.get(name)
    wrong = any(not part or part in (".", "..") or set(part) & set("\\:\0") for part in parts)
    if root is None or not parts or wrong or not parts[-1].endswith(SUFFIX):
        return None
    try:
        # links are followed first: what they lead to must be inside as well
        file, inside = root.joinpath(*parts).resolve(strict=True), root.resolve(strict=True)
    except (OSError, RuntimeError):  # not there, or a circle of links
        return None
    return file if file.is_relative_to(inside) and file.is_file() else None


def ticket_of(path: str, key: str, end: int | None = None) -> str:
    """Proof that somebody with the key asked for this link; it holds for VALID seconds.

    A link that a browser follows cannot carry the key in a header.
    """
    end = int(time.time()) + VALID if end is None else end
    message = f"{end}/{path}".encode()
    return f"{end}-{hmac.new(key.encode(), message, hashlib.sha256).hexdigest()}"


def check_ticket(path: str, ticket: str, key: str) -> None:
    """Raises Refusal for a link without a valid ticket, where the server has a key."""
    if not key:
        return
    end = ticket.partition("-")[0]
    number = int(end) if end.isascii() and end.isdigit() and len(end) < 12 else 0
    expected = ticket_of(path, key, number).encode()
    if not hmac.compare_digest(ticket.encode("utf-8", "replace"), expected) or number < time.time():
        raise Refusal(401, "The link has expired. Open it from the list of pages again.")
