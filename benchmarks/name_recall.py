"""One-shot recall of names after filler: brain-v2 with its episodic memory and with zeros in it.

    python benchmarks/name_recall.py --seeds 3

A tiny brain-v2 is trained on generated sequences that name a few people once, in any order,
followed by filler and a question for one of the names:

    tell ann 7   tell bob 3   . . . . (filler) . . . .   ask bob -> 3

Names are sampled for every sequence, so the weights cannot contain them: a correct answer was
learned from one example. The prompt is read up to the question, and the question is answered three
times from the same state: unchanged, with the episodic memories set to zero, and with the state
spaces set to zero. Prints one JSON row for each seed and length of filler, also lengths longer than
those trained on. A small version is a test.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holo_cli.config.training_schema import TrainingConfig
from holo_cli.data.batches import IGNORE
from holo_cli.models.backbone import BackboneState
from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.mixer import BrainMixerState
from holo_cli.models.brain_v2.model import Model
from holo_cli.tasks import TaskCase
from holo_cli.tasks.names import NameRecall
from holo_cli.tasks.train import TEST, TRAIN
from holo_cli.training.loss import cross_entropy
from holo_cli.training.optim import Optimizer

TELL, ASK = NameRecall.tell, NameRecall.ask
FILLER_LENGTHS = (40, 80, 200, 400)  # tokens


@dataclass(frozen=True)
class FillerRows:
    """Rows of the task `name-recall` of `holo bench recall`, by the length of their filler."""

    told: int = 3  # people in a sequence
    vocabulary: int = 50

    @property
    def rows(self) -> NameRecall:
        return NameRecall(self.vocabulary)

    def draw(self, rows: int, filler: int, seed: int, stream: int = TRAIN) -> tuple[Tensor, Tensor]:
        """Prompts with their question, (rows, 3 told + filler + 2) int64, and answers, (rows,)."""
        case = TaskCase(3 * self.told + filler + 2, self.told)
        x, y = self.rows.sample(np.random.default_rng([stream, seed]), rows, case)
        return torch.from_numpy(x), torch.from_numpy(y[:, -1].copy())


def make_model(task: FillerRows, **given: Any) -> Model:
    """A tiny brain-v2 without attention: state spaces, and a memory in each layer."""
    settings: dict[str, Any] = {
        "layers": 2, "heads": 2, "width": 48, "mlp_ratio": 2.0, "context": 512,
        "attention_every": 0, "memory_every": 1, "memory_heads": 2, "tied": False,
        "layout": "added",
    }  # fmt: skip
    return Model(Config(vocab_size=task.vocabulary, **{**settings, **given}))


def training_losses(
    model: Model, task: FillerRows, *, steps: int, rows: int, longest: int, seed: int
) -> Iterator[float]:
    """Train on filler whose length grows up to `longest` tokens; yields each loss."""
    rates: dict[str, Any] = {"lr": 0.02, "adam_lr": 0.01}
    optimizer = Optimizer(model, TrainingConfig(**rates), fast_bf16=False)
    model.train()
    for step in range(steps):
        optimizer.set_lr(min(1.0, (step + 1) / 20, (steps - step) / (0.4 * steps)))
        filler = 2 + int((longest - 2) * min(1.0, step / (0.7 * steps)))
        tokens, answers = task.draw(rows, filler, seed=seed * 1_000_000 + step)
        target = torch.full_like(tokens, IGNORE)
        target[:, -1] = answers
        hidden, aux = model.hidden(tokens)
        loss = cross_entropy(hidden, model.head, target)
        (loss + sum(aux.values(), torch.zeros(()))).backward()
        optimizer.step()
        model.zero_grad()
        yield loss.item()


def without(state: BackboneState, part: str) -> BackboneState:
    """The state with the memories ("memory") or the state spaces ("ssm") set to zero."""
    mixers = []
    for mixer in state.mixers:
        assert isinstance(mixer, BrainMixerState)
        if part == "memory" and mixer.memory is not None:
            zero = torch.zeros_like(mixer.memory.memory)
            mixer = replace(mixer, memory=replace(mixer.memory, memory=zero))
        if part == "ssm" and mixer.ssm is not None:
            zero = torch.zeros_like(mixer.ssm.state)
            mixer = replace(mixer, ssm=replace(mixer.ssm, state=zero))
        mixers.append(mixer)
    return replace(state, mixers=tuple(mixers))


@torch.inference_mode()
def measure(
    model: Model, task: FillerRows, filler: int, *, rows: int, seed: int
) -> dict[str, float]:
    """Share of correct answers after this much filler, unchanged and with a part set to zero."""
    model.eval()
    tokens, answers = task.draw(rows, filler, seed=seed, stream=TEST)
    _, state = model.step(tokens[:, :-2], model.init_state(rows))
    assert isinstance(state, BackboneState)
    found = {}
    states = {
        "accuracy": state,
        "memory_zeroed": without(state, "memory"),
        "ssm_zeroed": without(state, "ssm"),
    }
    for name, begin in states.items():
        logits, _ = model.step(tokens[:, -2:], begin)
        found[name] = (logits[:, -1].argmax(1) == answers).double().mean().item()
    return found


def run(seed: int, *, steps: int = 300, rows: int = 32, longest: int = 40) -> list[dict[str, Any]]:
    """Train and measure one model; returns a row for each length of filler."""
    task = FillerRows()
    torch.manual_seed(seed)
    model = make_model(task)
    losses = list(training_losses(model, task, steps=steps, rows=rows, longest=longest, seed=seed))
    about = {
        "model": "brain-v2", "seed": seed, "steps": steps, "rows": rows, "trained_filler": longest,
        "parameters": sum(p.numel() for p in model.parameters()), "loss": losses[-1],
        "state_bytes": model.state_bytes(1), "chance": task.rows.chance,
    }  # fmt: skip
    return [
        {**about, "filler": filler, **measure(model, task, filler, rows=500, seed=seed)}
        for filler in FILLER_LENGTHS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default=1, type=int, help="runs (default: %(default)s)")
    parser.add_argument("--steps", default=300, type=int, help="of training (default: %(default)s)")
    parser.add_argument(
        "--longest", default=40, type=int,
        help="tokens of filler in training, at most (default: %(default)s)",
    )  # fmt: skip
    asked = parser.parse_args()
    from holo_cli.experiment.machine import machine_line

    for seed in range(asked.seeds):
        for row in run(seed, steps=asked.steps, longest=asked.longest):
            print(json.dumps({**row, "machine": machine_line()}), flush=True)


if __name__ == "__main__":
    main()
