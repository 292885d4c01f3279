"""How many units of brain-v1 fire, and at what loss.

    python -m benchmarks.brain_activity --data data/shakespeare --seeds 1

Trains a small brain-v1 (3 layers, 96 wide, context 64, 400 steps of 12 sequences) in each form and
prints a JSON row for each: the validation loss in nats per token and the share of units that are
not zero.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.config.training_schema import TrainingConfig
from holo_cli.data.dataset import PreparedData
from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.diagnostics import feeding
from holo_cli.models.brain_v1.model import Model
from holo_cli.training.optim import Optimizer

CONTEXT, BATCH, STEPS, SCORED = 64, 12, 400, 40_000
FORMS: dict[str, dict[str, Any]] = {
    "relu": {"activation": "relu"},
    "signed": {},
    "both-relu": {"activation": "relu", "sparsity": "both", "columns_kept": 4},
    "kwta": {"sparsity": "kwta"},
}


def trained(form: str, data: PreparedData, seed: int, steps: int) -> dict[str, Any]:
    """A form trained from scratch -> its row."""
    started = time.perf_counter()
    text = torch.from_numpy(data.split("train")[0].astype("int64"))
    torch.manual_seed(seed)
    shape = {"vocab_size": data.tokenizer.vocab_size, "layers": 3, "heads": 3, "width": 96}
    model = Model(Config(**{**shape, "context": CONTEXT, **FORMS[form]})).train()
    rates: dict[str, Any] = {}  # those of the recipe
    optimizer = Optimizer(model, TrainingConfig(**rates), fast_bf16=False)
    make = torch.Generator().manual_seed(seed)
    for step in range(steps):
        at = torch.randint(len(text) - CONTEXT - 1, (BATCH,), generator=make)
        optimizer.set_lr(min(1.0, (step + 1) / 25) * min(1.0, 2 * (steps - step) / steps))
        tokens = torch.stack([text[a : a + CONTEXT + 1] for a in at.tolist()])
        hidden = model.hidden(tokens[:, :-1])
        (_nats(model, hidden.x, tokens) + sum(hidden.aux.values())).backward()
        optimizer.step()
        model.zero_grad()
    model.eval()
    held = torch.from_numpy(data.split("val")[0].astype("int64"))
    rows = min(SCORED, len(held)) // (CONTEXT + 1)
    held = held[: rows * (CONTEXT + 1)].view(rows, -1)
    with torch.no_grad():
        found = {"form": form, "seed": seed, "steps": steps, "loss": _loss(model, held)}
        sent = [part.unit_outputs(x)[0] for part, x in feeding(model, held[:64, :-1])]
        found["fires"] = round(sum((s != 0).float().mean().item() for s in sent) / len(sent), 5)
    return found | {"seconds": round(time.perf_counter() - started)}


def _nats(model: Model, x: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model.head(x).float().flatten(0, 1), tokens[:, 1:].flatten())


def _loss(model: Model, held: Tensor) -> float:
    parts = held.split(64)
    total = sum(_nats(model, model.hidden(p[:, :-1]).x, p).item() * len(p) for p in parts)
    return round(total / len(held), 4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of a prepared set")
    parser.add_argument("--form", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... (default: 1)")
    parser.add_argument("--steps", type=int, default=STEPS, help="default: %(default)s")
    asked = parser.parse_args()
    data = PreparedData.open(asked.data)
    for seed in range(asked.seeds):
        for form in asked.form:
            print(json.dumps(trained(form, data, seed, asked.steps)), flush=True)


if __name__ == "__main__":
    main()
