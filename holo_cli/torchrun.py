"""torchrun with holo's exit codes: `python -m holo_cli.torchrun --nproc-per-node 4 -- train ...`.

torchrun ends with 1 whatever a process ended with, and with `--max-restarts` it starts a run again
that was stopped on request. Here each process writes its exit code to a folder and, where starting
again would be wrong (done, wrong usage, stopped), ends with 0; this process then ends with the
code. Before `--` stand torchrun's own options, after it a command line of holo.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from holo_cli.errors import UsageError
from holo_cli.translation import translate

FOLDER = "HOLO_EXIT_CODES"  # environment variable: where processes write theirs
FINAL = (0, 2, 3)  # codes of the error table after which a run is not started again
STOPPED = 3


def reported(code: int) -> int:
    """Tell an exit code to the launcher that started this process; the code to end with.

    Under torchrun itself with `--max-restarts`, a stop on request ends with 0: any other code would
    start the run again.
    """
    rank = os.environ.get("RANK")
    if rank is None:
        return code
    folder = os.environ.get(FOLDER)
    if folder:
        (Path(folder) / rank).write_text(str(code), encoding="utf-8")
        return 0 if code in FINAL else code
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    return 0 if restarts and code == STOPPED else code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run torchrun; the exit code of the processes, 1 where they have none in common."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    at = given.index("--") if "--" in given else len(given)
    options, command = given[:at], given[at + 1 :]
    if not command:
        example = "python -m holo_cli.torchrun --nproc-per-node 2 -- train --model vanilla --run a"
        error = UsageError(
            "There is no command of holo after `--`.", next_step=f"For example: {example}"
        )
        print(translate(f"Error: {error.message}"), file=sys.stderr)
        print(f"  {translate(error.next_step)}", file=sys.stderr)
        return error.exit_code
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    with tempfile.TemporaryDirectory(prefix="holo-") as folder:
        os.environ[FOLDER] = folder
        try:
            torchrun([*options, "-m", "--", "holo_cli", *command])
        except ChildFailedError:
            return 1  # each process has said what happened
        except SignalException:
            return _common(Path(folder), 1)
        return _common(Path(folder), 0)


def _common(folder: Path, otherwise: int) -> int:
    """The largest code that processes have written, of those that are final."""
    codes = [int(path.read_text(encoding="utf-8")) for path in folder.iterdir()]
    return max(codes) if codes and set(codes) <= set(FINAL) else otherwise


if __name__ == "__main__":
    sys.exit(main())
