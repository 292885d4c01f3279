"""`holo bench compare`: models trained on the same tokens in the same order, each at its best rate.

Everything but the mechanism is equal: prepared set and tokenizer, batches and their order (by
seed), steps, context, the whole schedule and, as chosen, parameters, active parameters or time.
Reported is the loss after the last step, not the best on the way, on the half of the validation
part that no learning rate was chosen by. Rows are appended to a JSONL file as runs finish; a second
call with the same page resumes where the first one stopped, in the middle of a run too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holo_cli.errors import DataError, UsageError
from holo_cli.experiment.entries import form_at_any_size, resolve_entry, stored_settings
from holo_cli.experiment.experiment import Experiment
from holo_cli.experiment.plan import Plan
from holo_cli.experiment.result_log import ResultLog, beside, rows_path
from holo_cli.experiment.runner import Notify, OnEvent, RunOptions, execute
from holo_cli.experiment.stored_text import open_text
from holo_cli.experiment.time_estimate import TimeEstimate
from holo_cli.experiment.worker_pool import LOCAL_LAUNCHER
from holo_cli.training.stopping import StopRequest

KIND = "compare"


def open_experiment(plan: Plan, options: RunOptions) -> Experiment:
    """The experiment with its rows. Raises UsageError and DataError for what cannot be compared."""
    rows = ResultLog(rows_path(options.page), KIND)
    data = open_text(plan.data, rows, report_only=options.report_only)
    experiment = Experiment(plan, data, rows)
    experiment.forget(failed=options.retry_failed, entries=options.redo)
    return experiment


def run(
    experiment: Experiment,
    options: RunOptions,
    *,
    notify: Notify,
    on_event: OnEvent | None = None,
    stop: StopRequest | None = None,
    estimate: bool = False,
) -> None:
    """Do every run that has no row yet. Raises Stopped after a request to stop, all saved.

    With `estimate` it first reports how long that will take, which may need a short measurement.
    """
    stop = StopRequest() if stop is None else stop
    expected = TimeEstimate(experiment, options.jobs)
    if estimate and experiment.todo():
        folder = beside(options.page, ".work")
        here = options.launcher == LOCAL_LAUNCHER  # else a speed here would say nothing
        expected.announce((lambda: expected.measure(folder, stop)) if here else None, notify)
    execute(
        experiment,
        options,
        notify=notify,
        on_event=on_event,
        stop=stop,
        time_left=expected.label,
    )


def best_rates(page: Path) -> dict[str, float]:
    """The rate of each entry's reported runs in an earlier comparison, by the names that they had
    then; `rates_for` finds them by their settings. Raises as that does."""
    newest: dict[str, tuple[str, float]] = {}
    for row in _reported(page):
        this = (row["date"], row["rate"])
        newest[row["entry"]] = max(newest.get(row["entry"], this), this)
    return {entry: rate for entry, (_, rate) in newest.items()}


def rates_for(plan: Plan, page: Path) -> dict[str, float]:
    """The rate of each entry of a plan in an earlier comparison, at another size perhaps.

    Entries are found by their settings, since a name may have stood for an older default then;
    sizes, and what the plan sets for all entries, may differ. Entries without a rate are left out.
    Raises UsageError and DataError for a page without rates.
    """
    found: dict[str, float] = {}
    rows = [(row["date"], row["rate"], stored_settings(row)) for row in _reported(page)]
    for entry in plan.entries:
        form = form_at_any_size(resolve_entry(plan, entry, Path()), plan, entry)
        same = [
            (date, rate)
            for date, rate, stored in rows
            if stored is not None and form_at_any_size(stored, plan, entry) == form
        ]
        if same:
            found[entry.name] = max(same)[1]
    return found


def _reported(page: Path) -> list[dict[str, Any]]:
    """The rows of reported runs beside a page; a reported run means that its sweep was finished."""
    path = rows_path(page)
    if not path.exists():
        raise UsageError(
            f"There are no rows of a comparison at {path}.",
            next_step="Name the page that an earlier `holo bench compare` wrote with --rates-from.",
        )
    try:
        rows = ResultLog(path, KIND)
    except DataError as error:
        next_step = "Name the page of a `holo bench compare` with --rates-from."
        raise DataError(error.message, next_step=next_step) from error
    reported = [row for row in rows if row["role"] == "final" and row["status"] == "done"]
    if any("tune" in row for row in reported):
        raise UsageError(
            f"The rates in {path} belong to the settings that were tuned with them.",
            next_step="Name the page of a comparison without --tune, or tune here too.",
        )
    return reported
