"""Start-up: time until a command's first output, for this checkout and another one in turn.

    python -m benchmarks.startup --checkpoint RUN --rounds 5
    python -m benchmarks.startup --checkpoint RUN --against ../older-checkout --markdown

Each round starts every command of every checkout once, one after the other, so that other work on
the machine meets all alike. Reported are medians with ranges: seconds until the first byte on
stdout, and the processor time of the whole command, which says more on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from holo_cli.cli.markdown import markdown_table

HERE = Path(__file__).resolve().parents[1]


def commands(checkpoint: str | None, models: list[str]) -> dict[str, list[str]]:
    """The measured command lines by name."""
    found = {"--help": ["--help"]} | {f"models {name}": ["models", name] for name in models}
    if checkpoint:
        asked = ["-c", checkpoint, "--prompt", "The model", "--max-new-tokens", "1", "--quiet"]
        found["generate, first token"] = ["generate", *asked]
    return found


def timed(root: Path, arguments: list[str], limit: float = 120.0) -> tuple[float, float]:
    """Seconds until the first byte on stdout, and processor seconds of the whole process."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's second start finds compiled modules
    before = os.times()
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "holo_cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.read(1)
    seconds = time.perf_counter() - started
    process.stdout.read()
    code = process.wait(timeout=limit)
    after = os.times()
    if code or not first:
        raise SystemExit(f"{' '.join(arguments)} in {root} ended with {code} and no output")
    used = after.children_user + after.children_system
    return seconds, used - before.children_user - before.children_system


def spread(values: list[float]) -> str:
    """Median, and in brackets the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", help="run or file to generate from (default: leave out)")
    parser.add_argument("--models", default="vanilla,brain-v1", help="for `holo models NAME`")
    parser.add_argument("--against", type=Path, help="root of another checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help="a table instead of JSON lines")
    given = parser.parse_args()
    roots = {"here": HERE} | ({"against": given.against.resolve()} if given.against else {})
    named = commands(given.checkpoint, given.models.split(","))
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for round_number in range(given.rounds):
        for name, arguments in named.items():
            for root in list(roots)[:: 1 if round_number % 2 == 0 else -1]:
                found.setdefault((name, root), []).append(timed(roots[root], arguments))
    rows = [
        (name, root, spread([t for t, _ in times]), spread([c for _, c in times]))
        for (name, root), times in found.items()
    ]
    if given.markdown:
        print(markdown_table(("command", "checkout", "first output, s", "CPU, s"), rows))
        return
    for (name, root), times in found.items():
        print(json.dumps({"command": name, "checkout": root, "seconds_and_cpu": times}))


if __name__ == "__main__":
    main()
