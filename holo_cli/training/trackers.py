"""Trackers of other projects beside TensorBoard: a run's curves, samples and settings go there too.

`training.tracker` names one. Its package is an extra, imported when a run starts. Both packages
have the same three calls, `init`, `log` and `finish`, so one class serves them; `PACKAGES` has what
is different. A resumed run continues the tracker's run, by the id in `runs/RUN/tracker.json`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from holo_cli.errors import TrainingError
from holo_cli.files import atomic_write_bytes
from holo_cli.parsing import ParseError, parse_object, read_bytes

FILE = "tracker.json"  # in the run's folder


class TrackerPackage(NamedTuple):
    """How a package is called where it differs from the others."""

    by_id: bool  # a run is continued by an id; else by its name
    options: Callable[[ModuleType], dict[str, Any]]
    login: str  # what to check when it does not start


def _quiet(wandb: ModuleType) -> dict[str, Any]:
    """No lines of its own between those of the training, whose output is already in the log."""
    return {"settings": wandb.Settings(silent=True, console="off")}


PACKAGES = {
    "trackio": TrackerPackage(False, lambda module: {"embed": False}, "training.tracker_project"),
    "wandb": TrackerPackage(True, _quiet, "`wandb login`, or WANDB_MODE=offline"),
}


class Tracker:
    """A run in a tracker. After an error there it is left alone, with one warning: a curve is not
    worth a training."""

    def __init__(
        self,
        name: str,
        project: str,
        run: str,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        resumed: bool,
        warn: Callable[[str], None],
    ) -> None:
        """`folder` is the run's. Raises TrainingError for a package that is not installed or does
        not start."""
        self.name, self.package, self.warn = name, PACKAGES[name], warn
        try:
            self.module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise TrainingError(
                f"training.tracker is {name}, which is not installed.",
                next_step=f"Install it with: pip install 'holo-cli[{name}]'",
            ) from error
        self._errors = _errors(self.module)
        identity = {"id": _identity(folder / FILE, resumed, warn)} if self.package.by_id else {}
        try:
            with _own_lines_to_stderr():
                self.module.init(
                    project=project,
                    name=run,
                    config=dict(settings),
                    resume="allow" if resumed else "never",
                    **identity,
                    **self.package.options(self.module),
                )
        except self._errors as error:
            raise TrainingError(
                f"{name} did not start: {str(error) or type(error).__name__}.",
                next_step=f"Check {self.package.login}, or train with --track none.",
            ) from error
        self._open = True

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Scalars and texts of a step, by tag."""
        if self._open and values:
            self._try(lambda: self.module.log(dict(values), step=step))

    def close(self) -> None:
        if self._open:
            self._try(self.module.finish)
        self._open = False

    def _try(self, call: Callable[[], object]) -> None:
        try:
            with _own_lines_to_stderr():
                call()
        except self._errors as error:
            self._open = False
            self.warn(
                f"{self.name} is given nothing more: {str(error) or type(error).__name__}. "
                "The log in the run's folder continues."
            )


def _errors(module: ModuleType) -> tuple[type[Exception], ...]:
    """What a package raises for a lost connection, a missing login or a full disk."""
    own = getattr(module, "Error", None)
    return (OSError, RuntimeError, ValueError, *([own] if isinstance(own, type) else []))


def _identity(path: Path, resumed: bool, warn: Callable[[str], None]) -> str:
    """The id of this run in the tracker: the stored one of a resumed run, else a new one."""
    if resumed and path.exists():  # else it was trained without a tracker so far
        try:
            return str(parse_object(read_bytes(path))["id"])
        except (OSError, ParseError, KeyError):
            warn(f"{path} cannot be read: the tracker gets a new run from here on.")
    fresh = uuid.uuid4().hex[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, (json.dumps({"id": fresh}) + "\n").encode())
    return fresh


def _own_lines_to_stderr() -> contextlib.AbstractContextManager[object]:
    """Trackers print to stdout, which with --json belongs to the events."""
    return contextlib.redirect_stdout(sys.stderr)
