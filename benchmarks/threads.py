"""Training speed with spinning and with sleeping OpenMP threads, alone and beside a busy process.

    python benchmarks/threads.py --data stories

OpenMP's threads spin by default while they wait for each other. On an idle machine that is free;
beside another busy process a spinning thread occupies the core that its partner needs. Each row
trains a few steps of the preset `demo` in a process of its own, with or without a second process
that keeps one core busy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from holo_cli.paths import DATA

SETTINGS = {
    "spinning (the default)": {},
    "sleeping (OMP_WAIT_POLICY=PASSIVE, what holo sets)": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
BUSY = "while True: pass"


def steps_per_second(data: Path, environment: dict[str, str]) -> float:
    """Training speed of a new process with these OpenMP settings."""
    code = (
        "from holo_cli.config.resolve import resolve;"
        "from holo_cli.training.calibrate import steps_within;"
        f"r = resolve('vanilla', 'demo', flags={{'data.path': {str(data.resolve())!r}}});"
        "print(steps_within(r, 1000.0) / 1000)"
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default="data/stories", type=Path,
        help="prepared set, by name or path (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", default=3, type=int, help="measurements of each row (default: %(default)s)"
    )
    asked = parser.parse_args()
    data = asked.data if asked.data.is_dir() else DATA / asked.data
    speeds: dict[tuple[str, bool], list[float]] = {}
    for _ in range(asked.repeats):
        for busy in (False, True):
            other = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
            try:
                for name, environment in SETTINGS.items():
                    speed = steps_per_second(data, environment)
                    speeds.setdefault((name, busy), []).append(speed)
            finally:
                if other is not None:
                    other.kill()
                    other.wait()
    print("| threads | alone, steps/s | beside a busy process, steps/s |\n|---|---:|---:|")
    for name in SETTINGS:
        cells = []
        for busy in (False, True):
            values = speeds[name, busy]
            middle, low, high = statistics.median(values), min(values), max(values)
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        print(f"| {name} | {cells[0]} | {cells[1]} |")
    from holo_cli.experiment.machine import machine_line

    print(f"\nMedian of {asked.repeats}, lowest and highest. {machine_line()}")


if __name__ == "__main__":
    main()
