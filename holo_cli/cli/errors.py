"""The error table of the command line: from exceptions to a message, a next step and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 stopped on request with everything saved, 130 Ctrl-C.
Tracebacks are shown only with `--debug` or HOLO_DEBUG=1.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import NamedTuple

from holo_cli.errors import HoloError, Stopped
from holo_cli.printable import message

INTERRUPTED = 130


class ErrorReport(NamedTuple):
    """What is shown of an error, and the exit code."""

    message: str
    next_step: str
    exit_code: int
    label: str = "Error: "


def _holo(error: BaseException) -> ErrorReport:
    assert isinstance(error, HoloError)
    label = "" if isinstance(error, Stopped) else "Error: "
    return ErrorReport(error.message, error.next_step, error.exit_code, label)


def _file(error: BaseException) -> ErrorReport:
    assert isinstance(error, OSError)
    path = error.filename
    if error.errno == errno.ENOSPC:
        message = f"The disk is full: '{path}' was not written." if path else "The disk is full."
        return ErrorReport(message, "Free some space, then run the command again.", 1)
    if isinstance(error, FileNotFoundError):
        message = f"There is no file '{path}'." if path else "There is no such file."
        return ErrorReport(message, "Check the path.", 1)
    if isinstance(error, PermissionError):
        message = f"No permission to access '{path}'." if path else "No permission."
        return ErrorReport(message, "Choose another path with --out.", 1)
    if isinstance(error, IsADirectoryError) and path:
        return ErrorReport(f"'{path}' is a folder, and a file is needed.", "Name a file.", 1)
    reason = error.strerror or str(error)
    return ErrorReport(f"{path}: {reason}." if path else f"{reason}.", "", 1)


def _package(error: BaseException) -> ErrorReport:
    name = getattr(error, "name", None) or str(error)
    return ErrorReport(f"The package '{name}' is not installed.", f"Run: pip install {name}", 1)


def _memory(error: BaseException) -> ErrorReport:
    return ErrorReport(
        "Out of memory.",
        "Use a smaller --batch-size, --context or --preset, or --device cpu.",
        1,
    )


def _encoding(error: BaseException) -> ErrorReport:
    # Commands with --encoding raise their own error.
    return ErrorReport(
        f"A text is not UTF-8: {error}.", "Save it as UTF-8, then run the command again.", 1
    )


def _interrupted(error: BaseException) -> ErrorReport:
    return ErrorReport("Interrupted.", "", INTERRUPTED, "")


_TABLE: tuple[tuple[type[BaseException], Callable[[BaseException], ErrorReport]], ...] = (
    (HoloError, _holo),
    (KeyboardInterrupt, _interrupted),
    (ModuleNotFoundError, _package),
    (MemoryError, _memory),
    (UnicodeDecodeError, _encoding),
    (OSError, _file),
)


def explain(error: BaseException) -> ErrorReport:
    """The report of an exception; one outside the table is reported as a bug in holo."""
    for kind, report in _TABLE:
        if isinstance(error, kind):
            return report(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's own, without importing torch
        return _memory(error)
    return ErrorReport(
        f"Unexpected {type(error).__name__}: {error}",
        "This is a bug in holo. Run the command again with --debug for the traceback.",
        1,
    )


class _Mode:
    """Whether the running command shows tracebacks."""

    debug = False


def set_debug(on: bool = True) -> None:
    """Turns tracebacks on or off."""
    _Mode.debug = on


def debug_from_environment() -> bool:
    """Whether HOLO_DEBUG asks for tracebacks."""
    return os.environ.get("HOLO_DEBUG", "").lower() not in ("", "0", "false")


def show(error: BaseException) -> int:
    """Writes an error to stderr and returns the exit code."""
    if _Mode.debug and not isinstance(error, KeyboardInterrupt | Stopped):
        traceback.print_exception(error)
    report = explain(error)
    if isinstance(error, Stopped) and os.environ.get("RANK", "0") != "0":
        return report.exit_code  # with several processes only rank 0 reports it
    print(message(f"{report.label}{report.message}"), file=sys.stderr)
    if report.next_step:
        print(message(f"  {report.next_step}"), file=sys.stderr)
    return report.exit_code
