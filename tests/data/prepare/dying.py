"""A preparation that dies at a chosen step to the disk: for test_resumed.py.

    python -m tests.data.prepare.dying SOURCE OUT STEP [force]

Without dying (STEP 0) it prints how many steps there are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holo_cli.data.prepare import build, pipeline
from holo_cli.data.prepare.prepare import prepare


def main() -> int:
    build.CHECKPOINT_SECONDS, pipeline.BATCH_DOCUMENTS = -1, 20
    source, out, die_at, *force = sys.argv[1:]
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == int(die_at):
                os._exit(9)  # nothing is flushed, nothing is cleaned up
            return function(*args, **kwargs)

        return call

    os.fsync = counted(os.fsync)
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]
    Path.unlink = counted(Path.unlink)  # type: ignore[method-assign]
    settings: dict[str, Any] = {"tokenizer": "bpe", "vocab_size": 300, "shard_bytes": 6000}
    prepare(source=source, out=out, force=bool(force), **settings)
    print(calls)
    return 0


if __name__ == "__main__":
    sys.exit(main())
