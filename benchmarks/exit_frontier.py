"""What depth costs: loss against layers per token by each confidence, and the speed of decoding.

    python -m benchmarks.exit_frontier --checkpoint NAME --out rows.jsonl
    python -m benchmarks.exit_frontier --out rows.jsonl --plot docs/images/early-exit.svg

On the first half of the validation text the lowest threshold within each tolerance (nats per token
above all layers) is chosen; loss and depth are those of decoding at it on the second half.
`learned` gates are the checkpoint's own; for a checkpoint without them they are fitted to its
frozen weights on training text, which changes nothing but the choice. Times are of greedy decoding
in turns: all layers, early exit at 0.01 nats, and guesses ahead.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.early_exit import split_in_half
from benchmarks.exit_plot import plot
from holo_cli.data.batches import IGNORE, val_batches
from holo_cli.data.dataset import PreparedData
from holo_cli.errors import DataError, HoloError
from holo_cli.inference.generation.engine import Engine
from holo_cli.inference.generation.exit_protocol import NEVER, mean_depth
from holo_cli.inference.generation.loaded_model import LoadedModel, load
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.layers.norm import rms_norm
from holo_cli.models.brain_v1.exit_gates import ExitGates, exit_losses
from holo_cli.models.brain_v1.exits import exit_layers
from holo_cli.models.brain_v1.model import Model
from holo_cli.models.views import watched
from holo_cli.parsing import parse_json

KINDS = ("top1", "entropy", "learned")
TOLERANCES = (0.005, 0.01, 0.02, 0.05)
CHUNK = 2048  # tokens whose logits are held at a time
ROWS = 16  # at a time
PROMPT, NEW = 16, 96  # tokens of a timed text


def windows(text: Any, model: Model, end: int, tokens: int) -> tuple[Tensor, Tensor]:
    """The first tokens of a text in rows of the context, with their targets, (B, T) both."""
    rows = max(1, tokens // model.config.context)
    x, y = next(val_batches(text, model.config.context, rows, end))
    return x, y


@torch.no_grad()
def streams(model: Model, x: Tensor, layers: list[int]) -> Tensor:
    """The stream after each of `layers`, all layers passed, (E, B, T, C)."""
    model.exit_threshold = NEVER
    found = []
    for rows in x.split(ROWS):
        with watched(model.brain_blocks()) as calls:
            model.hidden(rows)
        found.append(torch.stack([calls[n][1][0] for n in layers]))
    return torch.cat(found, dim=1)


def fit_gates(model: Model, x: Tensor, steps: int) -> ExitGates:
    """Gates for a frozen model from training text (B, T), by `steps` of 1,024 tokens each."""
    torch.manual_seed(0)
    exits = exit_layers(model.config)
    gates = ExitGates(len(exits), model.config.width)
    *below, last = streams(model, x, [*exits, model.config.layers - 1]).flatten(1, 2)
    cost = [
        torch.cat(
            [exit_losses(*parts, model.head) for parts in zip(s.split(CHUNK), last.split(CHUNK))]  # noqa: B905
        )
        for s in below
    ]
    optimizer = torch.optim.AdamW(gates.parameters(), lr=0.01)
    for _ in range(steps):
        drawn = torch.randint(len(last), (1024,))
        optimizer.zero_grad()
        for n, s in enumerate(below):
            gates.misfit(n, s[drawn], cost[n][drawn]).backward()
        optimizer.step()
    return gates.requires_grad_(False)


@torch.no_grad()
def at_threshold(model: Model, x: Tensor, y: Tensor, threshold: float) -> tuple[float, float]:
    """(nats per token, layers per token) with tokens exiting as in decoding."""
    model.exit_threshold = threshold
    nats = depth = 0.0
    for rows, goal in zip(x.split(ROWS), y.split(ROWS), strict=True):
        stream, passed = model.with_exits(rows)
        logits = model.head(rms_norm(stream))
        nats += F.cross_entropy(
            logits.flatten(0, 1), goal.flatten(), ignore_index=IGNORE, reduction="sum"
        ).item()
        depth += passed[goal != IGNORE].sum().item()
    count = int((y != IGNORE).sum())
    return nats / count, depth / count


@torch.no_grad()
def choose(model: Model, x: Tensor, y: Tensor, below: Tensor) -> dict[float, float]:
    """The lowest threshold within each tolerance, from the streams `below` (E + 1, B, T, C) after
    the exits and the last layer. What tokens that left do to later keys is not counted here."""
    exits, scored = exit_layers(model.config), y.flatten() != IGNORE
    streams, goal = below.flatten(1, 2)[:, scored], y.flatten()[scored]
    nats = torch.stack(
        [
            torch.cat(
                [
                    F.cross_entropy(model.head(rms_norm(part)), target, reduction="none")
                    for part, target in zip(s.split(CHUNK), goal.split(CHUNK), strict=True)
                ]
            )
            for s in streams
        ]
    )  # (E + 1, N)
    sure = torch.stack(
        [
            torch.cat([model.confidence_after(n, part) for part in s.split(CHUNK)])
            for n, s in zip(exits, streams, strict=False)
        ]
    )  # (E, N)
    found = dict.fromkeys(TOLERANCES, NEVER)
    shares = torch.linspace(0, 1, 200, dtype=sure.dtype)
    for threshold in reversed(sure.flatten()[:: len(exits)].quantile(shares).tolist()):
        leaves = sure >= threshold
        first = torch.where(leaves.any(0), leaves.int().argmax(0), len(exits))
        more = (nats.gather(0, first[None])[0] - nats[-1]).mean().item()
        found |= {t: max(threshold, 1e-9) for t in TOLERANCES if more <= t}
    return found


def frontier(
    model: Model, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], below: Tensor
) -> dict[str, Any]:
    """What each tolerance buys: thresholds chosen on the first text, measured on the second."""
    full, _ = at_threshold(model, *second, NEVER)
    bought = {}
    for tolerance, threshold in choose(model, *first, below).items():
        loss, depth = at_threshold(model, *second, threshold)
        bought[str(tolerance)] = {
            "threshold": threshold,
            "depth": round(depth, 3),
            "share": round(depth / model.config.layers, 4),
            "more": round(loss - full, 4),
        }
    return {"full_loss": round(full, 4), "at": bought}


def spoken(
    engine: Engine, prompt: list[int], threshold: float, **given: Any
) -> tuple[float, float, list[int], Any]:
    """Tokens per second of wall clock and of processor time, the tokens, and the decoding, of one
    greedy text."""
    assert isinstance(engine.model, Model)
    engine.model.exit_threshold = threshold
    config = SamplingConfig(max_new_tokens=NEW, temperature=0.0, **given)
    decoding = engine.generate(prompt, config)
    wall, used = time.perf_counter(), time.process_time()
    for _ in decoding:
        pass
    wall, used = time.perf_counter() - wall, time.process_time() - used
    found = decoding.new_tokens(0)
    return len(found) / wall, len(found) / used, found, decoding


def speeds(
    loaded: LoadedModel, text: Any, exits: dict[str, float], repeats: int
) -> Iterator[dict[str, Any]]:
    """Speed of each form relative to all layers, in turns over the same prompts."""
    engine = Engine(loaded.model)
    forms: dict[str, tuple[float, dict[str, int]]] = {"all layers": (NEVER, {})}
    forms |= {f"exit {name}": (threshold, {}) for name, threshold in exits.items()}
    for layers in (1, 2):
        for tokens in (3, 6):
            name = f"guess with {layers}, {tokens} tokens"
            forms[name] = (NEVER, {"draft_layers": layers, "draft_tokens": tokens})
    turns: dict[str, list[float]] = {name: [] for name in forms}
    by_cpu: dict[str, list[float]] = {name: [] for name in forms}
    notes: dict[str, list[Any]] = {name: [] for name in forms}
    for turn in range(repeats + 1):
        at = turn * 200
        prompt = [int(t) for t in text[0][at : at + PROMPT]]
        whole: list[int] = []
        for name, (threshold, given) in forms.items():
            speed, cpu, found, decoding = spoken(engine, prompt, threshold, **given)
            whole = whole or found
            if turn:  # the first is to warm up
                turns[name].append(speed)
                by_cpu[name].append(cpu)
                counts = decoding.drafted
                notes[name].append(
                    (found == whole, counts and counts.accepted / max(1, counts.guessed),
                     mean_depth(decoding.state))
                )  # fmt: skip
    for name, measured in turns.items():
        same, accepted, depths = zip(*notes[name], strict=True)
        yield {
            "form": name,
            "tokens_per_second": round(statistics.median(measured), 1),
            "times_faster": _ratios(measured, turns["all layers"]),
            "tokens_per_cpu_second": round(statistics.median(by_cpu[name]), 1),
            "times_faster_cpu": _ratios(by_cpu[name], by_cpu["all layers"]),
            "same_text": sum(same),
            "texts": len(same),
            "accepted": None if accepted[0] is None else round(statistics.mean(accepted), 3),
            "depth": round(statistics.mean(depths), 3) if name.startswith("exit") else None,
        }  # fmt: skip


def _ratios(found: list[float], plain: list[float]) -> list[float]:
    """Median, least and most of the ratios turn by turn."""
    ratios = [a / b for a, b in zip(found, plain, strict=True)]
    return [round(r, 3) for r in (statistics.median(ratios), min(ratios), max(ratios))]


def measure(
    loaded: LoadedModel,
    data: PreparedData,
    *,
    tokens: int,
    fit: int,
    repeats: int,
    kinds: Sequence[str] = KINDS,
) -> dict[str, Any]:
    """The row of a checkpoint."""
    model, end = loaded.model.eval(), data.tokenizer.end
    if not isinstance(model, Model):
        raise DataError("Only brain-v1 has exits.", next_step="Give a checkpoint of brain-v1.")
    own, gates = model.config, model.exit_gates
    chosen_on, other = split_in_half(data.split("val"))
    row: dict[str, Any] = {
        "checkpoint": loaded.header.run,
        "layers": own.layers,
        "tokens": tokens,
        "exits": {"loss": own.exit_loss, "weights": own.exit_weights,
                  "every": own.exit_every, "layer_dropout": own.layer_dropout},
        "frontiers": {},
    }  # fmt: skip
    first, second = (windows(text, model, end, tokens) for text in (chosen_on, other))
    last = own.layers - 1
    threshold = NEVER
    for every in sorted({own.exit_every, 2}):
        model.config = own.model_copy(update={"exit_every": every})
        below = streams(model, first[0], [*exit_layers(model.config), last])
        for kind in kinds:
            update = {"exit_confidence": kind, "exit_every": every}
            model.config, model.exit_gates = own.model_copy(update=update), None
            if kind == "learned":
                text, _ = windows(data.split("train"), model, end, 16_384)
                model.exit_gates = gates or fit_gates(model, text, fit)
            found = frontier(model, first, second, below)
            row["frontiers"][f"{kind}, every {every}"] = found
            threshold = found["at"]["0.01"]["threshold"]
    row["speed"] = list(speeds(loaded, other, {"learned": threshold}, repeats))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", help="name of a run, or a file")
    parser.add_argument("--data", type=Path, help="prepared set (default: the checkpoint's own)")
    parser.add_argument("--out", type=Path, required=True, help="rows, one JSON object a line")
    parser.add_argument("--plot", type=Path, help="draw the rows of --out as this SVG file")
    parser.add_argument("--tokens", type=int, default=8192, help="of each half (%(default)s)")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="confidences")
    parser.add_argument("--fit", type=int, default=400, help="steps of the gates (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns (%(default)s)")
    asked = parser.parse_args()
    from holo_cli.experiment.machine import describe_machine

    try:
        if asked.checkpoint:
            loaded = load(asked.checkpoint, device="cpu")
            path = asked.data or loaded.header.data.path
            if not path:
                raise DataError("The checkpoint names no data.", next_step="Add --data FOLDER.")
            row = measure(
                loaded, PreparedData.open(path), tokens=asked.tokens, fit=asked.fit,
                repeats=asked.repeats, kinds=asked.kinds,
            )  # fmt: skip
            row |= {"data": Path(path).name, "date": datetime.date.today().isoformat()}
            row |= {"machine": describe_machine()}
            with asked.out.open("a", encoding="utf-8") as rows:
                rows.write(json.dumps(row) + "\n")
        if asked.plot:
            lines = asked.out.read_text(encoding="utf-8").splitlines()
            asked.plot.write_text(plot([parse_json(line) for line in lines]), encoding="utf-8")
    except HoloError as error:
        parser.error(" ".join(filter(None, (error.message, error.next_step))))


if __name__ == "__main__":
    main()
