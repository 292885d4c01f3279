"""The campaign of kills: trainings are ended by signals, at any moment, and resumed.

Each case is one kill. A training that is killed and resumed must end with the same bits as one that
was not: weights, optimizer, losses, log. What was reported as saved must be there after the kill,
and every file under its own name must be complete. The reference is trained once for each model.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults import verdict, world
from benchmarks.faults.sandbox import ChildProcess, CommandLine, Outcome
from holo_cli.parsing import parse_json

Row = dict[str, Any]
STEPS = 12
ATTEMPTS = 20  # a kill that came after the end is tried again, earlier
POLL = 0.0002  # seconds between looks for a temporary
SECONDS = 120.0  # of a whole training on a busy machine
VARYING = {  # of events and header, by nature: times, and what is derived from them
    "train_seconds", "eval_seconds", "seconds", "tokens_per_second", "eta_seconds",
    "available_bytes", "peak_rss_bytes", "created", "memory_bytes",
}  # fmt: skip
SIGNALS = (signal.SIGKILL,) * 3 + (signal.SIGTERM, signal.SIGHUP)


class NotHitError(RuntimeError):
    """No kill met the process while it ran."""


@dataclass
class Killed:
    """A kill that met a running process: where, and what the process had said by then."""

    where: str  # "write" inside the write of a file, "run" elsewhere
    outcome: Outcome
    attempts: int = 1


@dataclass
class References:
    """The undisturbed result of each command, made when first asked for."""

    folder: Path
    done: dict[str, float] = field(default_factory=dict)  # name -> seconds that it took

    def of(self, name: str, make: Callable[[Path], CommandLine]) -> tuple[Path, float]:
        """The folder with the result, and the seconds that it took."""
        folder = self.folder / name
        if name not in self.done:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.done[name] = world.must(make(folder).run(SECONDS)).seconds
        return folder, self.done[name]


def kill(
    rng: random.Random,
    make: Callable[[], CommandLine],
    number: int,
    seconds: float,
    watched: Callable[[], list[Path]] | None,
    writes: int = 6,
) -> Killed:
    """Start the command and send it signal `number` at a random moment of its `seconds`.

    With `watched`, which lists temporaries, the moment is inside the writing of one of the first
    `writes` of them.
    """
    most = 1.0
    for attempt in range(1, ATTEMPTS + 1):
        with make().start() as child:
            if watched is None:
                time.sleep(rng.random() * most * seconds)
                where = "run"
            else:
                _wait_for_write(rng.randrange(writes), child, watched)
                where = "write"
            child.kill(number)
            outcome = child.wait(SECONDS)
        stopped = outcome.signal == number or outcome.code == 3
        if stopped and (watched is None or number != signal.SIGKILL or watched()):
            return Killed(where, outcome, attempt)
        if stopped:  # the temporary had its name already: a kill as good as any
            return Killed("run", outcome, attempt)
        most *= 0.8
    raise NotHitError(f"{ATTEMPTS} attempts")


def _wait_for_write(wanted: int, child: ChildProcess, watched: Callable[[], list[Path]]) -> None:
    """Until a temporary is seen, after that number of others were."""
    seen: set[Path] = set()
    while child.poll() is None:
        seen.update(watched())
        if len(seen) > wanted:
            return
        time.sleep(POLL)


# -- training -------------------------------------------------------------------------------------


def train_case(number: int, seed: int, pristine: Path, references: References, folder: Path) -> Row:
    """Kill and resume the training of one model; models take turns."""
    from holo_cli import registry

    rng = random.Random(f"{seed}-kill-{number}")
    names = registry.model_names()
    model = names[number % len(names)]
    sent = SIGNALS[number // len(names) % len(SIGNALS)]
    in_write = number // len(names) % 2 == 1

    def command(where: Path) -> CommandLine:
        return training(model, pristine / "data/tiny", where)

    reference, seconds = references.of(model, command)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def fresh() -> CommandLine:
        shutil.rmtree(folder)
        folder.mkdir()
        return command(folder)

    def temporaries() -> list[Path]:
        return list(folder.glob("checkpoints/.*.tmp"))

    killed = kill(rng, fresh, sent, seconds, temporaries if in_write else None)
    row: Row = {
        "target": f"train {model}", "damage": f"{signal.Signals(sent).name} in {killed.where}",
        "where": killed.where, "attempts": killed.attempts,
    }  # fmt: skip
    fault = stopped_well(killed.outcome, sent) or half_written(folder) or lost(folder, killed)
    last = folder / "checkpoints/r_last.safetensors"
    again = world.holo(folder, "resume", "r", "--json") if last.exists() else command(folder)
    if not fault and not finished(folder):
        outcome = again.run(SECONDS)
        fault = verdict.fault(outcome) or ("" if outcome.code == 0 else "resume: " + outcome.stderr)
    fault = fault or different(reference, folder) or leftovers(folder)
    return row | {
        "command": again.arguments[0],
        "saved_step": _announced(killed, "last"),
        "fault": fault,
    }


def training(model: str, data: Path, where: Path, *more: str) -> CommandLine:
    """A training of `STEPS` steps, as run `r`, that saves after each."""
    return world.holo(
        where, "train", "--model", model, "--data", str(data), "--run", "r", *world.TINY,
        "--steps", str(STEPS), "--eval-every", "4", "--set", "training.save_every=1", "--json",
        *more,
    )  # fmt: skip


def finished(folder: Path) -> bool:
    """Whether the killed training had already saved its last step."""
    last = folder / "checkpoints/r_last.safetensors"
    if not last.exists():
        return False
    from holo_cli.checkpoint import read_header

    return read_header(last).step == STEPS


def _announced(killed: Killed, kind: str) -> int:
    """The last step whose checkpoint of that kind was announced; 0 for none."""
    saves = [row for row in events(killed.outcome.stdout) if row["event"] == "save"]
    return max((row["step"] for row in saves if row["kind"] == kind), default=0)


def events(stdout: str) -> list[Row]:
    """The complete JSON lines of a killed process."""
    return [parse_json(line) for line in stdout.split("\n")[:-1] if line.startswith("{")]


def stopped_well(outcome: Outcome, sent: int) -> str:
    """A process that was asked to stop saves and says so; killed before that, it just ends."""
    if outcome.code is None:
        return "" if outcome.signal == sent else f"signal: {outcome.signal} after {sent}"
    if found := verdict.fault(outcome):
        return found
    saved = "everything is saved" in outcome.stderr or "resume" in outcome.stderr.lower()
    return "" if saved else f"stop: exit code {outcome.code} without a word on how to resume"


def half_written(folder: Path) -> str:
    """A file under its own name that is incomplete; temporaries are hidden and may be."""
    from holo_cli.checkpoint.rebuild import load_training
    from holo_cli.errors import HoloError

    for path in sorted(folder.glob("checkpoints/[!.]*.safetensors")):
        try:
            load_training(path)
        except HoloError as error:
            return f"half-written: {path.name}: {error.message}"
    for path in folder.glob("runs/*/metrics.jsonl"):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            if not isinstance(parse_json(line), dict):
                return f"half-written: {path.name}: {line[:80]}"
    return ""


def lost(folder: Path, killed: Killed) -> str:
    """A step that was announced as saved and is not in its file."""
    from holo_cli.checkpoint import read_header

    for kind in ("best", "last"):
        announced = _announced(killed, kind)
        path = folder / f"checkpoints/r_{kind}.safetensors"
        saved = read_header(path).step if path.exists() else 0
        if saved < announced:
            return f"lost: {kind}: step {announced} was announced, {saved} is saved"
    return ""


def different(reference: Path, folder: Path, *, log: bool = True) -> str:
    """The first difference between two finished trainings; times are left out."""
    for kind in ("best", "last"):
        name = f"checkpoints/r_{kind}.safetensors"
        if difference := _different_file(reference / name, folder / name):
            return f"different: {kind}: {difference}"
    if not log:
        return ""
    logs = [_log(one / "runs/r/metrics.jsonl") for one in (reference, folder)]
    for expected, found in zip(*logs, strict=False):
        if expected != found:
            return f"different: log: {found} instead of {expected}"[:400]
    if len(logs[0]) != len(logs[1]):
        return f"different: log: {len(logs[1])} rows instead of {len(logs[0])}"
    return ""


def _different_file(reference: Path, found: Path) -> str:
    from holo_cli.checkpoint.read import TensorFile

    with TensorFile(reference) as one, TensorFile(found) as other:
        headers = [timeless(file.header.model_dump(mode="json")) for file in (one, other)]
        for key, value in headers[0].items():
            if headers[1].get(key) != value:
                return f"header {key}: {str(headers[1].get(key))[:120]} for {str(value)[:120]}"
        tensors, others = one.read_all(), other.read_all()
        if tensors.keys() != others.keys():
            return f"tensors {sorted(tensors.keys() ^ others.keys())[:3]}"
        for name, tensor in tensors.items():
            if tensor.dtype != others[name].dtype or not tensor.equal(others[name]):
                return f"tensor {name}"
    return ""


def _log(path: Path) -> list[Row]:
    """The rows of training and evaluation, without times."""
    rows = [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [timeless(row) for row in rows if row["event"] in ("train", "eval", "stage")]


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in VARYING}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def leftovers(folder: Path) -> str:
    """Temporaries that the resumed process did not clean up."""
    left = [path.name for path in folder.rglob(".*.tmp")]
    return f"left behind: {', '.join(left)}" if left else ""
