"""`holo bench compare`: models trained on the same tokens in the same order, each at its best rate.

Everything but the mechanism is held equal: prepared set and tokenizer, batches and their order (by
seed), steps, context, schedule to its end, and, as asked, parameters, active parameters or time.
What is reported is the loss over the whole validation part after the last step, not the best on
the way. Rows go to a JSONL file as runs finish; a second call with the same page goes on where the
first one stopped, in the middle of a run too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holo_cli.bench.code import code_of
from holo_cli.bench.compare_campaign import Campaign, Run
from holo_cli.bench.compare_plan import Plan
from holo_cli.bench.losses import test_bpb, test_loss, tune_loss
from holo_cli.bench.machine import describe_machine
from holo_cli.bench.rows import Row, Rows, beside, rows_path
from holo_cli.bench.time_estimate import TimeEstimate
from holo_cli.bench.work import DONE, Job, Told, carry_out
from holo_cli.data.dataset import PreparedData
from holo_cli.errors import DataError, Stopped, UsageError
from holo_cli.training.stopping import StopRequest

KIND = "compare"
Say = Callable[[str], None]
Watch = Callable[[str, dict[str, Any]], None]  # the name of a run, and what it said


@dataclass(frozen=True)
class Options:
    """How a campaign is run, as against what it is."""

    page: Path
    jobs: int = 1
    retry_failed: bool = False
    redo: tuple[str, ...] = ()
    train: bool = True  # False: only report what the rows say


def open_campaign(plan: Plan, options: Options) -> Campaign:
    """The campaign with its rows. Raises UsageError and DataError for what cannot be compared."""
    data = PreparedData.open(plan.data)
    rows = Rows(rows_path(options.page), KIND)
    campaign = Campaign(plan, data, rows)
    campaign.forget(failed=options.retry_failed, entries=options.redo)
    return campaign


def run(
    campaign: Campaign,
    options: Options,
    *,
    say: Say,
    watch: Watch | None = None,
    stop: StopRequest | None = None,
    estimate: bool = False,
) -> None:
    """Do every run that has no row yet. Raises Stopped after a request to stop, all saved.

    With `estimate` it first says how long that will take, which may need a short measurement.
    """
    stop = StopRequest() if stop is None else stop
    for key in campaign.forgotten:  # on record, so that a stop in between loses nothing
        campaign.rows.tombstone(key)
    if not campaign.todo():
        return
    expected = TimeEstimate(campaign, options.jobs)
    if estimate:
        folder = beside(options.page, ".work")
        expected.announce(lambda: expected.measure(folder, stop), say)
    machine = describe_machine()
    began: dict[str, float] = {}
    here: dict[str, Run] = {}

    def todo() -> Iterator[Job]:
        for run in campaign.todo():
            here[run.key] = run
            began.setdefault(run.key, time.monotonic())
            yield _job(campaign, run)

    def heard(told: Told) -> None:
        run = here[told.job.key]
        if watch is not None:
            watch(run.words(), told.event)
        if told.event["event"] in (DONE, "failed"):
            row = _row(campaign, run, told, machine)
            if not row.get("resumed"):
                row["wall_seconds"] = round(time.monotonic() - began[run.key], 2)
            campaign.add(row)
            say(f"{_outcome(row, run)}  ({_left(campaign, expected)})")

    with stop.on_signals():
        done = carry_out(
            todo, heard, beside(options.page, ".work"), options.jobs, lambda: bool(stop)
        )
    if not done:
        raise Stopped(
            f"Stopped with about {campaign.left()} runs to do; what was done is in "
            f"{campaign.rows.path}.",
            next_step="The same command goes on from there"
            + (", without --redo." if options.redo else "."),
        )


def _left(campaign: Campaign, expected: TimeEstimate) -> str:
    """How many runs are left, and about how long they take."""
    runs = campaign.left()
    return f"{runs} run{'' if runs == 1 else 's'} left{expected.words()}"


def _job(campaign: Campaign, run: Run) -> Job:
    # decided once, here: a process that decided for itself might find another format
    asked = run.resolved.training.dtype
    dtype = campaign.dtype if asked == "auto" else asked
    resolved = run.resolved.replace({"training.dtype": dtype}, source="the experiment").to_dict()
    if run.role == "pace":
        settings = {"resolved": resolved, "seconds": campaign.plan.seconds}
        return Job(run.key, "pace", settings)
    return Job(run.key, "train", {"resolved": resolved})


def _row(campaign: Campaign, run: Run, told: Told, machine: dict[str, Any]) -> Row:
    """Everything that is known of a finished run, with all its settings."""
    event = {key: value for key, value in told.event.items() if key != "event"}
    described = campaign.size(run.resolved)
    data = campaign.data
    row: Row = {
        "key": run.key,
        "status": "done" if told.event["event"] == DONE else "failed",
        "entry": run.entry,
        "model": run.resolved.model_name,
        "role": run.role,
        "rate": run.rate,
        "seed": run.seed,
    }
    costs = {
        "parameters": described.parameters,
        "active_parameters": described.active_parameters,
        "state_bytes": described.state_bytes,
        "train_flops_per_token": described.train_flops_per_token,
    }
    config = run.resolved.to_dict()["config"]
    config["data"].pop("path")  # of this machine; which text it was, its fingerprint says
    about = {
        "config": config,
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "tokenizer": data.tokenizer.fingerprint,
            "vocab_size": campaign.vocab,
            "val_tokens": data.token_count("val"),
            "val_bytes": data.byte_count("val"),
        },
        "machine": machine | {"threads": event.pop("threads", machine["threads"])},
        # a worker that died at once did not say which code it was
        "code": event.pop("code", None) or code_of(run.resolved.model_name),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    tried = {} if run.trial is None else {"tune": run.trial.to_dict()}
    return row | tried | costs | event | about


def _outcome(row: Row, run: Run) -> str:
    if row["status"] != "done":
        return f"{run.words()}: failed: {row['error']}"
    if run.role == "pace":
        return f"{run.words()}: {row['steps']} steps in the time given"
    if run.role == "tune":
        return (
            f"{run.words()}: {tune_loss(row):.4f} nats per token on the tune half, "
            f"{row['train_seconds']:.0f} s"
        )
    return (
        f"{run.words()}: {test_loss(row):.4f} nats per token, {test_bpb(row):.4f} bits per byte, "
        f"{row['train_seconds']:.0f} s"
    )


def best_rates(page: Path) -> dict[str, float]:
    """Of an earlier campaign: the rate of each entry's reported runs, for a plan that takes the
    rates as found at another size.

    Those runs stand for a sweep that was finished; where a file holds several campaigns, the
    newest run of an entry says. An entry whose sweep is under way has no rate yet.
    """
    found: dict[str, tuple[str, float]] = {}
    path = rows_path(page)
    if not path.exists():
        raise UsageError(
            f"There are no rows of a comparison at {path}.",
            next_step="Name the page that an earlier `holo bench compare` wrote with --rates-from.",
        )
    try:
        rows = Rows(path, KIND)
    except DataError as error:
        next_step = "Name the page of a `holo bench compare` with --rates-from."
        raise DataError(error.message, next_step=next_step) from error
    for row in rows:
        if row["role"] == "final" and row["status"] == "done":
            if "tune" in row:
                raise UsageError(
                    f"The rates in {path} belong to the settings that were tuned with them.",
                    next_step="Name the page of a comparison without --tune, or tune here too.",
                )
            this = (row["date"], row["rate"])
            found[row["entry"]] = max(found.get(row["entry"], this), this)
    return {entry: rate for entry, (_, rate) in found.items()}
