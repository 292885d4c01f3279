"""One job of a bench in a process of its own: `python -m holo_cli.experiment.worker`.

The first line of stdin is the job; events and the result are JSON lines on stdout. A process for
each run keeps runs apart: peak memory is the run's own, a model that crashes or runs out of memory
ends no other run, and several can run side by side. A run writes only to its working folder; where
the folder holds a stopped run, that run resumes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from holo_cli.config.resolve import Resolved
from holo_cli.errors import HoloError, Stopped
from holo_cli.experiment.code_fingerprint import code_fingerprint, shared_fingerprint
from holo_cli.experiment.worker_pool import DONE, FAILED, Event
from holo_cli.files import atomic_write_text
from holo_cli.imports import no_collections, quick_exit
from holo_cli.parsing import ParseError, parse_object, read_bytes, read_object
from holo_cli.paths import CHECKPOINTS, RUNS
from holo_cli.streams import LastingStream, reader_gone

RUN = "bench"
LOG = RUNS / RUN / "metrics.jsonl"
RESULT = Path("result.json")
CODE = Path("code.txt")  # fingerprint of the code that made the run in this folder
PER_PROCESS = ("peak_rss_bytes", "cpu_seconds")  # not known of one run of several in a process
MAX_POINTS = 200  # of the training curve that a row keeps

_stream: LastingStream | TextIO | None = None  # where events go; None: stdout


def emit(event: Event) -> None:
    """Send an event to the parent process. Once that is gone, ask this one to save and stop."""
    text = json.dumps(event, ensure_ascii=True, allow_nan=True)
    stream = _stream or sys.stdout
    if reader_gone(stream):
        return
    print(text, file=stream, flush=True)
    if reader_gone(stream):
        signal.raise_signal(signal.SIGTERM)


def train(job: dict[str, Any]) -> Event:
    """Train a config to its end, from the beginning or from where it was stopped."""
    import torch

    from holo_cli.checkpoint import load_model, load_training
    from holo_cli.checkpoint.find import run_path
    from holo_cli.data.dataset import PreparedData
    from holo_cli.training import run
    from holo_cli.training.evaluate import evaluate_halves
    from holo_cli.training.precision import pick_device, pick_dtype

    resolved = Resolved.from_dict(job["resolved"])
    code = job.get("code") or code_fingerprint(resolved.model_name)
    last = run_path(CHECKPOINTS, RUN, "last")
    unfinished = last.exists() and load_training(last)[0].step < resolved.training.steps
    # a run resumed with other code would be a run of neither
    resumed = unfinished and CODE.exists() and CODE.read_text(encoding="utf-8") == code
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
        # of all threads; only the last part of a run that was stopped is known
        "cpu_seconds": None if resumed else round(time.process_time(), 2),
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
    }


def _curves(log: Path) -> tuple[list[Event], list[list[float]]]:
    """Evaluations as rows, and training losses as [tokens, loss, seconds], thinned evenly."""
    lines = read_bytes(log).split(b"\n")
    events = [parse_object(line, nan=True) for line in lines if line.strip()]
    keep = ("step", "tokens", "val_loss", "bpb", "train_seconds")
    curve = [{key: e[key] for key in keep} for e in events if e["event"] == "eval"]
    losses = [[e["tokens"], e["loss"], e["seconds"]] for e in events if e["event"] == "train"]
    stride = -(-len(losses) // MAX_POINTS) or 1
    return curve, losses[::-1][::stride][::-1]


def throughput(job: dict[str, Any]) -> Event:
    """How many steps this config makes in the given seconds on this machine."""
    from holo_cli.training.calibrate import steps_within

    return {"steps": steps_within(Resolved.from_dict(job["resolved"]), job["seconds"])}


def cost(job: dict[str, Any]) -> Event:
    """Seconds of a step and of an evaluation of this config on this machine."""
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
    """Train on a synthetic task and count correct answers."""
    from holo_cli.tasks.train import train_on_task

    return train_on_task(job, emit)


def series(job: dict[str, Any]) -> Event:
    """Several short runs one after the other, each in a folder named after its key, beside this
    job's own folder. Their results are "part" events."""
    home = Path.cwd()
    for part in job["parts"]:
        folder = home.parent / part["key"]
        folder.mkdir(exist_ok=True)
        os.chdir(folder)
        emit({"event": "begin", "key": part["key"]})
        end = run_job(part)
        end |= {name: None for name in PER_PROCESS if name in end}
        emit({"event": "part", "key": part["key"], "end": end})
        os.chdir(home)
    return {"parts": len(job["parts"])}


TASKS = {
    "train": train, "throughput": throughput, "cost": cost, "recall": recall, "series": series,
}  # fmt: skip


def run_job(job: dict[str, Any]) -> Event:
    """Run a job and return its last event, "result" or "failed". Raises Stopped on request."""
    model = job["resolved"]["model"]
    code = {"code": code_fingerprint(model, job["task"]), "shared_code": shared_fingerprint()}
    job["code"] = code["code"]
    if RESULT.exists():  # it finished just before its row was written
        try:
            stored = read_object(RESULT, nan=True)
        except ParseError:  # damaged: the job runs again
            stored = {}
        if stored.get("code") == job["code"]:
            return {"event": DONE} | stored
    try:
        result = TASKS[job["task"]](job) | code
    except Stopped:
        raise
    except HoloError as error:
        return {"event": FAILED, "kind": type(error).__name__, "error": str(error)} | code
    atomic_write_text(RESULT, json.dumps(result))
    return {"event": DONE} | result


def main() -> int:
    quick_exit()
    with no_collections():  # every job needs it
        import torch  # noqa: F401
    try:
        last = run_job(parse_object(sys.stdin.readline()))
    except Stopped:
        return Stopped.exit_code
    emit(last)
    return 0 if last["event"] == DONE else 1


def keep_stdout() -> None:
    """Stdout is for events only: what a library prints goes to stderr."""
    global _stream
    _stream = LastingStream(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)


if __name__ == "__main__":
    keep_stdout()
    sys.exit(main())
