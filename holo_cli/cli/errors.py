"""The one table from exceptions to a sentence, a next step and an exit code.

0 done, 1 failed, 2 wrong usage, 3 stopped on request with everything saved, 130 Ctrl-C.
A traceback appears only with `--debug` (or HOLO_DEBUG=1).
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import NamedTuple

from holo_cli.errors import HoloError, Stopped

INTERRUPTED = 130


class Report(NamedTuple):
    """What a person reads of an error, and what a script sees."""

    message: str
    next_step: str
    exit_code: int
    label: str = "Error: "


def _holo(error: BaseException) -> Report:
    assert isinstance(error, HoloError)
    label = "" if isinstance(error, Stopped) else "Error: "
    return Report(error.message, error.next_step, error.exit_code, label)


def _file(error: BaseException) -> Report:
    assert isinstance(error, OSError)
    name = f" '{error.filename}'" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return Report(f"The disk is full{name}.", "Free some space, then run it again.", 1)
    if isinstance(error, FileNotFoundError):
        return Report(f"There is no file{name}.", "Check the path.", 1)
    if isinstance(error, PermissionError):
        return Report(f"No permission to use{name}.", "Choose another place with --out.", 1)
    return Report(f"{error.strerror or error}{name and ':' + name}.", "", 1)


def _package(error: BaseException) -> Report:
    name = getattr(error, "name", None) or str(error)
    return Report(f"The package '{name}' is missing.", "Install it: pip install " + name, 1)


def _memory(error: BaseException) -> Report:
    return Report(
        "Out of memory.", "Try a smaller --batch-size, --context or --preset, or --device cpu.", 1
    )


def _encoding(error: BaseException) -> Report:
    # commands that have --encoding tell by themselves that it is missing
    return Report(f"Text that is not UTF-8: {error}.", "Save it as UTF-8, then run it again.", 1)


def _interrupted(error: BaseException) -> Report:
    return Report("Interrupted.", "", INTERRUPTED, "")


_TABLE: tuple[tuple[type[BaseException], Callable[[BaseException], Report]], ...] = (
    (HoloError, _holo),
    (KeyboardInterrupt, _interrupted),
    (ModuleNotFoundError, _package),
    (MemoryError, _memory),
    (UnicodeDecodeError, _encoding),
    (OSError, _file),
)


def explain(error: BaseException) -> Report:
    """The row of the table that fits, or a plain admission of a fault in holo itself."""
    for kind, report in _TABLE:
        if isinstance(error, kind):
            return report(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's own, without importing torch
        return _memory(error)
    name = type(error).__name__
    step = "This is a fault in holo. Run it again with --debug to see where."
    return Report(f"Unexpected {name}: {error}", step, 1)


class _Mode:
    """Whether tracebacks are wanted, for the command that runs now."""

    debug = False


def set_debug(on: bool = True) -> None:
    """Show tracebacks from now on, or not."""
    _Mode.debug = on


def debug_from_environment() -> bool:
    """Whether HOLO_DEBUG asks for tracebacks."""
    return os.environ.get("HOLO_DEBUG", "").lower() not in ("", "0", "false")


def show(error: BaseException) -> int:
    """Write an error to stderr and give the exit code."""
    if _Mode.debug and not isinstance(error, KeyboardInterrupt | Stopped):
        traceback.print_exception(error)
    report = explain(error)
    if isinstance(error, Stopped) and os.environ.get("RANK", "0") != "0":
        return report.exit_code  # of several processes the first one says it
    print(f"{report.label}{report.message}", file=sys.stderr)
    if report.next_step:
        print(f"  {report.next_step}", file=sys.stderr)
    return report.exit_code
