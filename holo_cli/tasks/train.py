"""One run of `holo bench recall`: train on a task's rows, then count correct answers.

The trainer is that of `holo train`; only the batches differ: rows are generated, each a pure
function of the seed and its number, and test rows come from a random stream of their own. Where a
task has many possible rows none occurs twice; where it has few (a small vocabulary, one item) some
test rows were also trained on.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holo_cli.config.resolve import Resolved
from holo_cli.data.batches import IGNORE, TrainBatches
from holo_cli.errors import Stopped, UsageError
from holo_cli.models.base import LanguageModel
from holo_cli.tasks import TaskCase
from holo_cli.tasks.base import Allowed
from holo_cli.tasks.compressor import Compressor
from holo_cli.tasks.spec import TaskSpec
from holo_cli.training.build import build_trainer, new_model
from holo_cli.training.memory_estimate import peak_rss_bytes
from holo_cli.training.precision import autocast

TRAIN, TEST = 0, 1  # separate random streams
WINDOW = 20  # steps over which the loss must stay low before a run ends early
TEST_TOKENS = 16_384  # tokens in a forward pass of the test
CACHED = 8  # batches that are kept: about those of a step
Events = Callable[[dict[str, Any]], None]


class TaskBatches(TrainBatches):
    """Rows of a task's trained cases, which alternate from batch to batch."""

    def __init__(self, spec: TaskSpec, seed: int, batch: int) -> None:
        super().__init__([np.zeros(spec.context + 1, dtype=np.int64)], spec.context, seed)
        self.spec, self.batch = spec, batch
        self._made: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()

    def _case(self, number: int) -> TaskCase:
        """The case of row `number`."""
        return self.spec.train[number // self.batch % len(self.spec.train)]

    def scored(self, first: int, count: int) -> int:
        """Number of answers in rows first .. first + count - 1, which are whole batches."""
        assert first % self.batch == 0 == count % self.batch
        starts = range(first, first + count, self.batch)
        return sum(int((self._rows(n)[1] != IGNORE).sum()) for n in starts)

    def take(
        self, count: int, rank: int = 0, world: int = 1, *, together: bool = False
    ) -> tuple[Tensor, Tensor]:
        """x and y, each (count, T) int64, with T of the batch's case; of one process only."""
        assert count == self.batch
        assert (rank, world) == (0, 1)
        rows = self._rows(self.position)
        self.position += count
        return rows

    def _rows(self, first: int) -> tuple[Tensor, Tensor]:
        """The batch that begins with row `first`. Cached, since a step counts the answers of its
        batches before it takes them."""
        if first not in self._made:
            rng = np.random.default_rng([TRAIN, self.seed, first])
            x, y = self.spec.task.sample(rng, self.batch, self._case(first))
            self._made[first] = torch.from_numpy(x), torch.from_numpy(y)
            if len(self._made) > CACHED:
                self._made.popitem(last=False)
        return self._made[first]


def train_on_task(job: dict[str, Any], events: Events) -> dict[str, Any]:
    """Train and test one entry on one task. Raises Stopped on request: such a run starts over."""
    started = time.perf_counter()
    resolved, spec = Resolved.from_dict(job["resolved"]), TaskSpec.from_dict(job["spec"])
    config = resolved.training
    model = new_model(resolved)
    grows = bool(resolved.model.stages())  # such a model is not solved before it is whole
    if spec.task.decoded:
        model = Compressor.of(model, max(case.items for case in spec.cases))
    batches = TaskBatches(spec, config.seed, config.batch_size)
    trainer = build_trainer(resolved, model, batches, events=events)
    progress = trainer.progress
    losses: list[list[float]] = []
    recent: deque[float] = deque(maxlen=WINDOW)
    ended = "steps"
    with trainer.stop.on_signals():
        while progress.step < config.steps:
            before = progress.logged_loss
            if not trainer.step():
                raise Stopped("Stopped.")
            recent.append(progress.logged_loss - before)
            if progress.step % config.log_every == 0 or progress.step == config.steps:
                loss = sum(recent) / len(recent)
                losses.append([progress.step, loss, progress.train_seconds])
                events({
                    "event": "train", "step": progress.step, "steps": config.steps, "loss": loss,
                })  # fmt: skip
            if not grows and len(recent) == WINDOW and max(recent) < job["solved"]:
                ended = "solved"
                break
    model = trainer.model  # it may have grown
    cases = [
        score_case(model, spec, case, job["sequences"], config.seed, trainer.dtype)
        for case in spec.cases
    ]
    described = model.describe()
    return {
        "cases": cases,
        "losses": losses,
        "steps": progress.step,
        "sequences": progress.step * config.batch_size * config.grad_accum,
        "stopped_by": ended,
        "train_seconds": round(progress.train_seconds, 3),
        "seconds": round(time.perf_counter() - started, 3),  # including the test
        "parameters": described.parameters,
        "active_parameters": described.active_parameters,
        "peak_rss_bytes": peak_rss_bytes(),
        "threads": torch.get_num_threads(),
    }


def fresh_rows(
    spec: TaskSpec, case: TaskCase, sequences: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The test rows of a case: batches of x and y, each (B, T) int64."""
    for x, y, _ in _graded_rows(spec, case, sequences, seed):
        yield x, y


def _graded_rows(
    spec: TaskSpec, case: TaskCase, sequences: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Allowed | None]]:
    """x and y of `fresh_rows`, and the answers that also count as correct: (B, T, V) or None."""
    rng = np.random.default_rng([TEST, seed, *case])
    rows = max(1, TEST_TOKENS // case.length)
    for start in range(0, sequences, rows):
        x, y, allowed = spec.task.graded(rng, min(rows, sequences - start), case)
        yield torch.from_numpy(x), torch.from_numpy(y), allowed


def score_case(
    model: LanguageModel,
    spec: TaskSpec,
    case: TaskCase,
    sequences: int,
    seed: int,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Share of correct answers over the test rows of a case, as a dict.

    A case longer than the model can read has accuracy None and an error.
    """
    row: dict[str, Any] = {
        "length": case.length,
        "items": case.items,
        "trained": case in spec.train,
        "state_bytes": model.state_bytes(case.length),
        "accuracy": None,
    }
    correct = asked = 0
    model.eval()
    try:
        with torch.inference_mode(), autocast(model.device, dtype):
            for x, y, allowed in _graded_rows(spec, case, sequences, seed):
                x, y = x.to(model.device), y.to(model.device)
                scored = y != IGNORE
                # only at scored positions: logits of all positions would be large
                predicted = model.head(model.hidden(x).x[scored]).argmax(-1)
                if allowed is None:
                    correct += int((predicted == y[scored]).sum())
                else:
                    found = torch.from_numpy(allowed).to(model.device)[scored]
                    correct += int(found.gather(1, predicted[:, None]).sum())
                asked += int(scored.sum())
    except UsageError as error:
        return row | {"error": str(error)}
    return row | {"accuracy": correct / asked, "right": correct, "asked": asked}
