"""Time that the modern and the classic recipe need to reach a validation loss.

    python benchmarks/time_to_loss.py --data shakespeare --seeds 3

Each seed trains both recipes of the preset `shakespeare-fast`, one after the other, until the loss
over the whole validation set is at most the target. Rows are appended to a JSONL file; a second
call skips finished runs. Each row has the time of training with and without evaluations.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from holo_cli.parsing import parse_object, read_bytes
from holo_cli.paths import DATA

RECIPES = ("modern", "classic")
# so that both are evaluated about equally often before they reach the target
EVAL_EVERY = {"modern": 40, "classic": 100}


def measure(data: Path, recipe: str, seed: int, target: float) -> dict[str, Any]:
    """One training run in a process of its own; returns its last event with recipe and seed."""
    command = [
        sys.executable, "-m", "holo_cli", "train", "--model", "vanilla",
        "--preset", "shakespeare-fast", "--recipe", recipe, "--data", str(data.resolve()),
        "--seed", str(seed), "--target-loss", str(target),
        "--eval-every", str(EVAL_EVERY[recipe]), "--json",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True, encoding="utf-8"
        )
    final: dict[str, Any] = parse_object(done.stdout.splitlines()[-1])
    keep = (
        "val_loss", "step", "tokens", "train_seconds", "eval_seconds", "tokens_per_second",
        "parameters", "peak_rss_bytes", "stopped_by",
    )  # fmt: skip
    return {"recipe": recipe, "seed": seed, "target": target} | {k: final[k] for k in keep}


def table(rows: list[dict[str, Any]], machine: str) -> str:
    """The rows as Markdown, with the median ratio and the machine."""
    lines = [
        "| seed | recipe | parameters | steps | tokens | val loss | training s | + evaluation |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    ratios, whole = [], []
    for seed in sorted({row["seed"] for row in rows}):
        pair = {row["recipe"]: row for row in rows if row["seed"] == seed}
        for recipe in RECIPES:
            if recipe not in pair:
                continue
            row = pair[recipe]
            total = row["train_seconds"] + row["eval_seconds"]
            reached = "" if row["stopped_by"] == "target-loss" else " (target not reached)"
            lines.append(
                f"| {seed} | {recipe} | {row['parameters']:,} | {row['step']} | {row['tokens']:,} "
                f"| {row['val_loss']:.4f}{reached} | {row['train_seconds']:.1f} | {total:.1f} |"
            )
        if len(pair) == 2 and all(r["stopped_by"] == "target-loss" for r in pair.values()):
            modern, classic = pair["modern"], pair["classic"]
            ratios.append(classic["train_seconds"] / modern["train_seconds"])
            whole.append(
                (classic["train_seconds"] + classic["eval_seconds"])
                / (modern["train_seconds"] + modern["eval_seconds"])
            )
    if ratios:
        lines += [
            "",
            f"The classic recipe takes {statistics.median(ratios):.1f} times as long in training "
            f"(median of {len(ratios)} pairs; {min(ratios):.1f} to {max(ratios):.1f}), and "
            f"{statistics.median(whole):.1f} times as long with evaluations counted.",
        ]
    lines += ["", machine]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default="data/shakespeare", type=Path,
        help="prepared set, by name or path (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--seeds", default=3, type=int, help="default: %(default)s")
    parser.add_argument(
        "--target", default=1.886, type=float,
        help="validation loss to reach, nats per token (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--rows", default="time-to-loss.jsonl", type=Path,
        help="JSONL file of the rows (default: %(default)s)",
    )  # fmt: skip
    asked = parser.parse_args()
    data = asked.data if asked.data.is_dir() else DATA / asked.data
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from holo_cli.experiment.machine import machine_line

    rows = []
    if asked.rows.exists():
        rows = [parse_object(line) for line in read_bytes(asked.rows).splitlines()]
    for seed in range(asked.seeds):
        for recipe in RECIPES:
            if any((r["seed"], r["recipe"]) == (seed, recipe) for r in rows):
                continue
            rows.append(measure(data, recipe, seed, asked.target))
            with asked.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows, machine_line()), end="")


if __name__ == "__main__":
    main()
