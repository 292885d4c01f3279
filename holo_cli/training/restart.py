"""A run that torchrun has started again (`--max-restarts`), with the arguments it had.

`holo resume` does the right thing anyway. `holo train` continues what this torchrun began: the
run's `_last` file, if it was written since torchrun was started, and else it begins again.
"""

from __future__ import annotations

import os

import psutil

from holo_cli.checkpoint import run_path
from holo_cli.errors import UsageError
from holo_cli.paths import CHECKPOINTS


def restarted(run: str | None) -> bool:
    """Whether this `holo train` must continue a run that an earlier start of it has saved.

    Raises UsageError where torchrun may start again what has no name to find it by.
    """
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return False
    if run is None:
        raise UsageError(
            "With --max-restarts of torchrun a run needs a name, by which it is found again.",
            next_step="Add --run NAME.",
        )
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return False
    last = run_path(CHECKPOINTS, run, "last")
    began = psutil.Process(os.getppid()).create_time()  # torchrun's
    return last.exists() and last.stat().st_mtime >= began
