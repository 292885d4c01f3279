"""Progress of long tasks: a bar on a terminal (tqdm), plain lines elsewhere, or JSON lines.

Training emits dicts with an "event" key, data preparation emits small reports. Progress goes to
stderr; with --json every training event is a line on stdout instead.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from holo_cli.cli.output import Output, count, duration, is_terminal, size
from holo_cli.cli.schedule import time_fact
from holo_cli.printable import message, one_line, printable, unguarded
from holo_cli.translation import translate
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.data.prepare.prepare import PrepareProgress

LINE_EVERY = 10.0  # seconds between plain lines of training
EMPTY = " " * 4


class TrainingDisplay:
    """Renders training events. Use as a context manager and call with each event.

    >>> with TrainingDisplay(Output()) as show:  # doctest: +SKIP
    ...     train(resolved, events=show)
    """

    def __init__(self, out: Output) -> None:
        self.out = out
        self.last: dict[str, Any] = {}  # the latest event
        self._line_at = -LINE_EVERY
        self._bar = Bar() if _may_move(out) else None

    def __enter__(self) -> TrainingDisplay:
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
        for name, one in event.get("sets", {}).items():
            self._say(
                f"{EMPTY}{name}  val loss {one['val_loss']:.4f}  {one['bpb']:.3f} bits per byte"
            )
        if event.get("sample"):
            self._sample(event)

    def _on_sample(self, event: Mapping[str, Any]) -> None:
        if not self.out.json:
            self._say(
                f"step {event['step']}  first sample, from a model that has only begun to learn:"
            )
            self._sample(event)

    def _sample(self, event: Mapping[str, Any]) -> None:
        for line in str(event["sample"]).split("\n"):
            self._say(EMPTY + line, literal=True)

    def _on_warning(self, event: Mapping[str, Any]) -> None:
        self._say("Warning: " + str(event["message"]), always=True)

    def say(self, text: str) -> None:
        """A line for people, above the bar if there is one."""
        self._say(text)

    def _say(self, text: str, always: bool = False, literal: bool = False) -> None:
        if self._bar:
            self._bar.say(text if literal else translate(text))
        elif always:
            self.out.warn(text.removeprefix("Warning: "))
        else:
            self.out.note(text, literal)


def start_line(event: Mapping[str, Any]) -> str:
    """The first line of a run: its name and facts, as far as the event has them."""
    keys = ("model", "data", "device", "dtype")
    facts = [
        _data_of(event) if key == "data" else str(event[key]) for key in keys if event.get(key)
    ]
    if event.get("parameters"):
        facts.insert(1, f"{count(event['parameters'])} parameters")
    if event.get("step"):
        facts.append(f"from step {event['step']}")
    if event.get("origin"):
        facts.append("from {run} (step {step})".format(**event["origin"]))
    if event.get("memory_bytes"):
        facts.append(f"memory about {size(event['memory_bytes'])}")
    if event.get("expected_seconds") is not None:
        facts.append(time_fact(event["expected_seconds"]))
    name = f"Run {event['run']}" if event.get("run") else "Training"
    return f"{name}: {', '.join(map(translate, facts))}" if facts else name


def _data_of(event: Mapping[str, Any]) -> str:
    """The set's name, or those of several sets with their shares."""
    shares = (f"{one['name']} ({one['weight']:.1%})" for one in event.get("sets", ()))
    return " + ".join(shares) or str(event["data"])


def stage_line(event: Mapping[str, Any]) -> str:
    """The stage of a growing model and, after a growth, its effect on the loss."""
    blocks = counted(event["layers"], "block")
    line = f"Stage {event['stage']} of {event['stages']} from step {event['step']}: {blocks}, "
    line += f"{count(event['parameters'])} parameters"
    if event.get("loss_after") is not None:
        line += f" (loss on a sample {event['loss_before']:.4f} -> {event['loss_after']:.4f})"
    return line


def train_facts(event: Mapping[str, Any]) -> str:
    """Step, loss, throughput and remaining time of a training event."""
    facts = [f"step {event['step']}/{event['steps']}", f"loss {event['loss']:.4f}"]
    if event.get("tokens_per_second"):
        facts.append(f"{count(event['tokens_per_second'])} tokens/s")
    if event.get("eta_seconds") is not None:
        facts.append(f"{duration(event['eta_seconds'])} left")
    return "  ".join(facts)


def more_facts(event: Mapping[str, Any]) -> str:
    """Details with -v: learning rate, gradient norm, auxiliary losses, epoch, elapsed time."""
    facts = [f"learning rate {event['lr']:.4g}", f"gradient norm {event['grad_norm']:.3g}"]
    facts += [f"{name} {value:.4g}" for name, value in event.get("aux", {}).items()]
    if event.get("epoch") is not None:
        facts.append(f"epoch {event['epoch']:.2f}")
    return "  ".join([*facts, f"after {duration(event['seconds'])}"])


def share_done(event: Mapping[str, Any]) -> float:
    """The finished fraction of a run: of its steps, or of its time limit if that ends first."""
    by_steps = event["step"] / event["steps"]
    left = event.get("eta_seconds")
    seconds = event.get("seconds") or 0.0
    by_time = seconds / (seconds + left) if left is not None and seconds + left > 0 else 0.0
    return max(by_steps, by_time)


def _may_move(out: Output) -> bool:
    return not (out.json or out.quiet or out.silent) and is_terminal(sys.stderr)


class Bar:
    """A progress bar on stderr (tqdm), removed when it is closed.

    tqdm moves the cursor, so it writes behind the guard; its texts are made printable here.
    """

    def __init__(self) -> None:
        self._bar: Any = None

    def update(self, done: float, total: float | None, facts: str) -> None:
        """Moves to `done` of `total` (None: unknown), with `facts` beside the bar.

        May be called at any rate: tqdm redraws at most four times a second.
        """
        bar_format = "{bar:24} {percentage:3.0f}% {desc}" if total else "{desc}"
        facts = translate(one_line(facts))
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                desc=facts, initial=done, total=total, bar_format=bar_format,
                file=unguarded(sys.stderr), leave=False, dynamic_ncols=True, mininterval=0.25,
                miniters=0,
            )  # fmt: skip
        self._bar.bar_format = bar_format
        self._bar.total = total
        self._bar.set_description_str(facts, refresh=False)
        self._bar.update(done - self._bar.n)

    def say(self, text: str) -> None:
        """Prints a line above the bar, as it is."""
        from tqdm import tqdm

        tqdm.write(printable(message(text)), file=unguarded(sys.stderr))

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Counting:
    """Progress of a task that counts: a bar on a terminal, nothing elsewhere.

    Use as a context manager and call with (done, total).
    """

    def __init__(self, out: Output, title: str) -> None:
        self.title = title
        self._bar = Bar() if _may_move(out) else None

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        if self._bar:
            self._bar.update(done, total, self.title)


STAGES = {
    "reading": "Reading",
    "tokenizer": "Training the tokenizer",
    "packing": "Tokenizing",
    "shard": "Reading and cleaning",
}


class Preparing:
    """Renders the progress of `holo prepare`. Use as a context manager and call with each
    report."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self._bar = Bar() if _may_move(out) else None
        self._line_at = time.monotonic()  # a short preparation prints no line

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
    """Stage, amount, throughput and remaining time of a preparation."""
    facts = [
        STAGES.get(now.stage, now.stage),
        f"{counted(now.documents, 'document')}",
        size(now.bytes),
    ]
    if now.bytes_per_second:
        facts.append(f"{size(now.bytes_per_second)}/s")
        if now.total_bytes and now.total_bytes > now.bytes:
            left = (now.total_bytes - now.bytes) / now.bytes_per_second
            facts.append(f"{duration(left)} left")
    return "  ".join(facts)


def training_results(done: Mapping[str, Any]) -> list[str]:
    """The results of a training run, from its last event."""
    steps, tokens = done["steps"], count(done["tokens"])
    lines = [f"{counted(steps, 'step')}, {tokens} tokens in {duration(done['train_seconds'])}"]
    if done.get("stopped_by") in ("target-loss", "time-limit"):
        lines.append(f"stopped by --{done['stopped_by']}")
    if done.get("val_loss") is not None:
        bpb = f", {done['bpb']:.4f} bits per byte" if done.get("bpb") is not None else ""
        lines.append(f"validation loss {done['val_loss']:.4f}{bpb}")
    lines += [f"{kind}: {done[kind]}" for kind in ("best", "last") if done.get(kind)]
    return lines
