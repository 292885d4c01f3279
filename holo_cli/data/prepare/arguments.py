"""The arguments of `prepare`: what they must be, and the names that follow from them."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence

from holo_cli.data.prepare.pipeline import LANGUAGE_CODE
from holo_cli.data.sources import source_names
from holo_cli.data.sources.found import is_stdin
from holo_cli.data.sources.hub.subsets import LANGUAGE_AND_SCRIPT, short_code
from holo_cli.data.tokenizers import FILE, check_spec, needs_text
from holo_cli.errors import UsageError
from holo_cli.names import composed, existing
from holo_cli.paths import DATA

MAX_NAME = 60  # characters of a name that is made of several
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]')


def check_arguments(
    names: Sequence[str],
    plain: Sequence[str],
    talks: Sequence[str],
    tokenizer: str | None,
    lang: Sequence[str],
    max_docs: int | None,
    max_bytes: int | None,
    val_fraction: float,
) -> None:
    """Reject invalid arguments before any source is opened: `plain` are the values of --source,
    `talks` those of --chat."""
    sources = [*plain, *talks]
    if not names and not sources:
        raise UsageError(
            "There is nothing to prepare: no dataset and no --source was given.",
            next_step="Try: holo prepare stories, or: holo prepare --source FILE.",
        )
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise UsageError(
            f"'{twice}' is named twice.",
            next_step="Name it once.",
        )
    if twice := next((one for n, one in enumerate(sources) if one in sources[:n]), None):
        raise UsageError(
            f"--chat names {twice} twice." if twice in talks else f"--source names {twice} twice.",
            next_step="Name it once.",
        )
    if talks and names and names[0] in source_names():
        raise UsageError(
            f"'{names[0]}' is the name of a dataset, and --chat names your own conversations.",
            next_step="Give your conversations another name.",
        )
    if len(sources) > 1 and names and names[0] in source_names():
        raise UsageError(
            f"'{names[0]}' is the name of a dataset, which takes one --source.",
            next_step="Give your texts another name.",
        )
    if len(names) > 1 and sources:
        raise UsageError("--source takes at most one name.", next_step="Prepare them separately.")
    for name in names:
        if not name.strip(". ") or _UNSAFE.search(name):
            raise UsageError(
                f"'{name}' cannot be the name of a set.",
                next_step="Use letters, digits, - and _; pass a file with --source FILE.",
            )
    for code in lang:
        if not (LANGUAGE_CODE.fullmatch(code) or LANGUAGE_AND_SCRIPT.fullmatch(code)):
            raise UsageError(
                f"'{code}' is not a language code.", next_step="Write --lang ko,en, for example."
            )
    for flag, value in (("--max-docs", max_docs), ("--max-bytes", max_bytes)):
        if value is not None and value < 1:
            raise UsageError(f"{flag} must be at least 1.")
    if not 0 < val_fraction < 1:
        raise UsageError(
            f"--val-fraction {val_fraction} is not between 0 and 1.",
            next_step="The default is 0.05.",
        )
    if tokenizer is not None:
        check_spec(tokenizer)


def requested_languages(lang: Sequence[str]) -> dict[str, str]:
    """The requested languages by code, each as it was written: {"ko": "kor_Hang", "en": "en"}."""
    found: dict[str, str] = {}
    for name in lang:
        before = found.setdefault(short_code(name), name)
        if len({before, name} - {short_code(name)}) > 1:
            raise UsageError(
                f"--lang names '{before}' and '{name}', two scripts of one language.",
                next_step="Prepare them separately.",
            )
    return found


def name_of(source: str) -> str:
    """The default name of a set: the name of the file or folder without extensions."""
    path = existing(source)
    if is_stdin(source) or path.is_fifo():
        name = "stdin" if is_stdin(source) or str(path).startswith("/dev/fd/") else path.name
    else:
        name = path.resolve().name
    return _UNSAFE.sub("_", composed(name)).split(".")[0] or "text"


def labels_of(sources: Sequence[str]) -> list[str]:
    """A name for each of several sources, as `--mix` takes it: "a", "b", "a-2"."""
    found: list[str] = []
    for source in sources:
        part = existing(source)
        while glob.has_magic(part.name) and not part.exists():
            part = part.parent  # a pattern is called as its folder
        base = name = name_of(source if is_stdin(source) else str(part))
        number = 1
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found.append(name)
    return found


def joined_name(labels: Sequence[str]) -> str:
    """The default name of a set of several sources. UsageError where it would be very long."""
    name = "-".join(labels)
    if len(name) > MAX_NAME:
        raise UsageError(
            f"A set of {len(labels)} sources needs a name.",
            next_step="Name it: holo prepare NAME --source ...",
        )
    return name


def resolve_set(spec: str | None) -> str | None:
    """Replace the name of a prepared set by its folder: `stories` -> data/stories."""
    if spec is None or needs_text(spec) or existing(spec).exists():
        return spec
    folder = existing(DATA / spec)
    return str(folder) if (folder / FILE).is_file() else spec
