"""Curvature as compression: coordinates that ngt needs in curved and in flat space for equal loss.

    python benchmarks/curvature.py --out curvature.jsonl
    python benchmarks/curvature.py --out curvature.jsonl --summary

Tiny ngt models with the kernel `lorentz` (curved) and its flat limit `gaussian`, equal in all else,
from the same initial weights and on the same batches, at several numbers of coordinates. Texts:

    tree      facts "leaf value" about the 64 leaves of a binary tree, in random order. Values are
              inherited from the parent with probability 0.8, and drawn again in each row: what is
              known of a leaf is what its near relatives in the tree were said to be
    flat      the same with 64 leaves under one root: no hierarchy; the control
    brackets  nested brackets of 8 types, at most 8 deep

For each cell the learning rate is swept on seeds of its own, then fresh seeds run at the best. Loss
is in nats per predicted token (values only for `tree` and `flat`), above the floor: the exact
cross-entropy of the process that made the text. Each run appends a row to `--out`; stop at any
time, and the same command continues.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holo_cli.config.training_schema import TrainingConfig
from holo_cli.data.batches import IGNORE
from holo_cli.experiment.significance import t_quantile
from holo_cli.models.ngt.config import Config
from holo_cli.models.ngt.model import Model
from holo_cli.parsing import parse_json
from holo_cli.training.loss import cross_entropy
from holo_cli.training.optim import Optimizer

TEXTS = ("tree", "flat", "brackets")
KERNELS = ("lorentz", "gaussian")
COORDS = (2, 4, 8)
RATES = (1.0, 2.0, 4.0, 8.0)  # multiples of lr 0.02 (matrices) and 0.01 (the rest)
SWEEP_SEEDS = (1001, 1002)
LEAVES, VALUES, KEEP = 64, 8, 0.8  # of `tree` and `flat`
TYPES, DEEPEST = 8, 8  # of `brackets`
PAIRS = 48  # facts in a row; rows of `brackets` are as long, 96 tokens
TEST_ROWS, TEST_SEED = 256, -1


class Text(NamedTuple):
    """Inputs and targets (B, T) int64; `floor` is the mean cross-entropy of the process itself."""

    tokens: Tensor
    target: Tensor
    floor: float


def levels(text: str) -> list[int]:
    """Children of each node, level by level from the root; their product is LEAVES."""
    return [2] * int(math.log2(LEAVES)) if text == "tree" else [LEAVES]


def facts(text: str, rows: int, seed: int, *, floor: bool = False) -> Text:
    """Rows of PAIRS facts about leaves; the floor is exact inference on the tree."""
    make = torch.Generator().manual_seed(seed)
    value = torch.randint(0, VALUES, (rows, 1), generator=make)
    for children in levels(text):
        value = value.repeat_interleave(children, dim=1)
        kept = torch.rand(value.shape, generator=make) < KEEP
        value = torch.where(kept, value, torch.randint(0, VALUES, value.shape, generator=make))
    leaf = torch.randint(0, LEAVES, (rows, PAIRS), generator=make)
    said = value.gather(1, leaf)
    tokens = torch.stack((leaf, LEAVES + said), dim=2).flatten(1)
    target = torch.full_like(tokens, IGNORE)
    target[:, ::2] = tokens[:, 1::2]
    return Text(tokens, target, _tree_floor(text, leaf, said) if floor else math.nan)


def _tree_floor(text: str, leaf: Tensor, said: Tensor) -> float:
    """Mean of -log p(value | facts before it), by messages from the leaves and from the root."""
    rows = torch.arange(len(leaf))
    known = torch.ones(len(leaf), LEAVES, VALUES, dtype=torch.float64)
    nats = torch.zeros((), dtype=torch.float64)
    for t in range(PAIRS):
        up, tree = [known], levels(text)
        for children in reversed(tree):  # what each subtree says of its parent's value
            up.append(_inherit(up[-1]).unflatten(1, (-1, children)).prod(2))
        down = torch.ones_like(up[-1])
        for below, children in zip(reversed(up[:-1]), tree, strict=True):
            sent = _inherit(below).unflatten(1, (-1, children))
            others = sent.prod(2, keepdim=True) / sent  # messages are never zero: KEEP < 1
            down = _inherit((down[:, :, None] * others).flatten(1, 2))
            down = down / down.sum(2, keepdim=True)
        p = (down * known)[rows, leaf[:, t]]
        nats -= (p / p.sum(1, keepdim=True))[rows, said[:, t]].log().mean()
        known[rows, leaf[:, t]] = torch.nn.functional.one_hot(said[:, t], VALUES).double()
    return nats.item() / PAIRS


def _inherit(message: Tensor) -> Tensor:
    """A message (..., V) through an edge; the matrix is symmetric, so up and down alike."""
    return KEEP * message + (1 - KEEP) / VALUES * message.sum(-1, keepdim=True)


def brackets(rows: int, seed: int) -> Text:
    """Rows of nested brackets: token t opens type t, token TYPES + t closes it."""
    make = torch.Generator().manual_seed(seed)
    length = 2 * PAIRS + 1
    opens = torch.rand(rows, length, generator=make) < 0.5
    kinds = torch.randint(0, TYPES, (rows, length), generator=make)
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    stack = torch.zeros(rows, DEEPEST + 1, dtype=torch.int64)
    depth, every = torch.zeros(rows, dtype=torch.int64), torch.arange(rows)
    nats = 0.0
    for t in range(length):
        free = (depth > 0) & (depth < DEEPEST)
        goes = (depth == 0) | (free & opens[:, t])
        token = torch.where(goes, kinds[:, t], TYPES + stack[every, depth])
        if t:
            nats += (free * math.log(2) + goes * math.log(TYPES)).mean().item()
        depth = depth + torch.where(goes, 1, -1)
        stack[every[goes], depth[goes]] = kinds[goes, t]
        tokens[:, t] = token
    return Text(tokens[:, :-1], tokens[:, 1:], nats / (length - 1))


def draw(text: str, rows: int, seed: int, *, floor: bool = False) -> Text:
    """Rows of one of TEXTS; the floor of `tree` and `flat` is NaN unless asked for."""
    return brackets(rows, seed) if text == "brackets" else facts(text, rows, seed, floor=floor)


def make_model(text: str, kernel: str, coords: int) -> Model:
    """Two heads at least: the points of a single head all have one norm, where space is flat."""
    settings: dict[str, Any] = {
        "layers": 2, "heads": 2, "width": 32, "mlp_ratio": 2.0, "context": 2 * PAIRS, "conv": 2,
        "kernel": kernel, "coords": coords,
        # the order of facts says nothing, that of brackets everything
        "rope_fraction": 1.0 if text == "brackets" else 0.0,
        "vocab_size": 2 * TYPES if text == "brackets" else LEAVES + VALUES,
    }  # fmt: skip
    return Model(Config(**settings))


def run(
    text: str,
    kernel: str,
    coords: int,
    rate: float,
    seed: int,
    *,
    steps: int,
    rows: int,
    test: Text,
) -> dict[str, Any]:
    """Train one model on fresh batches; returns its row."""
    began = time.process_time()
    torch.manual_seed(seed)
    model = make_model(text, kernel, coords)
    rates: dict[str, Any] = {"lr": 0.02 * rate, "adam_lr": 0.01 * rate}
    optimizer = Optimizer(model, TrainingConfig(**rates), fast_bf16=False)
    model.train()
    for step in range(steps):
        optimizer.set_lr(min(1.0, (step + 1) / 20, (steps - step) / (0.5 * steps)))
        batch = draw(text, rows, seed * 1_000_000 + step)
        loss = cross_entropy(model.hidden(batch.tokens).x, model.head, batch.target)
        loss.backward()
        optimizer.step()
        model.zero_grad()
    model.eval()
    with torch.inference_mode():
        held = cross_entropy(model.hidden(test.tokens).x, model.head, test.target).item()
    figures = model.measures(test.tokens)
    beta = [value for name, value in figures.items() if name.endswith("/beta")]
    return {
        "text": text, "kernel": kernel, "coords": coords, "rate": rate, "seed": seed,
        "steps": steps, "rows": rows, "loss": held, "floor": test.floor,
        "beta": statistics.fmean(beta) if beta else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.process_time() - began, 2),
    }  # fmt: skip


RunKey = tuple[str, str, int, float, int]


def stored(out: Path) -> dict[RunKey, dict[str, Any]]:
    """The finished runs, by text, kernel, coordinates, rate and seed."""
    if not out.exists():
        return {}
    rows = [parse_json(line) for line in out.read_text(encoding="utf-8").splitlines() if line]
    return {(r["text"], r["kernel"], r["coords"], r["rate"], r["seed"]): r for r in rows}


def best_rate(
    done: dict[RunKey, dict[str, Any]],
    text: str,
    kernel: str,
    coords: int,
    rates: Sequence[float] = RATES,
) -> float | None:
    """The rate of least mean loss over the sweep's seeds; None while a run is missing."""
    means = {}
    for rate in rates:
        keys = [(text, kernel, coords, rate, seed) for seed in SWEEP_SEEDS]
        if any(key not in done for key in keys):
            return None
        means[rate] = statistics.fmean(done[key]["loss"] for key in keys)
    return min(means, key=lambda rate: means[rate])


def runs_to_do(
    done: dict[RunKey, dict[str, Any]],
    texts: list[str],
    coords: list[int],
    seeds: int,
    rates: Sequence[float] = RATES,
) -> Iterator[RunKey]:
    """Runs to do, one at a time; `done` is read again after each, since the sweep decides."""
    for text in texts:
        for kernel in KERNELS:
            for d in coords:
                for rate in rates:
                    for seed in SWEEP_SEEDS:
                        if (text, kernel, d, rate, seed) not in done:
                            yield text, kernel, d, rate, seed
        for seed in range(seeds):
            for kernel in KERNELS:
                for d in coords:
                    best = best_rate(done, text, kernel, d, rates)
                    assert best is not None
                    if (text, kernel, d, best, seed) not in done:
                        yield text, kernel, d, best, seed


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and the half-width of its 95 % interval by Student's t; NaN with fewer than two."""
    if len(values) < 2:
        return statistics.fmean(values), math.nan
    half = t_quantile(0.95, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), half


def summary(done: dict[RunKey, dict[str, Any]], rates: Sequence[float] = RATES) -> str:
    """Markdown: excess loss by text and coordinates, and curved minus flat, paired by seed."""
    lines = [
        "| text | coordinates | curved, above the floor | flat | curved - flat | seeds | beta |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for text in TEXTS:
        for d in sorted({key[2] for key in done if key[0] == text}):
            loss: dict[str, dict[int, float]] = {}
            chosen, betas = {}, []
            for kernel in KERNELS:
                best = best_rate(done, text, kernel, d, rates)
                found = [
                    row for key, row in done.items()
                    if key[:4] == (text, kernel, d, best) and key[4] not in SWEEP_SEEDS
                ]  # fmt: skip
                loss[kernel] = {row["seed"]: row["loss"] - row["floor"] for row in found}
                chosen[kernel] = best
                betas += [row["beta"] for row in found if row["beta"] is not None]
            both = sorted(set(loss["lorentz"]) & set(loss["gaussian"]))
            if not both:
                continue
            cells = [
                "{:.4f} ± {:.4f}".format(*interval([loss[kernel][seed] for seed in both]))
                + f" (rate x {chosen[kernel]:g})"
                for kernel in KERNELS
            ]
            gap = interval([loss["lorentz"][s] - loss["gaussian"][s] for s in both])
            cells += ["{:+.4f} ± {:.4f}".format(*gap), str(len(both))]
            cells.append(f"{statistics.fmean(betas):.2f}" if betas else "")
            lines.append(f"| {text} | {d} | " + " | ".join(cells) + " |")
    floors = {key[0]: row["floor"] for key, row in done.items()}
    lines += ["", *(f"Floor of {text}: {floor:.4f} nats." for text, floor in floors.items())]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="curvature.jsonl", type=Path, help="rows (%(default)s)")
    parser.add_argument(
        "--texts", nargs="+", default=["tree", "brackets"], choices=TEXTS,
        help="(default: tree brackets)",
    )  # fmt: skip
    parser.add_argument(
        "--coords", nargs="+", default=list(COORDS), type=int,
        help="coordinates per head, even (default: 2 4 8)",
    )  # fmt: skip
    parser.add_argument("--seeds", default=6, type=int, help="fresh seeds (default: %(default)s)")
    parser.add_argument("--steps", default=300, type=int, help="of training (default: %(default)s)")
    parser.add_argument("--rows", default=16, type=int, help="of a batch (default: %(default)s)")
    parser.add_argument(
        "--rates", nargs="+", default=list(RATES), type=float,
        help="of the sweep, as multiples (default: 1 2 4 8)",
    )  # fmt: skip
    parser.add_argument("--summary", action="store_true", help="print the tables of `--out`")
    asked = parser.parse_args()
    done = stored(asked.out)
    if asked.summary:
        print(summary(done, asked.rates))
        return
    tests = {text: draw(text, TEST_ROWS, TEST_SEED, floor=True) for text in asked.texts}
    sweep = (asked.texts, asked.coords, asked.seeds, asked.rates)
    while (key := next(runs_to_do(done, *sweep), None)) is not None:
        row = run(*key, steps=asked.steps, rows=asked.rows, test=tests[key[0]])
        with asked.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        done[key] = row
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
