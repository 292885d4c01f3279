"""`holo pull`: fetches a ready checkpoint into the folder of checkpoints.

The file arrives as `RUN_best.safetensors.part`, which a later call continues, and takes its name
once its size and its sha256 are those of the table, and its header is one of a checkpoint. Every
redirection is checked like the first address.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from holo_cli.checkpoint.find import run_path
from holo_cli.checkpoint.lock import RunLock, is_locked
from holo_cli.checkpoint.read import read_header
from holo_cli.checkpoint.ready_table import (
    MAX_TABLE_BYTES,
    OWN,
    ReadySource,
    ReadyTable,
    check_address,
    is_address,
    is_loopback,
    parse_table,
    source_of,
)
from holo_cli.errors import CheckpointError
from holo_cli.files import fsync_folder
from holo_cli.paths import CHECKPOINTS

if TYPE_CHECKING:
    import requests

PART = ".part"
MOST_REDIRECTIONS = 5
TIMEOUT = (10.0, 30.0)  # seconds: to connect, and between two blocks
_BLOCK = 1 << 16

OnProgress = Callable[[int, int], None]  # bytes so far, bytes in total


@dataclass(frozen=True)
class Pulled:
    """A checkpoint that is here now. `already`: it was before; `resumed`: its beginning was."""

    run: str
    path: Path
    bytes: int
    already: bool = False
    resumed: bool = False


def open_table(place: str | None = None, *, offline: bool = False) -> ReadyTable:
    """The project's table, or that of a file or an address. Raises CheckpointError, UsageError."""
    if place is None:
        return parse_table(OWN.read_bytes())
    if not is_address(place):
        try:
            with Path(place).open("rb") as file:
                return parse_table(file.read(MAX_TABLE_BYTES + 1), place)
        except OSError as error:
            raise CheckpointError(
                f"The table {place} cannot be read: {error.strerror or error}.",
                next_step="Name a file or an address with --table.",
            ) from error
    check_address(place)
    if offline:
        raise _offline(place)
    with _opened(place, 0) as answer:
        content = b""
        for block in _blocks(answer):
            content += block
            if len(content) > MAX_TABLE_BYTES:
                break
    table = parse_table(content, place)
    # files are beside their table unless it says otherwise
    return table if table.base_url else table.model_copy(update={"base_url": urljoin(place, ".")})


def fetch_ready(
    name: str,
    *,
    table: ReadyTable | None = None,
    base_url: str | None = None,
    root: Path = CHECKPOINTS,
    offline: bool = False,
    force: bool = False,
    progress: OnProgress = lambda done, total: None,
) -> Pulled:
    """Fetch the ready checkpoint of a name to `root`, unless it is there.

    `base_url` is another folder of the table's files. Raises UsageError for an unknown name and for
    an address that is neither https nor this machine's; CheckpointError where it is not published,
    where another file has its name (unless `force`), without a network, and for content that is not
    what the table says.
    """
    table = table or open_table()
    entry = table.entry(name)
    path = run_path(root, entry.run, "best")
    if path.exists() and entry.published:
        if path.stat().st_size == entry.bytes and _sha256(path) == entry.sha256:
            return Pulled(entry.run, path, entry.bytes, already=True)
        if not force:
            raise CheckpointError(
                f"{path.as_posix()} is there already, and is not the ready checkpoint.",
                next_step=f"Rename it with `holo runs rename {entry.run} NEW`, or replace it with "
                "--force.",
            )
    source = source_of(table, name, base_url)
    if offline:
        raise _offline(source.url)
    if is_locked(root, entry.run):
        raise CheckpointError(
            f"Another process is fetching or writing '{entry.run}'.",
            next_step="Wait until it is done, then type the same command again.",
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with RunLock(root, entry.run):
            resumed = _download(source, path, progress)
    except OSError as error:
        hint = "Start from a folder that you can write to."
        if error.errno == errno.ENOSPC:
            hint = "Free some space, then type the same command again: it continues."
        raise CheckpointError(
            f"{path.as_posix()} cannot be written: {error.strerror or error}.", next_step=hint
        ) from error
    return Pulled(entry.run, path, entry.bytes, resumed=resumed)


def _offline(url: str) -> CheckpointError:
    return CheckpointError(
        f"{url} is not here, and --offline forbids fetching it.", next_step="Leave --offline out."
    )


def _download(source: ReadySource, path: Path, progress: OnProgress) -> bool:
    """Fetch the file; whether an earlier part of it was continued."""
    entry = source.entry
    part = path.with_name(path.name + PART)
    have = part.stat().st_size if part.exists() else 0
    if have > entry.bytes:
        part.unlink()
        have = 0
    resumed = False
    if have < entry.bytes:
        with _opened(source.url, have) as answer:
            whole = answer.headers.get("Content-Length", "")
            if answer.status_code == 200 and whole.isdecimal() and int(whole) != entry.bytes:
                why = f"it has {whole} bytes, and not {entry.bytes}"
                raise _other(source, why)
            resumed = have > 0 and _continues(answer, have, entry.bytes)
            if answer.status_code == 206 and not resumed:
                part.unlink(missing_ok=True)
                why = "its server sent another part of it than was asked for"
                raise _other(source, why)
            have = have if resumed else 0
            with part.open("ab" if resumed else "wb") as file:
                for block in _blocks(answer):
                    have += len(block)
                    if have > entry.bytes:
                        break
                    file.write(block)
                    progress(have, entry.bytes)
                file.flush()
                os.fsync(file.fileno())
    if have > entry.bytes:
        part.unlink()
        why = f"it has more than {entry.bytes} bytes"
        raise _other(source, why)
    if have < entry.bytes:
        raise CheckpointError(
            f"{source.url} ended after {have} of {entry.bytes} bytes.",
            next_step="Type the same command again: it continues there.",
        )
    if _sha256(part) != entry.sha256:
        part.unlink()
        why = "its sha256 is another one"
        raise _other(source, why)
    try:
        read_header(part)
    except CheckpointError as error:
        part.unlink()
        raise CheckpointError(
            f"{source.url} has the sha256 of the table, but is not a checkpoint that this holo can "
            "read.",
            next_step="Update holo; if it stays so, the table is wrong: ask whoever made it.",
        ) from error
    part.replace(path)
    fsync_folder(path.parent)
    return resumed


def _other(source: ReadySource, why: str) -> CheckpointError:
    return CheckpointError(
        f"{source.url} is not the file that the table names: {why}.",
        next_step="Type the same command again; if it stays so, the release or its table is wrong.",
    )


def _continues(answer: requests.Response, have: int, total: int) -> bool:
    """Whether an answer is the rest of the file, and not all of it."""
    if answer.status_code != 206:
        return False
    return answer.headers.get("Content-Range", "").replace(" ", "") == (
        f"bytes{have}-{total - 1}/{total}"
    )


@contextlib.contextmanager
def _opened(url: str, start: int) -> Iterator[requests.Response]:
    """The answer to a request for a file from byte `start` on. Raises CheckpointError."""
    import requests

    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.Session() as session:
        for _ in range(MOST_REDIRECTIONS + 1):
            check_address(url)
            # the environment's proxies are for other machines
            session.trust_env = not is_loopback(urlsplit(url).hostname or "")
            try:
                answer = session.get(
                    url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False
                )
            except requests.exceptions.SSLError as error:
                raise CheckpointError(
                    f"{url} could not be reached: its certificate was not accepted.",
                    next_step="Check the clock, and whether a proxy needs a certificate of its own "
                    "(REQUESTS_CA_BUNDLE).",
                ) from error
            except (requests.RequestException, UnicodeError) as error:
                raise _unreachable(url) from error
            with answer:
                if not answer.is_redirect:
                    if answer.status_code not in (200, 206):
                        raise CheckpointError(
                            f"{url} answers with status {answer.status_code}.",
                            next_step="Check the address, or try again later.",
                        )
                    yield answer
                    return
                url = urljoin(url, answer.headers["Location"])
    raise CheckpointError(
        f"{url} was reached over more than {MOST_REDIRECTIONS} redirections.",
        next_step="Check the address.",
    )


def _unreachable(url: str) -> CheckpointError:
    return CheckpointError(
        f"{url} could not be reached.",
        next_step="Check the network and the address, then type the same command again.",
    )


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    """The content in blocks; an answer that breaks off or stalls ends early, as one that is too
    short."""
    import requests

    # else the last bytes before an early end would be dropped; the caller counts them
    answer.raw.enforce_content_length = False
    try:
        yield from answer.iter_content(_BLOCK)
    except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError):
        return  # closed before the announced length, or silent for longer than the timeout


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
