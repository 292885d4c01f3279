"""`holo` and `python -m holo_cli`: streams made UTF-8, the command run, errors put into words."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from holo_cli.cli import errors
from holo_cli.cli.app import app
from holo_cli.cli.output import use_utf8
from holo_cli.imports import quick_exit
from holo_cli.printable import guarded
from holo_cli.streams import lasting, open_closed
from holo_cli.torchrun import reported
from holo_cli.translation import command_line

quick_exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code."""
    open_closed()
    use_utf8()
    # Threads that spin while they wait make training ten times slower as soon as anything else
    # runs on the machine: `python -m benchmarks.threads` measures it. The user's
    # own setting takes precedence. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    errors.set_debug(errors.debug_from_environment())
    with lasting() as stdout, guarded(), command_line.translated():
        code = _run(arguments)
        stdout.flush()
        if code == 0 and stdout.failure is not None:
            code = errors.show(stdout.failure)
    return reported(code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        app(args=arguments, prog_name="holo")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the one place for all
        return errors.show(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
