"""One job of a bench in a process of its own.

`python -m holo_cli.bench.experiment.worker` reads the job from stdin.

A process for each run keeps runs apart: peak memory is the run's own, a model that crashes or runs
out of memory takes nothing else with it, and several can go side by side. Events and the result
leave as JSON lines on stdout. Everything a run writes lies in its working folder; when the folder
holds a stopped run, that run goes on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from holo_cli.bench.experiment.code_fingerprint import code_of, shared_code
from holo_cli.bench.experiment.worker_pool import DONE, Event, emit
from holo_cli.config.resolve import Resolved
from holo_cli.errors import HoloError, Stopped
from holo_cli.files import atomic_write_text

RUN = "bench"
LOG = Path("runs") / RUN / "metrics.jsonl"
RESULT = Path("result.json")
CODE = Path("code.txt")  # of the run that lies here
OF_THE_PROCESS = ("peak_rss_bytes", "cpu_seconds")
MOST_POINTS = 200  # of the training curve that a row keeps


def train(job: dict[str, Any]) -> Event:
    """Train a config to its end, from the beginning or from where it was stopped."""
    import torch

    from holo_cli.checkpoint import load_model, load_training
    from holo_cli.checkpoint.find import ROOT, run_path
    from holo_cli.data.dataset import PreparedData
    from holo_cli.training import run
    from holo_cli.training.evaluate import evaluate_halves
    from holo_cli.training.precision import pick_device, pick_dtype

    resolved = Resolved.from_dict(job["resolved"])
    code = job.get("code") or code_of(resolved.model_name)
    last = run_path(ROOT, RUN, "last")
    unfinished = last.exists() and load_training(last)[0].step < resolved.training.steps
    resumed = unfinished and _same_code(code)
    atomic_write_text(CODE, code)
    if resumed:
        done = run.resume(RUN, events=emit)
    else:
        done = run.train(resolved, run=RUN, events=emit, force=True)
    model, _, _ = load_model(last)
    device = pick_device(resolved.training.device)
    dtype = pick_dtype(resolved.training.dtype, device)
    data = PreparedData.open(resolved.data.path, verify=False)
    tune, test = evaluate_halves(model.to(device), data, dtype)
    curve, train_curve = _curves(LOG)
    keep = (
        "val_loss", "best_val_loss", "bpb", "steps", "tokens", "train_seconds", "eval_seconds",
        "tokens_per_second", "peak_rss_bytes", "parameters", "stopped_by",
    )  # fmt: skip
    return {key: done[key] for key in keep} | {
        "tune_loss": tune.loss,
        "test_loss": test.loss,
        "test_bpb": test.bpb,
        "test_tokens": test.tokens,
        "curve": curve,
        "train_curve": train_curve,
        "threads": torch.get_num_threads(),
        "resumed": resumed,
        # the time of all threads; of a run that was stopped only the last part is known
        "cpu_seconds": None if resumed else round(time.process_time(), 2),
        # what "auto" came to here
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
    }


def _same_code(code: str) -> bool:
    """Whether what lies here was made by this code: a run of two codes is a run of neither."""
    return CODE.exists() and CODE.read_text(encoding="utf-8") == code


def _curves(log: Path) -> tuple[list[Event], list[list[float]]]:
    """Evaluations as rows, and training losses as [tokens, loss, seconds], thinned evenly."""
    events = [json.loads(line) for line in log.read_bytes().split(b"\n") if line.strip()]
    keep = ("step", "tokens", "val_loss", "bpb", "train_seconds")
    curve = [{key: e[key] for key in keep} for e in events if e["event"] == "eval"]
    losses = [[e["tokens"], e["loss"], e["seconds"]] for e in events if e["event"] == "train"]
    stride = -(-len(losses) // MOST_POINTS) or 1
    return curve, losses[::-1][::stride][::-1]


def pace(job: dict[str, Any]) -> Event:
    """How many steps this config makes in the asked seconds, here and now."""
    from holo_cli.training.calibrate import steps_within

    return {"steps": steps_within(Resolved.from_dict(job["resolved"]), job["seconds"])}


def cost(job: dict[str, Any]) -> Event:
    """Seconds of a step and of an evaluation of this config, here and now."""
    import torch

    from holo_cli.training.calibrate import seconds_of

    started = time.perf_counter()
    step, evaluation = seconds_of(Resolved.from_dict(job["resolved"]))
    return {
        "step_seconds": step,
        "evaluation_seconds": evaluation,
        "measuring_seconds": time.perf_counter() - started,
        "threads": torch.get_num_threads(),
    }


def recall(job: dict[str, Any]) -> Event:
    """Train on a synthetic task and count right answers."""
    from holo_cli.bench.recall.train import run

    return run(job, emit)


def series(job: dict[str, Any]) -> Event:
    """Several short runs one after the other in this process, each in the folder of its own key,
    beside this job's. Their results leave as "part" events."""
    home = Path.cwd()
    for part in job["parts"]:
        folder = home.parent / part["key"]
        folder.mkdir(exist_ok=True)
        os.chdir(folder)
        emit({"event": "begin", "key": part["key"]})
        end = attempt(part)
        # of the process, not of the run
        end |= {name: None for name in OF_THE_PROCESS if name in end}
        emit({"event": "part", "key": part["key"], "end": end})
        os.chdir(home)
    return {"parts": len(job["parts"])}


TASKS = {"train": train, "pace": pace, "cost": cost, "recall": recall, "series": series}


def attempt(job: dict[str, Any]) -> Event:
    """Do a job and return its last event, "result" or "failed". Raises Stopped on request."""
    model = job["resolved"]["model"]
    made_by = {"code": code_of(model, job["task"]), "shared_code": shared_code()}
    job["code"] = made_by["code"]
    if RESULT.exists():  # ended just before its row was written
        kept = json.loads(RESULT.read_text(encoding="utf-8"))
        if kept.get("code") == job["code"]:
            return {"event": DONE} | kept
    try:
        result = TASKS[job["task"]](job) | made_by
    except Stopped:
        raise
    except HoloError as error:
        told = {"kind": type(error).__name__, "error": str(error)}
        return {"event": "failed"} | told | made_by
    atomic_write_text(RESULT, json.dumps(result))
    return {"event": DONE} | result


def main() -> int:
    try:
        end = attempt(json.load(sys.stdin))
    except Stopped:
        return Stopped.exit_code
    emit(end)
    return 0 if end["event"] == DONE else 1


if __name__ == "__main__":
    sys.exit(main())
