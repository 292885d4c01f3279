"""What brain-v1 loses by each way of choosing the units that fire.

    python -m benchmarks.brain_selection --data data/docs --out rows.jsonl --seeds 0 1 2

Trains a small brain-v1 (2 layers, 64 wide, context 64, 400 steps of 8 sequences) in each form, all
on the same text in the same order, and adds a JSON row for each to `--out`: the validation loss in
nats per token and the processor time of the training. Rows that are there already are not made
again, so the command can be stopped and repeated. `holo bench compare --preset brain-v1-selection`
is the same at a million parameters.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.config.training_schema import TrainingConfig
from holo_cli.data.dataset import PreparedData
from holo_cli.experiment.machine import describe_machine
from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.model import Model
from holo_cli.parsing import parse_json
from holo_cli.training.optim import Optimizer
from holo_cli.training.precision import autocast, pick_dtype

ROUTED: dict[str, Any] = {"sparsity": "columns"}
FORMS: dict[str, dict[str, Any]] = {
    "dense": {"sparsity": "dense"},
    "dense-active": {"sparsity": "dense", "mlp_ratio": 0.25, "columns": 1},
    "self": {"sparsity": "self"},
    "self-quarter": {"sparsity": "self", "selection_inputs": 0.25},
    "self-all": {"sparsity": "self", "selection_inputs": 1.0},
    "self-fine": {"sparsity": "self", "columns": 160},
    "self-both": {"sparsity": "self", "columns": 20, "columns_kept": 2},
    "columns": ROUTED,
    "columns-fine": {**ROUTED, "columns": 160},
    "columns-sigmoid": {**ROUTED, "gate": "sigmoid"},
    "columns-shared": {**ROUTED, "columns": 80, "shared_columns": 1},
    "kwta": {"sparsity": "kwta"},
}
SCORED = 30_000  # tokens of validation text, from all over it
SHAPE = {"width": 64, "layers": 2, "context": 64, "batch": 8, "steps": 400}
SAME = ("form", "seed", "data", *SHAPE, "rate")  # rows that agree in these are of one run


def trained(form: str, data: PreparedData, seed: int, rate: float, size: dict[str, int]) -> float:
    """Train a form from scratch -> its loss on validation text, nats per token."""
    context, steps, cpu = size["context"], size["steps"], torch.device("cpu")
    dtype = pick_dtype("auto", cpu)
    text = torch.from_numpy(data.split("train")[0].astype("int64"))
    torch.manual_seed(seed)
    shape = {"layers": size["layers"], "width": size["width"], "heads": max(1, size["width"] // 32)}
    shape |= {"vocab_size": data.tokenizer.vocab_size, "context": context, "conv": 4}
    model = Model(Config(**{**shape, **FORMS[form]})).train()
    rates = TrainingConfig.model_validate({})
    recipe = rates.model_copy(update={"lr": rates.lr * rate, "adam_lr": rates.adam_lr * rate})
    optimizer = Optimizer(model, recipe, fast_bf16=False)
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        starts = torch.randint(len(text) - context - 1, (size["batch"],), generator=draw)
        optimizer.set_lr(min(1.0, (step + 1) / 25) * min(1.0, 2 * (steps - step) / steps))
        tokens = _windows(text, starts, context)
        with autocast(cpu, dtype):
            hidden = model.hidden(tokens[:, :-1])
            loss = _nats(model, hidden.x, tokens)
        (loss + sum(hidden.aux.values())).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.zero_grad()
    model.eval()
    held = torch.from_numpy(data.split("val")[0].astype("int64"))
    rows = min(SCORED, len(held)) // (context + 1)
    held = _windows(held, torch.linspace(0, len(held) - context - 1, rows).long(), context)
    with torch.no_grad(), autocast(cpu, dtype):
        parts = [_nats(model, model.hidden(p[:, :-1]).x, p) * len(p) for p in held.split(64)]
    return torch.stack(parts).sum().item() / len(held)


def _windows(text: Tensor, starts: Tensor, context: int) -> Tensor:
    return torch.stack([text[start : start + context + 1] for start in starts.tolist()])


def _nats(model: Model, x: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model.head(x).float().flatten(0, 1), tokens[:, 1:].flatten())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of a prepared set")
    parser.add_argument("--out", required=True, type=Path, help="file of rows; existing ones stay")
    parser.add_argument("--form", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rate", type=float, default=2.0, help="factor on the learning rates")
    for key, value in SHAPE.items():
        parser.add_argument(f"--{key}", type=int, default=value, help="default: %(default)s")
    asked = parser.parse_args()
    data = PreparedData.open(asked.data)
    size = {key: getattr(asked, key) for key in SHAPE}
    made = asked.out.read_text(encoding="utf-8").splitlines() if asked.out.exists() else []
    done = {tuple(row.get(key) for key in SAME) for row in map(parse_json, made)}
    for seed in asked.seeds:
        for form in asked.form:
            row = {"form": form, "seed": seed, "data": Path(asked.data).name, "rate": asked.rate}
            row |= size
            if tuple(row[key] for key in SAME) in done:
                continue
            started = time.process_time()
            loss = round(trained(form, data, seed, asked.rate, size), 4)
            row |= {"loss": loss, "cpu_seconds": round(time.process_time() - started, 1)}
            line = json.dumps(row | {"machine": describe_machine()})
            print(line, flush=True)
            with asked.out.open("a", encoding="utf-8") as out:
                out.write(line + "\n")


if __name__ == "__main__":
    main()
