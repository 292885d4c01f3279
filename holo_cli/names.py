"""Names as people type them, and the names on the disk that they mean.

Korean letters have two forms in Unicode that look the same: composed (NFC), as keyboards and most
systems write them, and decomposed (NFD), as archives packed on a Mac name their files. On most
disks these are different names. Every name or path that a person types is looked up here: as
typed, else with `~` for the home folder, else in the other form.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

_PLAIN = re.compile(r"[\w@%+=:,./-]+")


def composed(name: str) -> str:
    """A name in the form that is written to new files and compared with others (NFC)."""
    return unicodedata.normalize("NFC", name)


def expanded(typed: str | Path) -> Path:
    """The path with a leading `~` or `~user` replaced; as typed if there is no such folder."""
    path = Path(typed)
    try:
        return path.expanduser()
    except RuntimeError:  # no such user, or a user without a home folder
        return path


def existing(typed: str | Path) -> Path:
    """The path on the disk that a typed one means; if there is none, the typed one, expanded."""
    if os.path.lexists(typed):
        return Path(typed)
    path = expanded(typed)
    if os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        here = within(found, part)
        if here is None:
            return path
        found = here
    return found


def within(folder: Path, name: str) -> Path | None:
    """The entry of a folder that a name means; None if there is none."""
    if os.path.lexists(folder / name):
        return folder / name
    same = same_name(name, listed(folder))
    return None if same is None else folder / same


def listed(folder: Path) -> list[str]:
    """The names in a folder in order; none for a folder that is missing or may not be read."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def same_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that equals `name`, or else looks the same in the other form."""
    names = list(known)
    if name in names:
        return name
    return next((other for other in names if composed(other) == composed(name)), None)


def quoted(value: str | Path) -> str:
    """A name as an argument of a command to type: in quotes if the shell needs them, and with ./
    before a leading dash. Letters of any script need none."""
    text = str(value)
    if text.startswith("-"):
        text = f"./{text}"
    if _PLAIN.fullmatch(text):
        return text
    return subprocess.list2cmdline([text]) if sys.platform == "win32" else shlex.quote(text)
