"""Simulated preemptions of a training on several processes, and of the coordinator of a comparison.

    python -m benchmarks.preemptions                      20 interruptions, some minutes
    python -m benchmarks.preemptions --training 4 --coordinator 0 --worlds 2

A training starts on a random number of processes (gloo, forks of this process), is interrupted at
a random step, and is resumed on another random number, until it is done:

- `rank`: one process is killed; the others must end by themselves;
- `node`: all are killed at once;
- `preemption`: all are asked to save and stop;
- `storage`: the first process cannot write its checkpoint: its files may have 20 kB at most.

It must end with the weights of a training that was not interrupted, having logged every step once.
Then the coordinator of `holo bench compare` is killed at random moments and started again: its rows
must have the losses of a comparison that was not interrupted.

Rows go to `--out` as JSON Lines; exit code 1: something was lost, repeated or left hanging.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from holo_cli.config.resolve import resolve
from holo_cli.data.prepare.prepare import prepare
from holo_cli.errors import HoloError, Stopped
from holo_cli.parsing import parse_json
from holo_cli.training.run import resume, train

STEPS, SAVE_EVERY = 400, 10
FAULTS = ("rank", "rank", "node", "preemption", "storage")  # a killed rank twice as often
END_SECONDS = 120.0  # for the processes that are left after a fault; machines may be busy
STORAGE_BYTES = 20_000
TOLERANCE = 1e-4  # what is asked; a world-invariant run has no difference at all
LOG = Path("runs/r/metrics.jsonl")
LAST = Path("checkpoints/r_last.safetensors")
PLAN = """
rates = [1.0]
seeds = 2
evaluations = 2
[base.model]
layers = 1
heads = 2
width = 16
context = 16
[base.training]
steps = 3000
batch_size = 4
warmup = 2
[entry.vanilla]
model = "vanilla"
"""


def flags(data: Path) -> dict[str, Any]:
    return {
        "data.path": str(data), "model.layers": 1, "model.heads": 2, "model.width": 16,
        "model.context": 16, "model.dropout": 0.0, "training.batch_size": 1,
        "training.world_invariant": True,
        "training.steps": STEPS, "training.warmup": 2, "training.eval_every": 100,
        "training.save_every": SAVE_EVERY, "training.log_every": 1, "training.sample_tokens": 0,
        "training.device": "cpu", "training.dtype": "float32",
    }  # fmt: skip


def start(world: int, act: Callable[[int], None]) -> list[int]:
    """Fork `world` processes that meet at a port of their own; their ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = []
    for rank in range(world):
        child = os.fork()
        if child:
            found.append(child)
            continue
        code = 1
        try:
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
            }  # fmt: skip
            act(rank)
            code = 0
        except Stopped:
            code = 3
        except HoloError as error:
            print(f"    rank {rank}: {error}", file=sys.stderr)
        except BaseException:  # noqa: BLE001 - a fork must not run its parent's code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return found


def wait(pids: list[int], seconds: float) -> tuple[list[int], list[int]]:
    """Exit codes (negative: a signal) of those that ended in time, and the pids that did not."""
    end, left, codes = time.monotonic() + seconds, list(pids), []
    while left and time.monotonic() < end:
        for pid in list(left):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes.append(os.waitstatus_to_exitcode(status))
                left.remove(pid)
        time.sleep(0.01)
    return codes, left


def logged() -> list[int]:
    """The steps of the log, in order."""
    if not LOG.exists():
        return []
    lines = LOG.read_bytes().split(b"\n")[:-1]
    return [e["step"] for e in map(parse_json, lines) if e["event"] == "train"]


def train_attempt(data: Path, world: int, limited: bool) -> list[int]:
    fresh = not LAST.exists()

    def act(rank: int) -> None:
        if limited and rank == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (STORAGE_BYTES, resource.RLIM_INFINITY))
        if fresh:
            settings = flags(data) | {"training.grad_accum": 4 // world}
            resolved = resolve("vanilla", flags=settings, env={})
            train(resolved, run="r", events=lambda event: None, force=True)
        else:
            resume("r", events=lambda event: None)

    return start(world, act)


def training_campaign(
    data: Path, count: int, worlds: list[int], chance: random.Random
) -> list[dict[str, Any]]:
    """The rows of `count` interruptions, and of the training that they interrupted."""
    reference = Path("reference")
    reference.mkdir()
    with contextlib.chdir(reference):
        codes, hung = wait(train_attempt(data, worlds[0], limited=False), 600)
        assert set(codes) == {0}, codes
        assert not hung
        whole = load_file(LAST)
    rows: list[dict[str, Any]] = []
    while True:
        world = chance.choice(worlds)
        fault = chance.choice(FAULTS) if len(rows) < count else ""
        before = LAST.read_bytes() if LAST.exists() else b""
        done = max(logged(), default=0)
        at = min(done + chance.randint(3, max(4, 2 * (STEPS - done) // (count - len(rows) + 1))),
                 STEPS - 5) if fault else 0  # fmt: skip
        pids = train_attempt(data, world, limited=fault == "storage")
        if not fault:
            codes, hung = wait(pids, 600)
            break
        codes, left = [], pids
        while left and fault != "storage" and max(logged(), default=0) < at:
            more, left = wait(left, 0.02)
            codes += more
        began = time.monotonic()
        reached = max(logged(), default=0)
        struck = [chance.choice(left)] if fault == "rank" and left else left
        for pid in struck if fault != "storage" else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if fault == "preemption" else signal.SIGKILL)
        more, hung = wait(left, END_SECONDS)
        codes += more
        for pid in hung:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        kept = not before or (LAST.exists() and LAST.read_bytes() == before)
        rows.append(
            {
                "fault": fault, "processes": world, "step": reached, "codes": sorted(codes),
                "seconds": round(time.monotonic() - began, 2), "hung": len(hung),
                "damaged": fault == "storage" and not kept,
            }
        )  # fmt: skip
        print(f"  {rows[-1]}", flush=True)
    steps = Counter(logged())
    ended = load_file(LAST)
    names = [name for name in whole if name.startswith("model/")]
    difference = max(float((whole[name] - ended[name]).abs().max()) for name in names)
    rows.append(
        {
            "fault": "", "codes": codes, "hung": len(hung), "difference": difference,
            "lost": sum(step not in steps for step in range(1, STEPS + 1)),
            "repeated": sum(times - 1 for times in steps.values()),
        }
    )  # fmt: skip
    return rows


def compare_campaign(data: Path, count: int, chance: random.Random) -> list[dict[str, Any]]:
    """Kill the coordinator of a comparison `count` times; the last row compares its rows."""
    Path("plan.toml").write_text(PLAN, encoding="utf-8")

    def command(page: str) -> list[str]:
        return [
            sys.executable, "-m", "holo_cli", "bench", "compare", "--plan", "plan.toml", "--data",
            str(data), "--out", page, "--device", "cpu", "--dtype", "float32", "-q",
        ]  # fmt: skip

    def losses(page: str) -> dict[str, float]:
        lines = map(parse_json, Path(page).with_suffix(".jsonl").read_text("utf-8").splitlines())
        return {row["key"]: row["val_loss"] for row in lines if "key" in row}

    def log_bytes() -> int:
        logs = Path("killed.work").glob("*/runs/bench/metrics.jsonl")
        return sum(path.stat().st_size for path in logs)

    subprocess.run(command("whole.html"), check=True, stdout=subprocess.DEVNULL)
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        before = log_bytes()
        process = subprocess.Popen(command("killed.html"), stdout=subprocess.DEVNULL)
        while process.poll() is None and log_bytes() == before:  # until a run has made progress
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1.5))
        process.kill()
        process.wait()
        stored = len(losses("killed.html")) if Path("killed.jsonl").exists() else 0
        rows.append({"fault": "coordinator", "rows": stored})
        print(f"  {rows[-1]}", flush=True)
        # its workers notice that nobody reads their events: they save and end
        time.sleep(2.0)
    ended = subprocess.run(command("killed.html"), check=False, stdout=subprocess.DEVNULL)
    whole, found = losses("whole.html"), losses("killed.html")
    equal = whole == found
    rows.append(
        {
            "fault": "", "codes": [ended.returncode], "hung": 0, "lost": len(whole) - len(found),
            "repeated": 0, "difference": 0.0 if equal else 1.0,
        }
    )  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--training", type=int, default=16, help="interruptions of the training")
    parser.add_argument("--coordinator", type=int, default=4, help="kills of the coordinator")
    parser.add_argument(
        "--worlds",
        default="1,2,4",
        help="numbers of processes; that of the uninterrupted training first",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bench/preemptions.jsonl"))
    options = parser.parse_args()
    chance, worlds = random.Random(options.seed), [int(n) for n in options.worlds.split(",")]
    out = options.out.absolute()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="holo-preemptions-"))
    rows: list[dict[str, Any]] = []
    try:
        with contextlib.chdir(folder):
            text = "\n\n\n".join(f"The keeper lit lamp {n} and came home. " * 5 for n in range(60))
            Path("text.txt").write_text(text, encoding="utf-8")
            prepare(["text"], source="text.txt", out="set", tokenizer="char")
            data = Path("set").absolute()
            if options.training:
                rows += training_campaign(data, options.training, worlds, chance)
            if options.coordinator:
                rows += compare_campaign(data, options.coordinator, chance)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ends = [row for row in rows if not row["fault"]]
    wrong = sum(row.get("hung", 0) or row.get("damaged", False) for row in rows) + sum(
        bool(row["lost"] or row["repeated"] or row["difference"] > TOLERANCE or any(row["codes"]))
        for row in ends
    )
    kinds = Counter(row["fault"] for row in rows if row["fault"])
    print(f"{sum(kinds.values())} interruptions {dict(kinds)}; ends: {ends}; wrong: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
