"""Shows what a long job reports: a moving bar on a terminal, plain lines off it, or JSON lines.

Training hands over plain dicts with an "event" key, preparing data small reports. All of it goes to
stderr, except under --json, where every training event is a line on stdout.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from holo_cli.cli.output import Output, count, duration, is_terminal, size, visible

if TYPE_CHECKING:
    from rich.progress import Progress

    from holo_cli.data.prepare.prepare import PrepareProgress

LINE_EVERY = 10.0  # seconds between plain lines of training
EMPTY = " " * 4


class Events:
    """Renders training events; use as a context manager, call with each event.

    >>> with Events(Output()) as show:                          # doctest: +SKIP
    ...     train(resolved, events=show)
    """

    def __init__(self, out: Output) -> None:
        self.out = out
        self.last: dict[str, Any] = {}  # the newest event of all
        self._line_at = -LINE_EVERY
        self._bar = Bar() if _may_move(out) else None

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.close()

    def __call__(self, event: dict[str, Any]) -> None:
        self.last = event
        self.out.event(event)
        render = getattr(self, "_on_" + event["event"], None)
        if render is not None:
            render(event)

    def _on_start(self, event: Mapping[str, Any]) -> None:
        self._say(start_line(event))

    def _on_stage(self, event: Mapping[str, Any]) -> None:
        if not self.out.json:
            self._say(stage_line(event))

    def _on_train(self, event: Mapping[str, Any]) -> None:
        if self._bar:
            self._bar.update(share_done(event), 1.0, train_facts(event))
        if self.out.verbose:
            if not self.out.json:
                self._say(f"{train_facts(event)}  {more_facts(event)}")
        elif self._bar:
            return
        elif time.monotonic() - self._line_at >= LINE_EVERY or event["step"] == event["steps"]:
            self._line_at = time.monotonic()
            if not self.out.json:
                self._say(train_facts(event))

    def _on_eval(self, event: Mapping[str, Any]) -> None:
        if self.out.json:
            return
        best = "  best so far" if event.get("best") else ""
        bpb = f"  {event['bpb']:.3f} bits per byte" if event.get("bpb") is not None else ""
        self._say(f"step {event['step']}  val loss {event['val_loss']:.4f}{bpb}{best}")
        if event.get("sample"):
            for line in visible(str(event["sample"])).splitlines():
                self._say(EMPTY + line)

    def _on_warning(self, event: Mapping[str, Any]) -> None:
        self._say("Warning: " + str(event["message"]), always=True)

    def _say(self, text: str, always: bool = False) -> None:
        if self._bar:
            self._bar.say(text)
        elif always:
            self.out.warn(text.removeprefix("Warning: "))
        else:
            self.out.note(text)


def start_line(event: Mapping[str, Any]) -> str:
    """What a run begins with, as far as the event says it."""
    words = [f"Run {event['run']}:"] if event.get("run") else []
    if event.get("model"):
        words.append(str(event["model"]))
    if event.get("parameters"):
        words.append(f"with {count(event['parameters'])} parameters")
    if event.get("data"):
        words.append(f"on {event['data']}")
    if event.get("device"):
        words.append(f"({event['device']}{', ' + event['dtype'] if event.get('dtype') else ''})")
    if event.get("step"):
        words.append(f"from step {event['step']}")
    if event.get("memory_bytes"):
        words.append(f"in about {size(event['memory_bytes'])} of memory")
    return " ".join(words) or "Training."


def stage_line(event: Mapping[str, Any]) -> str:
    """Where a growing model is now; after a growth also what it did to the loss."""
    blocks = f"{event['layers']} block{'' if event['layers'] == 1 else 's'}"
    line = f"Stage {event['stage']} of {event['stages']} from step {event['step']}: {blocks}, "
    line += f"{count(event['parameters'])} parameters"
    if event.get("loss_after") is not None:
        line += f" (loss on a sample {event['loss_before']:.4f} -> {event['loss_after']:.4f})"
    return line


def train_facts(event: Mapping[str, Any]) -> str:
    """Step, loss, speed and time left of one training event."""
    facts = [f"step {event['step']}/{event['steps']}", f"loss {event['loss']:.4f}"]
    if event.get("tokens_per_second"):
        facts.append(f"{count(event['tokens_per_second'])} tokens/s")
    if event.get("eta_seconds") is not None:
        facts.append(f"{duration(event['eta_seconds'])} left")
    return "  ".join(facts)


def more_facts(event: Mapping[str, Any]) -> str:
    """What -v adds: rate, gradient norm, auxiliary losses, passes over the data, time so far."""
    facts = [f"rate {event['lr']:.4g}", f"gradient norm {event['grad_norm']:.3g}"]
    facts += [f"{name} {value:.4g}" for name, value in event.get("aux", {}).items()]
    if event.get("epoch") is not None:
        facts.append(f"epoch {event['epoch']:.2f}")
    return "  ".join([*facts, f"after {duration(event['seconds'])}"])


def share_done(event: Mapping[str, Any]) -> float:
    """How much of a run is behind: of its steps, or of its time where a limit comes first."""
    by_steps = event["step"] / event["steps"]
    left = event.get("eta_seconds")
    seconds = event.get("seconds") or 0.0
    by_time = seconds / (seconds + left) if left is not None and seconds + left > 0 else 0.0
    return max(by_steps, by_time)


def _may_move(out: Output) -> bool:
    return not (out.json or out.quiet or out.silent) and is_terminal(sys.stderr)


class Bar:
    """One bar on stderr, gone when it is closed. `update` may come as often as it likes."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(file=sys.stderr, highlight=False)
        self._progress: Progress | None = None
        self._task: Any = None

    def update(self, done: float, total: float | None, facts: str) -> None:
        """Move to `done` of `total` (None: unknown) with a few words beside the bar."""
        if self._progress is None:
            self._open()
        assert self._progress is not None
        self._progress.update(self._task, completed=done, total=total, facts=facts)

    def _open(self) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._progress = Progress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            console=self._console,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("", facts="")
        self._progress.start()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, markup=False)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


STAGES = {
    "reading": "Reading",
    "tokenizer": "Making the tokenizer",
    "packing": "Packing tokens",
}


class Preparing:
    """Renders the progress of preparing data; use as a context manager, call with each report."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self._bar = Bar() if _may_move(out) else None
        self._line_at = time.monotonic()  # what is done within seconds needs no line

    def __enter__(self) -> Preparing:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.close()

    def __call__(self, now: PrepareProgress) -> None:
        facts = prepare_facts(now)
        if self._bar:
            self._bar.update(now.bytes, now.total_bytes, facts)
        elif time.monotonic() - self._line_at >= LINE_EVERY:
            self._line_at = time.monotonic()
            self.out.note(facts)


def prepare_facts(now: PrepareProgress) -> str:
    """Stage, amount, speed and time left of a preparation."""
    facts = [STAGES.get(now.stage, now.stage), f"{now.documents:,} documents", size(now.bytes)]
    if now.bytes_per_second:
        facts.append(f"{size(now.bytes_per_second)}/s")
        if now.total_bytes and now.total_bytes > now.bytes:
            left = (now.total_bytes - now.bytes) / now.bytes_per_second
            facts.append(f"{duration(left)} left")
    return "  ".join(facts)


def summary(done: Mapping[str, Any]) -> list[str]:
    """The results of a training run, for a person, from its last event."""
    steps, tokens = done["steps"], count(done["tokens"])
    lines = [f"{steps:,} steps, {tokens} tokens in {duration(done['train_seconds'])}"]
    if done.get("stopped_by") in ("target-loss", "time-limit"):
        lines[0] += f", ended by --{done['stopped_by']}"
    if done.get("val_loss") is not None:
        bpb = f", {done['bpb']:.4f} bits per byte" if done.get("bpb") is not None else ""
        lines.append(f"validation loss {done['val_loss']:.4f}{bpb}")
    lines += [f"{kind}: {done[kind]}" for kind in ("best", "last") if done.get(kind)]
    return lines
