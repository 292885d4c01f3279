"""The table and the page of `holo bench brain`: what was stated, what was measured, a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holo_cli.bench.brain.run import V1, V2, BrainBench
from holo_cli.bench.brain.summary import AimLine
from holo_cli.visualize.report import Report
from holo_cli.wording import counted

COLUMNS = ("brain-v2 over brain-v1", "stated aim", "measured", "verdict")
ON_PAGE = (0, 3, 2, 1)  # the order there: a phone shows the first columns


def cells(found: Sequence[AimLine]) -> list[tuple[str, str, str, str]]:
    """The rows of the table as text."""
    return [(line.what, line.aim or "–", line.measured, line.verdict) for line in found]


def findings(bench: BrainBench, found: Sequence[AimLine]) -> list[str]:
    """How many of the stated aims are met, and what makes the figures less sure."""
    aims = [line for line in found if line.aim]
    met, unknown = ([x.what for x in aims if x.verdict == v] for v in ("met", "not measured"))
    if len(unknown) == len(aims):
        sentences = [f"None of the {len(aims)} stated aims is measured yet."]
    else:
        sentences = [
            f"Stated aims that are met: {', '.join(met)} ({len(met)} of {len(aims)})."
            if met
            else f"None of the {len(aims)} stated aims is met."
        ]
        if unknown:
            sentences.append(f"Not measured yet: {', '.join(unknown)}.")
        if open_ones := [x.what for x in aims if x.verdict == "undecided"]:
            sentences.append(f"Undecided by these measurements: {', '.join(open_ones)}.")
    if bench.experiment.plan.seeds < 3:
        seeds = counted(bench.experiment.plan.seeds, "seed")
        sentences.append(f"The loss is from {seeds}: too few for a verdict that holds.")
    row = bench.reported_speed()
    if row is not None and row["busy"]:
        sentences.append(row["busy"])
    if row is not None and bench.speed_row() is None:
        sentences.append(f"Speed was measured on {row['date'][:10]} with other code than today's.")
    for line in bench.summary().lines:
        if not line.losses and line.note:
            sentences.append(f"{line.entry}: {line.status}. {line.note}")
    left = sum(bench.left().values())
    if left:
        sentences.append(f"{counted(left, 'run')} still to do: the same command resumes.")
    return sentences


def write_page(bench: BrainBench, found: Sequence[AimLine]) -> int:
    """Write the page and those of the parts; returns the size of the first in bytes."""
    parts = bench.write_parts()
    training = bench.experiment.configs[V1].training
    report = Report(
        bench.experiment.plan.title,
        f"The older project stated what {V2} gains over {V1}. Here both are measured side by side: "
        f"trained on the same {training.steps:,} batches with equal parameters, their speed and "
        "memory in turn, and what they recall of names told once.",
        dict(bench.machine()),
    )
    report.prose("\n".join(f"- {text}" for text in findings(bench, found)), "Findings")
    report.table(
        "Aims and figures",
        [COLUMNS[at] for at in ON_PAGE],
        [[row[at] for at in ON_PAGE] for row in cells(found)],
    )
    report.prose(_method(bench), "Method")
    names = "\n".join(f"- {Path(p).name}" for p in parts)
    report.prose(f"In the folder of this page:\n\n{names}", "Pages of the parts")
    return report.write(bench.page)


def _method(bench: BrainBench) -> str:
    return (
        f"Speed: {counted(bench.speed.repeats, 'round')}, in each of which both models are "
        "measured in turn; the median of the ratios within a round, with minimum and maximum. An "
        "aim is met if the whole range reaches its lower end, not met if none of it does, and "
        "otherwise undecided; one round decides nothing.\n\n"
        "Memory: the peak of training, less what the process holds before the model (on a GPU: "
        "the peak of its memory).\n\n"
        "Recall: few-shot learning counts as met if every seed of brain-v2 (two at least) recalls "
        "more than every seed of brain-v1 and more than twice what guessing gets, at the longest "
        "trained length.\n\n"
        "Loss: after equal steps on equal tokens, each model at its best learning rate, on text "
        "that chose nothing, with a paired 95 % interval over the seeds."
    )
