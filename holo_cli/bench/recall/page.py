"""The page of `holo bench recall`: what each entry recalls, and with how much state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holo_cli.bench.recall.run import NOT_RUN, Recall, RecallScore, percent
from holo_cli.tasks import TaskCase
from holo_cli.tasks.spec import TaskSpec
from holo_cli.visualize.report import Report, moment
from holo_cli.wording import counted

SOLVED = 0.9  # accuracy from which a case counts as solved
LOST = 0.5  # accuracy below which the findings also give that of guessing


def write_page(recall: Recall, scores: list[RecallScore], path: Path) -> int:
    """Write the page; returns its size in bytes."""
    machines = [row["machine"] for row in recall.rows]
    plan = recall.plan
    report = Report(
        plan.title or "Recall",
        "Small models are trained from scratch on tasks whose answers depend on earlier tokens, "
        "and tested on new rows. The tables show the share of correct answers, at lengths that "
        "were trained on and at longer ones, and the bytes of state that decoding keeps at that "
        f"length. A case counts as solved with {SOLVED:.0%} correct answers or more.",
        dict(machines[-1]) if machines else {},
    )
    report.prose("\n".join(f"- {text}" for text in findings(recall, scores)), "Findings")
    for spec in plan.tasks:
        own = [s for s in scores if s.spec == spec]
        if _was_run(own):
            _task_section(report, recall, spec, own)
            add_plots(report, recall, spec, own)
    _runs(report, recall)
    report.prose(_method(recall), "Method")
    return report.write(path)


def findings(recall: Recall, scores: list[RecallScore]) -> list[str]:
    """For each task: which entries solve its hardest trained case, and which still solve it in its
    longest case that was not trained on. At the end, the tasks that no entry was run in."""
    said, missing = [], []
    for spec in recall.plan.tasks:
        own = [s for s in scores if s.spec == spec]
        if _was_run(own):
            said.append(_finding(spec, own))
        else:
            missing.append(f"{spec.task.title}: not run.")
    return said + missing


def _was_run(scores: list[RecallScore]) -> bool:
    return any(s.accuracy is not None or s.why != NOT_RUN for s in scores)


def _finding(spec: TaskSpec, scores: list[RecallScore]) -> str:
    title, (hardest, *longest) = spec.task.title, cases_shown(spec)
    found = sorted(
        (s for s in scores if s.case == hardest and s.accuracy is not None),
        key=lambda s: -(s.accuracy or 0.0),
    )
    if not found:
        return f"{title}: no run has ended well."
    solved = [s for s in scores if s in found and (s.accuracy or 0.0) >= SOLVED]
    others = [s for s in found if s not in solved]
    where = f"{title}, {counted(hardest.length, 'token')} and {counted(hardest.items, 'item')}"
    if solved:
        sentences = [f"{where}: solved by {', '.join(map(_with_failures, solved))}."]
    else:
        sentences = [f"{where}: solved by no entry."]
    if others:
        names = ", ".join(f"{s.entry} ({percent(s.accuracy)})" for s in others)
        sentences.append(f"Not solved by {names}.")
        if (others[-1].accuracy or 0.0) < LOST:
            sentences.append(f"Guessing gives {100 * spec.task.chance:.2g} %.")
    for case in longest if solved else []:
        still = {s.entry for s in scores if s.case == case and (s.accuracy or 0.0) >= SOLVED}
        kept = [s.entry for s in solved if s.entry in still]
        names = ", ".join(kept) or "none of these"
        sentences.append(
            f"Still solved at {counted(case.length, 'token')} and {counted(case.items, 'item')}, "
            "which were not trained "
            f"on: {names}."
        )
    return " ".join(sentences)


def _with_failures(score: RecallScore) -> str:
    """The entry, with the number of failed seeds, which are not in its accuracy."""
    if not score.failed:
        return score.entry
    return f"{score.entry} ({score.failed} of {score.failed + len(score.accuracies)} seeds failed)"


def columns(spec: TaskSpec) -> list[str]:
    """Names of the cases: length/items, with a star for cases that were not trained on."""
    stars = {case: "" if case in spec.train else "*" for case in spec.cases}
    return [f"{case.length}/{case.items}{star}" for case, star in stars.items()]


def explained(spec: TaskSpec) -> str:
    """What the task asks, and how to read its table."""
    return (
        f"{spec.task.asks} Columns: tokens/items; a star marks cases that were not trained on. "
        f"Guessing gives {100 * spec.task.chance:.2g} %."
    )


def _task_section(
    report: Report, recall: Recall, spec: TaskSpec, scores: list[RecallScore]
) -> None:
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
                "yaxis": {"title": {"text": "correct answers, %"}, "range": [-3, 103]},
            },
            "One mark for each case. A cache grows with the text, so its marks move to the right; "
            "a recurrent state has the same size at every length.",
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
            row["train_seconds"] if done else None, row["code"], moment(row["date"]),
        ))  # fmt: skip
    report.table(
        "Every run",
        (
            "model", "task", "rate", "seed", "ended by", "steps", "last loss, nats", "training s",
            "code", "finished, UTC",
        ),
        rows,
    )  # fmt: skip


def _method(recall: Recall) -> str:
    plan = recall.plan
    first = recall.runs[0].resolved
    training = first.training
    told = [
        f"Each run makes {counted(training.steps, 'step')} of "
        f"{counted(training.batch_size, 'newly generated row')}."
    ]
    if plan.solved:
        told.append(f"A run ends early once its loss stays under {plan.solved:g} nats.")
    formats = sorted({row["dtype"] for row in recall.rows if "dtype" in row})
    if formats:
        told.append(f"Number format: {' and '.join(formats)}.")
    told += [
        "The cases of a task alternate from batch to batch.",
        "Only answers are scored, in training and in the test, which has "
        f"{plan.sequences} rows for each case, from a random stream of its own.",
    ]
    if len(plan.rates) == 1:
        told.append(f"Rate: x{plan.rates[0]:g}.")
    else:
        tried = ", ".join(f"x{rate:g}" for rate in plan.rates)
        best = (
            f"{'better' if len(plan.rates) == 2 else 'best'} of {counted(len(plan.rates), 'rate')}"
        )
        told += [
            f"Rates tried: {tried}; figures are of the {best}, chosen on the same test rows by the "
            "accuracy in the trained cases, where a failed seed counts as no correct answer.",
            "So they are a little too good, most of all for models that are sensitive to the rate.",
        ]
    told.append(
        f"Seeds: {plan.seeds}; with several seeds, figures are means of those that did not fail."
    )
    caution = (
        "A model that does not solve a task here is not shown to be unable to solve it: it had "
        "this size and this much training, and the seed can decide whether it finds the solution "
        "in time."
    )
    return " ".join(told) + "\n\n" + caution


# -- plans with widths: accuracy against bytes of state -------------------------------------------


class Size(NamedTuple):
    """An entry at one width, in one case."""

    width: int
    state_bytes: int | None  # None: not run
    accuracy: float | None


def cases_shown(spec: TaskSpec) -> list[TaskCase]:
    """The hardest trained case, and the longest case that was not trained on, if there is one."""
    hardest = max(spec.train, key=lambda case: (case.items, case.length))
    return [hardest, max(spec.test)] if spec.test else [hardest]


def by_size(recall: Recall, scores: Sequence[RecallScore], case: TaskCase) -> dict[str, list[Size]]:
    """Each entry of the plan with its widths in ascending order. Empty for a plan without
    widths."""
    found: dict[str, list[Size]] = {}
    for score in scores:
        family, width = recall.families[score.entry]
        if score.case == case and width is not None:
            found.setdefault(family, []).append(Size(width, score.state_bytes, score.accuracy))
    return {family: sorted(sizes) for family, sizes in found.items()}


def add_plots(
    report: Report, recall: Recall, spec: TaskSpec, scores: Sequence[RecallScore]
) -> None:
    """A figure for each case of `cases_shown`, with one mark for each width."""
    for case in cases_shown(spec):
        traces: list[dict[str, Any]] = []
        for family, sizes in by_size(recall, scores, case).items():
            run = [s for s in sizes if s.accuracy is not None]
            if run:
                traces.append(
                    {
                        "name": family,
                        "x": [s.state_bytes for s in run],
                        "y": [100 * (s.accuracy or 0.0) for s in run],
                        "mode": "lines+markers",
                        "text": [f"width {s.width}" for s in run],
                    }
                )
        if traces:
            title = (
                f"{spec.task.title}, {counted(case.length, 'token')} and "
                f"{counted(case.items, 'item')}"
            )
            report.plot(
                f"{title}: accuracy by state size",
                traces,
                {
                    "xaxis": {"title": {"text": "state, bytes"}, "type": "log"},
                    "yaxis": {"title": {"text": "correct answers, %"}, "range": [-3, 103]},
                },
                "One line for each model, one mark for each width. Further left and higher is "
                "better: more recalled with less state.",
            )


def size_table(
    recall: Recall, scores: Sequence[RecallScore], case: TaskCase, size: Any
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows as text: a row for each entry, a column for each width."""
    lines = by_size(recall, scores, case)
    widths = sorted({s.width for sizes in lines.values() for s in sizes})
    rows = []
    for family, sizes in lines.items():
        cells = {
            s.width: "–" if s.state_bytes is None else f"{percent(s.accuracy)} at "
            f"{size(s.state_bytes)}" for s in sizes
        }  # fmt: skip
        rows.append([family, *(cells.get(width, "–") for width in widths)])
    return ["model", *(f"width {width}" for width in widths)], rows
