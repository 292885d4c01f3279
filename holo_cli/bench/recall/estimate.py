"""How many runs of a recall bench are left, and how long they will take, by those that are done."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from holo_cli.bench.recall.run import Recall, Run


@dataclass(frozen=True)
class Estimate:
    """The runs of one task, or of all (`task` is "all")."""

    task: str
    runs: int
    done: int
    seconds: float | None  # for what is left; None: nothing of the plan has run yet

    @property
    def left(self) -> int:
        return self.runs - self.done

    def to_dict(self) -> dict[str, Any]:
        return {
            "task": self.task, "runs": self.runs, "done": self.done, "left": self.left,
            "seconds": self.seconds,
        }  # fmt: skip


def estimate(recall: Recall) -> list[Estimate]:
    """Each task in the plan's order, then all of them; for one run at a time.

    A run is expected to take the mean of its entry's runs of the same task; where there are none,
    the mean of all runs of the task, and else of all runs.
    """
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    left: dict[str, list[Run]] = defaultdict(list)
    for run in recall.runs:
        row = recall.row(run)
        if row is None:
            left[run.spec.name].append(run)
        elif row["status"] == "done":
            # older rows say only how long training took, not the test and the start
            taken = float(row["seconds" if "seconds" in row else "train_seconds"])
            for place in ((run.entry, run.spec.name), ("", run.spec.name), ("", "")):
                seconds[place].append(taken)

    def expected(run: Run) -> float:
        places = ((run.entry, run.spec.name), ("", run.spec.name), ("", ""))
        return statistics.mean(next(seconds[place] for place in places if seconds[place]))

    found = []
    for spec in recall.plan.tasks:
        runs = sum(run.spec == spec for run in recall.runs)
        todo = left[spec.name]
        needed = sum(map(expected, todo)) if seconds["", ""] or not todo else None
        found.append(Estimate(spec.name, runs, runs - len(todo), needed))
    needs = [e.seconds for e in found if e.seconds is not None]
    total = sum(needs) if len(needs) == len(found) else None
    found.append(Estimate("all", sum(e.runs for e in found), sum(e.done for e in found), total))
    return found
