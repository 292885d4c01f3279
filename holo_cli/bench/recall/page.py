"""The page of a recall bench: who recalls what, and with how much state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holo_cli.bench.recall.plan import TaskSpec
from holo_cli.bench.recall.run import Recall, Score, accuracy
from holo_cli.bench.recall.sizes import add_plots
from holo_cli.bench.report import Report

SOLVED, LOST = 0.9, 0.5  # accuracies from which a case counts as solved, and under which as lost


def write_page(recall: Recall, scores: list[Score], path: Path) -> int:
    """Write the page, whole or not at all; its size in bytes."""
    machines = [row["machine"] for row in recall.rows]
    plan = recall.plan
    report = Report(
        plan.title or "Recall",
        "Small models, each trained from scratch on tasks whose answers depend on earlier tokens, "
        "and tested on new rows: shares of right answers, at lengths that were trained on and at "
        "longer ones, beside the bytes of state that decoding keeps at that length.",
        dict(machines[-1]) if machines else {},
    )
    report.prose("\n".join(f"- {text}" for text in findings(recall, scores)), "What was found")
    for spec in plan.tasks:
        own = [s for s in scores if s.spec == spec]
        _task_section(report, recall, spec, own)
        add_plots(report, recall, spec, own)
    _runs(report, recall)
    report.prose(_method(recall), "How it was made")
    return report.write(path)


def findings(recall: Recall, scores: list[Score]) -> list[str]:
    """For each task: who solves its hardest trained case, who keeps it up at greater length."""
    found = []
    for spec in recall.plan.tasks:
        own = [s for s in scores if s.spec == spec]
        hardest = max(spec.train, key=lambda case: (case.items, case.length))
        here = [s for s in own if s.case == hardest and s.accuracy is not None]
        if not here:
            found.append(f"{spec.task.title}: not run.")
            continue
        solvers = [s for s in here if (s.accuracy or 0.0) >= SOLVED]
        good = [s.entry for s in solvers]
        rest = sorted((s for s in here if s.entry not in good), key=lambda s: -(s.accuracy or 0.0))
        others = ", ".join(f"{s.entry} ({accuracy(s.accuracy)})" for s in rest)
        parts = ["solved by " + ", ".join(map(_with_failures, solvers))] if good else []
        if rest:
            parts.append(f"not by {others}" if good else f"solved by none: {others}")
        if rest and min(s.accuracy or 0.0 for s in rest) < LOST:
            parts.append(f"guessing gives {100 * spec.task.chance:.2g} %")
        text = f"{spec.task.title}, {_case(hardest)}: {'; '.join(parts)}."
        if spec.test:
            longest = max(spec.test)
            kept = [
                s.entry for s in own
                if s.case == longest and s.entry in good and (s.accuracy or 0.0) >= SOLVED
            ]  # fmt: skip
            who = ", ".join(kept) or "none of them"
            text += f" At {_case(longest)}, never trained: still {who}." if good else ""
        found.append(text)
    return found


def _with_failures(score: Score) -> str:
    """The entry, and how many of its seeds failed and are not in its figure."""
    if not score.failed:
        return score.entry
    return f"{score.entry} ({score.failed} of {score.failed + len(score.accuracies)} seeds failed)"


def _case(case: Any) -> str:
    return f"{case.length} tokens with {case.items}"


def columns(spec: TaskSpec) -> list[str]:
    """Names of the cases: length/items, a star for lengths that were not trained on."""
    stars = {case: "" if case in spec.train else "*" for case in spec.cases}
    return [f"{case.length}/{case.items}{star}" for case, star in stars.items()]


def explained(spec: TaskSpec) -> str:
    """What the task asks, and how its table is read."""
    return (
        f"{spec.task.asks} Columns: tokens / things to remember; a star marks what was not trained "
        f"on. Guessing gives {100 * spec.task.chance:.2g} %."
    )


def _task_section(report: Report, recall: Recall, spec: TaskSpec, scores: list[Score]) -> None:
    first, last = spec.cases[0].length, spec.cases[-1].length
    entries = list(recall.entries)
    rows = []
    for entry in entries:
        own = [s for s in scores if s.entry == entry]
        cells = [None if s.accuracy is None else round(100 * s.accuracy, 1) for s in own]
        why = "; ".join(dict.fromkeys(s.why for s in own if s.why))
        states = [s.state_bytes for s in own]
        ends = states[:1] if first == last else [states[0], states[-1]]
        rows.append((entry, own[0].parameters, *cells, *ends, why))
    at_last = [] if first == last else [f"state at {last}, bytes"]
    report.table(
        spec.task.title,
        (
            "model", "parameters", *(f"{name} %" for name in columns(spec)),
            f"state at {first}, bytes", *at_last, "remarks",
        ),
        rows,
        explained(spec),
    )  # fmt: skip
    traces = []
    for entry in entries:
        own = [s for s in scores if s.entry == entry and s.accuracy is not None]
        if own:
            traces.append(
                {
                    "name": entry,
                    "x": [s.state_bytes for s in own],
                    "y": [100 * (s.accuracy or 0.0) for s in own],
                    "mode": "markers",
                    "text": [name for s in own for name in columns(spec)
                             if name.rstrip("*") == f"{s.case.length}/{s.case.items}"],
                }
            )  # fmt: skip
    if traces:
        report.plot(
            f"{spec.task.title}: accuracy against state",
            traces,
            {
                "xaxis": {"title": {"text": "state, bytes"}, "type": "log"},
                "yaxis": {"title": {"text": "right answers, %"}, "range": [-3, 103]},
            },
            "A mark for each case. A cache grows with the text, so its marks move to the right; a "
            "recurrent state has the same size at every length.",
        )


def _runs(report: Report, recall: Recall) -> None:
    rows = []
    for run in recall.runs:
        row = recall.row(run)
        if row is None:
            rows.append(
                (run.entry, run.spec.name, f"x{run.rate:g}", run.seed, "not run", *[None] * 5)
            )
            continue
        done = row["status"] == "done"
        rows.append((
            run.entry, run.spec.name, f"x{run.rate:g}", run.seed,
            row["stopped_by"] if done else row["error"],
            row["steps"] if done else None, row["losses"][-1][1] if done else None,
            row["train_seconds"] if done else None, row["code"], row["date"],
        ))  # fmt: skip
    report.table(
        "Every run",
        (
            "model", "task", "rate", "seed", "ended by", "steps", "last loss, nats", "training s",
            "code", "finished",
        ),
        rows,
    )  # fmt: skip


def _method(recall: Recall) -> str:
    plan = recall.plan
    first = recall.runs[0].resolved
    training = first.training
    ends = f"; it ends early once its loss stays under {plan.solved:g} nats" if plan.solved else ""
    rates = f"Rate: x{plan.rates[0]:g}."
    if len(plan.rates) > 1:
        tried = ", ".join(f"x{rate:g}" for rate in plan.rates)
        best = f"{'better' if len(plan.rates) == 2 else 'best'} of {len(plan.rates)} rates"
        rates = (
            f"Rates tried: {tried}; figures are of the {best}, chosen on the same test: by its "
            "accuracy in the trained cases, where a seed that failed counts as nothing right. So "
            "they flatter a little, most of all those of models that are sensitive to the rate."
        )
    steps = f"{training.steps} steps of {training.batch_size} rows made on the spot{ends}"
    formats = sorted({row["dtype"] for row in recall.rows if "dtype" in row})
    computed = f" Number format: {' and '.join(formats)}." if formats else ""
    return f"""Each run makes {steps}.{computed} \
Cases take turns from batch to batch. Only answers are scored, in training and in the test, which \
has {plan.sequences} rows for each case, from a stream of random numbers of their own. {rates} \
Seeds: {plan.seeds}; where there are several, figures are means of those that did not fail.

A model that does not solve a task here has not been shown to be unable to: it had this size and \
this much training. One seed more or less can decide whether a model finds the trick in time."""
