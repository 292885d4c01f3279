"""A subprocess of test_killed.py: prepare, be killed (SIGKILL), prepare again.

Children are forked from this process, in which everything was imported and used once, so that each
starts in milliseconds and is killed at a random moment of its work, not of its imports. Prints one
JSON line: what each kill met.

    python killing.py SETTINGS.json FOLDER KILLS SEED

SETTINGS: {"warm": [keyword arguments of preparations from folders], "settings": of the one killed}
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from holo_cli.data.prepare import build, pipeline
from holo_cli.data.prepare.prepare import prepare
from holo_cli.data.sources import base
from holo_cli.data.sources.hub import rows as hub_rows


def child(settings: dict[str, Any], out: Path) -> int:
    """Start a preparation; the id of its process."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        prepare(out=out, **settings)
        code = 0
    except BaseException as error:  # noqa: BLE001 - printed, and the parent checks the exit code
        print(type(error).__name__, error, file=sys.stderr, flush=True)
    os._exit(code)


def finish(settings: dict[str, Any], out: Path) -> float:
    begun = time.monotonic()
    _, status = os.waitpid(child(settings, out), 0)
    if status:
        raise RuntimeError(f"{out} could not be prepared")
    return time.monotonic() - begun


def main() -> int:
    build.CHECKPOINT_SECONDS = 0.02
    pipeline.BATCH_DOCUMENTS = 16
    base.CHUNK_DOCUMENTS = hub_rows.CHUNK_DOCUMENTS = 10
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    settings = plan["settings"]
    for number, warm in enumerate(plan["warm"]):
        prepare(out=Path(sys.argv[2]) / f"warm {number}", **warm)
    folder, kills, chance = Path(sys.argv[2]), int(sys.argv[3]), random.Random(int(sys.argv[4]))
    most = finish(settings, folder / "whole")  # seconds from a start to the latest kill
    met: list[dict[str, Any]] = []
    for number in range(kills):
        out = folder / f"killed {number}"
        process = child(settings, out)
        time.sleep(chance.uniform(0.0, most))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        progress = out / ".building" / "progress.json"
        met.append(
            {
                "killed": os.WIFSIGNALED(status),
                "complete": (out / "meta.json").exists(),
                "position": json.loads(progress.read_text())["position"]
                if progress.exists()
                else None,
            }
        )
        # beside other work the next one may take less or more time than the one that was measured
        if not met[-1]["killed"]:
            most *= 0.8
        elif met[-1]["position"] is None:
            most *= 1.25
        finish(settings, out)
    print(json.dumps(met))
    return 0


if __name__ == "__main__":
    sys.exit(main())
