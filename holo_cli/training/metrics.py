"""What a run leaves to look at: `runs/RUN/metrics.jsonl`, TensorBoard events, and with
`training.tracker` a run in that tracker.

All are written from the same events that the command line shows. After a resume, rows of steps
that were never saved are dropped, so the file reads as one uninterrupted run.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from holo_cli.errors import TrainingError
from holo_cli.files import atomic_write_bytes, remove_leftovers
from holo_cli.parsing import ParseError, parse_object, read_bytes

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from holo_cli.training.trackers import Tracker

# event -> (key in the event, tag in TensorBoard)
SCALARS = {
    "train": {
        "loss": "train/loss",
        "lr": "train/lr",
        "grad_norm": "train/grad_norm",
        "tokens_per_second": "train/tokens_per_second",
    },
    "eval": {"val_loss": "val/loss", "bpb": "val/bpb"},
    "stage": {"layers": "train/layers", "parameters": "train/parameters"},
}


class MetricsLog:
    """Writes events of one run. `step` is where a resumed run continues; 0 starts a new log.

    `layers` is its depth there: a growth at that very step may or may not have happened.
    """

    def __init__(
        self, folder: Path, step: int = 0, layers: int = 0, tracker: Tracker | None = None
    ) -> None:
        # imported here: TensorBoard takes a second that only training should pay
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "metrics.jsonl"
        self._board_failed = False
        self._tracker = tracker
        self._thread_hook = threading.excepthook
        with self._explained():
            self._open(folder, step, layers, SummaryWriter)
        threading.excepthook = self._on_thread_error

    def _open(
        self, folder: Path, step: int, layers: int, board: Callable[..., SummaryWriter]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path)
        keep = b""
        if step and self.path.exists():
            keep = _kept(self.path, step, layers)
        elif not step:
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
        atomic_write_bytes(self.path, keep)
        self._file: IO[str] = self.path.open("a", encoding="utf-8", newline="\n")
        self._board = board(str(folder), purge_step=step + 1 if step else None)

    def write(self, event: dict[str, Any]) -> None:
        """Append an event; scalars and sample texts also go to TensorBoard and the tracker."""
        with self._explained():
            self._restore_folder()
            self._file.write(json.dumps(event, ensure_ascii=False) + "\n")
            self._file.flush()
        try:
            self._write_to_board(event)
        except OSError:  # the rows are what counts, and they are written
            self._board_failed = True
        if self._tracker is not None:
            texts = {"sample": event["sample"]} if event.get("sample") else {}
            self._tracker.log(scalars(event) | texts, event.get("step", 0))

    def _write_to_board(self, event: dict[str, Any]) -> None:
        if self._board_failed:
            return
        step = event.get("step", 0)
        for tag, value in scalars(event).items():
            self._board.add_scalar(tag, value, step)
        if event["event"] == "eval":
            # the same curve against tokens, which is what runs with other batches compare on
            self._board.add_scalar("val/loss_by_tokens", event["val_loss"], event["tokens"])
            if event.get("sample"):
                self._board.add_text("sample", event["sample"], step)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the disk as one sentence."""
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"Cannot write the log {self.path}: {error.strerror or error}.",
                next_step="Make room on that disk, or start from a folder you can write to; "
                "checkpoints already saved are untouched.",
            ) from error

    def _on_thread_error(self, error: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread raises its errors again in the next call, which handles them: its
        traceback is for nobody."""
        own = type(error.thread).__module__.startswith("tensorboard.")
        if not (own and isinstance(error.exc_value, OSError)):
            self._thread_hook(error)

    def _restore_folder(self) -> None:
        """Make the folder again if somebody deleted it: a log is no reason to end a training.

        TensorBoard reopens its file at each flush, and needs only the folder.
        """
        if not self.path.exists():
            self._file.close()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8", newline="\n")

    def close(self) -> None:
        with self._explained():
            self._restore_folder()
        self._file.close()
        try:
            self._board.close()
        except OSError:
            self._board_failed = True
        threading.excepthook = self._thread_hook
        if self._tracker is not None:
            self._tracker.close()


def scalars(event: dict[str, Any]) -> dict[str, float]:
    """The numbers of an event to draw against its step, by tag."""
    known = SCALARS.get(event["event"], {})
    found = {tag: event[key] for key, tag in known.items() if event.get(key) is not None}
    if event["event"] == "eval":
        found |= {f"model/{name}": value for name, value in event.get("measures", {}).items()}
    return found | {f"train/{name}": value for name, value in event.get("aux", {}).items()}


def _kept(path: Path, step: int, layers: int) -> bytes:
    """The rows of a log from before the moment of the checkpoint, as lines.

    A last line that a crash cut off is left out. Raises TrainingError for a damaged line.
    """
    try:
        lines = read_bytes(path).split(b"\n")
    except ParseError as error:
        raise _damaged(f"The log {path} cannot be read: it is {error}.") from error
    kept = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            if line and _happened(parse_object(line, nan=True), step, layers):
                kept.append(line + b"\n")
        except (ParseError, TypeError) as error:
            raise _damaged(f"Line {number} of {path} is damaged.") from error
    return b"".join(kept)


def _happened(row: dict[str, Any], step: int, layers: int) -> bool:
    """Whether a row is from before the moment of the checkpoint; TypeError for no such row."""
    ahead = row.get("event") == "stage" and row.get("layers", 0) > layers
    return row.get("step", 0) <= step and not ahead


def _damaged(message: str) -> TrainingError:
    return TrainingError(
        message,
        next_step="Delete or rename the log, then resume again: the checkpoint does not need it.",
    )
