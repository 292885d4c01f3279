"""The runs of a working folder: what `holo runs` lists. No torch.

A run is what has checkpoints in `checkpoints/` or a log in `runs/`. What cannot be read is listed
as damaged, and is an error only for who names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holo_cli.checkpoint.find import known_runs
from holo_cli.checkpoint.header import Header
from holo_cli.checkpoint.lock import is_locked
from holo_cli.checkpoint.parts import files_of
from holo_cli.checkpoint.read import read_header
from holo_cli.checkpoint.unfinished import has_ended, planned_steps
from holo_cli.errors import CheckpointError, UsageError, nearest
from holo_cli.names import same_name
from holo_cli.parsing import ParseError, parse_object
from holo_cli.paths import CHECKPOINTS, RUNS

LOG = "metrics.jsonl"
RUNNING, UNFINISHED, COMPLETE, WEIGHTS, LOG_ONLY, DAMAGED = (
    "running", "unfinished", "complete", "weights only", "log only", "damaged",
)  # fmt: skip


@dataclass(frozen=True)
class RunSummary:
    """`files`: checkpoints by kind; `log`: its folder in runs/; `updated`: seconds since 1970."""

    run: str
    state: str
    updated: float
    nbytes: int
    files: dict[str, Path] = field(default_factory=dict)
    log: Path | None = None
    header: Header | None = None
    start: dict[str, Any] = field(default_factory=dict)  # of a run with nothing but a log

    @property
    def model(self) -> str:
        return self.header.model if self.header else str(self.start.get("model") or "")

    @property
    def data(self) -> str:
        if self.header is None:
            return str(self.start.get("data") or "")
        return self.header.data.title or self.header.data.path

    @property
    def step(self) -> int | None:
        return self.header.step if self.header else None

    @property
    def steps(self) -> int | None:
        """Of the schedule; None where the header has none."""
        return planned_steps(self.header) or None if self.header else None

    @property
    def best_val(self) -> float | None:
        """The best validation loss, in nats per token."""
        return self._best("val_loss")

    @property
    def best_bpb(self) -> float | None:
        """The best bits per byte of the validation set."""
        return self._best("bpb")

    def _best(self, key: str) -> float | None:
        if self.header is None:
            return None
        found = [row.get(key) for row in self.header.history]
        losses = self.header.losses
        found += [losses.best_val, losses.val] if key == "val_loss" else [losses.bpb]
        return min((x for x in found if x is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """The keys of `holo runs --json`."""
        return {
            "run": self.run, "state": self.state, "model": self.model, "data": self.data,
            "step": self.step, "steps": self.steps, "best_val": self.best_val,
            "best_bpb": self.best_bpb, "bytes": self.nbytes,
            "updated": datetime.fromtimestamp(self.updated, UTC).isoformat(timespec="seconds"),
            "files": dict(self.files), "log": self.log,
        }  # fmt: skip


def list_runs(root: Path = CHECKPOINTS, logs: Path = RUNS) -> list[RunSummary]:
    """Every run, those that can be resumed first, then the most recently written first."""
    known = known_runs(root)
    names = [*known, *(p.parent.name for p in logs.glob(f"*/{LOG}") if p.parent.name not in known)]
    found = [_summary(name, known.get(name, {}), root, logs) for name in names]
    first = (RUNNING, UNFINISHED)
    return sorted(
        found,
        key=lambda r: (first.index(r.state) if r.state in first else len(first), -r.updated),
    )


def find_run(name: str, root: Path = CHECKPOINTS, logs: Path = RUNS) -> RunSummary:
    """A run by its name. Raises UsageError, with the nearest name, where there is none."""
    known = known_runs(root)
    there = list(dict.fromkeys([*known, *(p.parent.name for p in logs.glob(f"*/{LOG}"))]))
    run = same_name(name, there)
    if run is None:
        raise UsageError(
            f"There is no run '{name}' here.",
            next_step=nearest(name, there) or "`holo train --model vanilla` makes one.",
        )
    return _summary(run, known.get(run, {}), root, logs)


def differing(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Settings that are not the same in all configs, by section.key; None where one has none."""
    flat = [
        {f"{section}.{key}": v for section, table in config.items() for key, v in table.items()}
        for config in configs
    ]
    keys = dict.fromkeys(key for one in flat for key in one)
    values = {key: [one.get(key) for one in flat] for key in keys}
    return {key: row for key, row in values.items() if any(v != row[0] for v in row[1:])}


def _summary(name: str, files: dict[str, Path], root: Path, logs: Path) -> RunSummary:
    log = logs / name if (logs / name).is_dir() else None
    header: Header | None = None
    state, start = DAMAGED, {}
    kind = next((kind for kind in ("last", "best", "weights", "") if kind in files), None)
    if kind is None:
        state, start = LOG_ONLY, _start(logs / name / LOG)
    else:
        try:
            header = read_header(files[kind])
            state = _state(header)
        except CheckpointError:
            state = DAMAGED
    if is_locked(root, name):
        state = RUNNING
    checkpoints = [one for path in files.values() for one in files_of(path)]
    stats = [s for s in map(_stat, [*checkpoints, *_files(log)]) if s is not None]
    updated = max((at for at, _ in stats), default=0.0)
    return RunSummary(name, state, updated, sum(n for _, n in stats), files, log, header, start)


def _state(header: Header) -> str:
    if header.kind != "last":
        return WEIGHTS
    ended = header.step >= planned_steps(header) or has_ended(header)
    return COMPLETE if ended else UNFINISHED


def _stat(path: Path) -> tuple[float, int] | None:
    try:
        found = path.stat()
    except OSError:  # deleted since it was listed
        return None
    return found.st_mtime, found.st_size


def _files(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield from (path for path in folder.rglob("*") if path.is_file())


def _start(log: Path) -> dict[str, Any]:
    """The first event of a log, as far as it can be read."""
    try:
        with log.open("rb") as file:
            return parse_object(file.readline(1 << 20), nan=True)
    except (OSError, ParseError):
        return {}
