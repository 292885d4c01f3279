"""The results of an experiment: a line for each entry, and which differences are significant.

Missing figures stay missing: an entry without finished runs has only the reason.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from holo_cli.config.added import default_of
from holo_cli.experiment.experiment import Experiment
from holo_cli.experiment.plan import Entry
from holo_cli.experiment.result_log import Row, is_split, test_bpb, test_loss
from holo_cli.experiment.significance import Difference, against
from holo_cli.wording import counted

UNIT = "nats per token"
UNMATCHED = "*"  # after the size of an entry that is not matched


@dataclass
class EntryResult:
    """One entry's result. Losses are those of the finished seeds, in the order of the seeds."""

    entry: str
    model: str
    status: str  # "done", "2 of 3 seeds", "failed", "failed in 1 of 3 seeds", "not run"
    rate: float | None
    losses: list[float]
    bpb: list[float]
    parameters: int
    active_parameters: int
    state_bytes: int
    settings: dict[str, Any]  # that differ from the model's defaults
    matched: bool | None = None  # whether it meets what the plan matches; None: nothing to match
    note: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a seed failed: the mean of the other seeds would be biased."""
        return self.status.startswith("failed")

    @property
    def loss(self) -> float | None:
        return statistics.mean(self.losses) if self.losses else None

    @property
    def bits(self) -> float | None:
        return statistics.mean(self.bpb) if self.bpb else None

    @property
    def loss_sd(self) -> float | None:
        return statistics.stdev(self.losses) if len(self.losses) > 1 else None

    @property
    def bits_sd(self) -> float | None:
        return statistics.stdev(self.bpb) if len(self.bpb) > 1 else None

    def by_seed(self) -> dict[int, float]:
        """The losses with their seeds."""
        return {row["seed"]: loss for row, loss in zip(self.rows, self.losses, strict=True)}

    def median(self, key: str) -> float | None:
        """Of a figure of the finished runs."""
        values = [row[key] for row in self.rows if row.get(key) is not None]
        return statistics.median(values) if values else None

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "entry": self.entry,
            "model": self.model,
            "status": self.status,
            "rate": self.rate,
            "seeds": len(self.losses),
            "val_loss": self.loss,
            "val_loss_sd": self.loss_sd,
            "val_losses": self.losses,
            "bpb": self.bits,
            "bpb_sd": self.bits_sd,
            "parameters": self.parameters,
            "active_parameters": self.active_parameters,
            "state_bytes": self.state_bytes,
            "matched": self.matched,
            "note": self.note,
        } | {
            key: self.median(key)
            for key in (
                "steps", "tokens", "train_seconds", "eval_seconds", "cpu_seconds",
                "tokens_per_second", "peak_rss_bytes",
            )
        }  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """`lines` in the plan's order; `differences` of each other entry to the first one, but for
    entries that failed in part; `remarks` on all of it."""

    base: str
    lines: list[EntryResult]
    differences: list[Difference]
    remarks: list[str] = field(default_factory=list)

    def difference(self, entry: str) -> Difference | None:
        return next((d for d in self.differences if d.a == entry), None)

    def sentences(self, *, missing: bool = True) -> list[str]:
        """The findings, best first; then what failed or, with `missing`, was not run."""
        order = sorted(self.differences, key=lambda d: (d.p is None, d.value))
        found = [*self._answer(), *(d.sentence(UNIT) for d in order)]
        unknown = [line for line in self.lines if line.failed or (missing and not line.losses)]
        found += [f"{line.entry}: {line.status}. {_sentence(line)}".strip() for line in unknown]
        return found + self.remarks

    def _answer(self) -> list[str]:
        """The main question, answered first."""
        if not self.differences:
            return []
        sentences = []
        for verdict in ("better", "worse"):
            names = ", ".join(d.a for d in self.differences if d.verdict == verdict)
            if names:
                sentences.append(f"Shown to be {verdict} than {self.base}: {names}.")
        if not sentences:
            sentences = [f"Nothing is shown to be better or worse than {self.base} by these runs."]
        return [" ".join(sentences)]


def summarise(experiment: Experiment) -> Summary:
    lines = [_line(experiment, entry) for entry in experiment.plan.entries]
    losses = {line.entry: {} if line.failed else line.by_seed() for line in lines}
    remarks = [*_unmatched(experiment, lines), *_remarks(lines)]
    if experiment.tuning is not None:
        remarks += experiment.tuning.sentences()
    for name, number in experiment.other_data.items():
        data = experiment.data
        remarks.append(
            f"{counted(number, 'row')} of {experiment.rows.path} are of the prepared set {name}, "
            "not of "
            f"{data.name} ({data.fingerprint[:8]}), and are not used."
        )
    return Summary(experiment.base, lines, against(experiment.base, losses), remarks)


def _unmatched(experiment: Experiment, lines: Sequence[EntryResult]) -> list[str]:
    """Entries that do not meet what the plan matches."""
    names = [line for line in lines if line.matched is False]
    if not names:
        return []
    plan = experiment.plan
    if plan.match == "time":
        return [
            f"Trained for a number of steps of their own instead of {plan.seconds:g} seconds: "
            f"{', '.join(line.entry for line in names)}."
        ]
    active = plan.match == "active"
    sizes = ", ".join(
        f"{line.entry} ({line.active_parameters if active else line.parameters:,})"
        for line in names
    )
    return [
        f"{UNMATCHED} Not matched in {'active ' if active else ''}parameters "
        f"({experiment.target:,} within {plan.tolerance:.0%}): {sizes}."
    ]


def _sentence(line: EntryResult) -> str:
    if not line.losses:
        return line.note
    return f"No verdict is given from the seeds that finished. {line.note}"


def _remarks(lines: Sequence[EntryResult]) -> list[str]:
    """Differences between runs that should be equal in all but the entry."""
    rows = [row for line in lines for row in line.rows]
    remarks = []
    for key, what in (
        ("shared_code", "versions of the code that all models share"),
        ("dtype", "number formats"),
        ("device", "kinds of devices"),
    ):
        found = {row[key] for row in rows if row.get(key)}
        if len(found) > 1:
            remarks.append(f"Runs with {len(found)} {what} are compared.")
    whole = sum(not is_split(row) for row in rows)
    if whole:
        remarks.append(
            f"{whole} of {counted(len(rows), 'run')} are from before the validation text was "
            "split: their "
            "losses include the text by which their learning rates were chosen."
        )
    return remarks


def _line(experiment: Experiment, entry: Entry) -> EntryResult:
    runs = experiment.final_runs(entry)
    rows = [row for run in runs if (row := experiment.row(run)) is not None]
    done = [row for row in rows if row["status"] == "done"]
    sweep = experiment.sweep(entry)
    described = experiment.final_size(entry.name)
    throughput_runs = [
        row for run in experiment.throughput_runs(entry) if (row := experiment.row(run)) is not None
    ]
    failures = [row for row in [*throughput_runs, *rows] if row["status"] != "done"]
    tuning = experiment.tuning
    if tuning is not None and sweep.settled and sweep.best is None:
        failures += tuning.failures(entry)
    elif sweep.settled and sweep.best is None:
        failures += [
            row
            for rate in sweep.rates
            if (row := experiment.row(experiment.sweep_run(entry, rate))) is not None
            and row["status"] != "done"
        ]
    seeds = experiment.plan.seeds
    if len(done) == seeds:
        status = "done"
    elif failures:
        lost = sum(row["status"] != "done" for row in rows)
        status = f"failed in {lost} of {counted(seeds, 'seed')}" if done else "failed"
    elif done:
        status = f"{len(done)} of {counted(seeds, 'seed')}"
    else:
        begun = sweep.losses or (tuning is not None and tuning.result(entry).done)
        what = "sweep" if tuning is None else "tuning"
        status = f"{what} under way" if begun else "not run"
    notes = sorted({f"{row['error']}" for row in failures})
    if sweep.broken:
        rates = ", ".join(f"x{rate:g}" for rate in sweep.broken)
        notes.append(f"its sweep broke off at {rates}; --retry-failed runs that again")
    if tuning is not None and (broken := tuning.result(entry).broken):
        numbers = ", ".join(map(str, broken))
        notes.append(f"its trials {numbers} broke off; --retry-failed runs them again")
    if sweep.settled and sweep.at_edge:
        at = f" at {sweep.swept_at}" if sweep.swept_at else ""
        notes.append(f"the best rate{at}, x{sweep.best:g}, is the last one tried on its side")
    if len({row["code"] for row in done}) > 1:
        notes.append("its runs were made by different versions of the code")
    if not rows and (others := experiment.finished_otherwise(entry.name)):
        notes.append(f"Finished runs of this name with other settings or seeds, not used: {others}")
    if any(row["stopped_by"] != "steps" for row in done):
        notes.append("stopped before the end of its schedule")
    return EntryResult(
        entry=entry.name,
        model=entry.model,
        status=status,
        rate=sweep.best,
        losses=[test_loss(row) for row in done],
        bpb=[test_bpb(row) for row in done],
        parameters=described.parameters,
        active_parameters=described.active_parameters,
        state_bytes=described.state_bytes,
        settings=_own_settings(experiment, entry),
        matched=experiment.is_matched(entry.name),
        note="; ".join(notes),
        rows=done,
    )


def _own_settings(experiment: Experiment, entry: Entry) -> dict[str, Any]:
    """The model's keys that differ from their defaults, without keys common to all models."""
    config = experiment.final_config(entry.name).model
    common = {"vocab_size", "context", "dropout"}
    return {
        key: value
        for key, value in config.model_dump(mode="json").items()
        if key not in common and value != default_of(type(config), key)
    }


def bits_per_nat(experiment: Experiment) -> float:
    """Bits per byte of one nat per token: the same for all models on the same tokens."""
    data = experiment.data
    return data.token_count("val") / (math.log(2) * data.byte_count("val"))


def table(summary: Summary) -> tuple[Sequence[str], list[Sequence[str]]]:
    """The main result as text: columns and rows. `sd` is that of nats per token."""
    columns = (
        "model", "bits/byte", "nats/token", "sd", f"vs {summary.base}", "verdict",
    )  # fmt: skip
    rows: list[Sequence[str]] = []
    for line in summary.lines:
        difference = summary.difference(line.entry)
        rows.append((
            line.entry,
            "not run" if line.bits is None else f"{line.bits:.4f}",
            "not run" if line.loss is None else f"{line.loss:.4f}",
            "" if line.loss_sd is None else f"{line.loss_sd:.4f}",
            "" if difference is None else signed(difference.value, difference.half),
            verdict(line, difference, ""),
        ))  # fmt: skip
    return columns, rows


def costs(
    summary: Summary, count: Callable[[float], str], size: Callable[[float], str]
) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Size, speed and memory of each entry as text. A star marks an entry that is not matched."""
    columns = (
        "model", "parameters", "active", "state", "rate", "seeds", "tokens", "train s",
        "tokens/s", "peak memory",
    )  # fmt: skip
    rows: list[Sequence[str]] = []
    for line in summary.lines:
        seconds, peak = line.median("train_seconds"), line.median("peak_rss_bytes")
        tokens, throughput = line.median("tokens"), line.median("tokens_per_second")
        rows.append((
            line.entry,
            count(line.parameters) + ("" if line.matched is not False else UNMATCHED),
            count(line.active_parameters),
            size(line.state_bytes),
            "" if line.rate is None else f"x{line.rate:.3g}",
            str(len(line.losses)),
            "" if tokens is None else count(tokens),
            "" if seconds is None else f"{seconds:.0f}",
            "" if throughput is None else count(throughput),
            "" if peak is None else size(peak),
        ))  # fmt: skip
    return columns, rows


def verdict(line: EntryResult, difference: Difference | None, none: str) -> str:
    """An entry's verdict against the baseline, or the reason why it has none."""
    if line.failed or not line.losses:
        return line.status
    return none if difference is None else difference.verdict


def signed(value: float, half: float | None) -> str:
    return f"{value:+.4f}" + ("" if half is None else f" ± {half:.4f}")
