"""The errors a user can meet: each is one clear sentence and what to type next.

Every kind carries the exit code with which the command line ends:
0 done, 1 failed, 2 wrong usage, 3 stopped on request with everything saved, 130 Ctrl-C.
Library code raises these; only `holo_cli/cli/app.py` turns them into text and an exit code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HoloError(Exception):
    """Something failed. `message` says what and where, `next_step` what to type or change."""

    exit_code = 1

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}".strip()


class UsageError(HoloError):
    """The command line or the config asks for something that does not exist or does not fit."""

    exit_code = 2


class ModelError(UsageError):
    """A model from outside cannot be imported, or its name is taken."""

    exit_code = 1


class CheckError(HoloError):
    """A model does not keep the contract: `holo check` names the check that failed."""


class DataError(HoloError):
    """A source, a prepared set or a tokenizer is missing, damaged or unusable."""


class CheckpointError(HoloError):
    """A checkpoint is missing, damaged, foreign, or from a newer version."""


class TrainingError(HoloError):
    """Training cannot continue: not a number, out of memory, nothing to train on."""


class Stopped(HoloError):
    """Stopped on request (Ctrl-C, SIGTERM) after everything was saved."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the closest known spelling, or lists what there is.

    >>> nearest("wdith", ["width", "layers"])
    "Did you mean 'width'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    return "Known: " + ", ".join(names) + "." if names else ""
