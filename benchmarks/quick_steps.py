"""Decoding steps as they are and as the backbone makes them, beside vanilla's.

    python -m benchmarks.quick_steps --rounds 5
    python -m benchmarks.quick_steps --layers 4 --width 128 --heads 4 --vocab 2048 --rounds 7

Processor milliseconds of one step of one row on one thread, weights relaid as for a loaded
checkpoint. Forms take turns within a round, so that a ratio is of one time; medians, and in
brackets the least and the most. The weights are random: a tenth of the tokens is selected for
attention.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from holo_cli import registry
from holo_cli.inference.generation.weights import relay
from holo_cli.models.base import LanguageModel, State

FORMS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "vanilla": ("vanilla", {}, True),
    "ngt, before": ("ngt", {}, False),
    "ngt": ("ngt", {}, True),
    "holographic, before": ("holographic", {}, False),
    "holographic": ("holographic", {}, True),
    "two learned plates, before": ("holographic", {"phases": "learned", "plates": 2}, False),
    "two learned plates": ("holographic", {"phases": "learned", "plates": 2}, True),
    "brain-v2, before": ("brain-v2", {}, False),
    "brain-v2": ("brain-v2", {}, True),
    "brain-v2, no attention": ("brain-v2", {"attention_every": 0}, True),
    "brain-v2, added": ("brain-v2", {"layout": "added"}, True),
    "vanilla, suffix": ("vanilla", {"suffix": True}, True),
}


def built(name: str, keys: dict[str, Any]) -> LanguageModel:
    torch.manual_seed(0)
    model = registry.build_model(name, registry.config_class(name)(**keys)).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    relay(model)
    return model


def step_ms(model: LanguageModel, state: State, steps: int) -> float:
    """Processor milliseconds of a step, the mean of some steps on from `state`."""
    token = torch.zeros(1, 1, dtype=torch.int64)
    started = time.process_time()
    for n in range(steps):
        _, state = model.step(token + n, state)
    return 1000 * (time.process_time() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("layers", 8), ("width", 512), ("heads", 8), ("vocab", 8192)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--forms", nargs="+", choices=FORMS, help="beside vanilla (default: all)")
    parser.add_argument("--positions", type=int, nargs="+", default=[16, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--out", type=Path, help="append a row for each form and position")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    shape = {
        "layers": args.layers,
        "width": args.width,
        "heads": args.heads,
        "vocab_size": args.vocab,
        "context": 2 * max(args.positions),
    }
    with torch.inference_mode():
        for position in args.positions:
            ready = {}
            for form, (name, keys, quick) in FORMS.items():
                if args.forms and form not in ("vanilla", *args.forms):
                    continue
                model = built(name, {**shape, **keys})
                model.quick_steps = quick  # type: ignore[assignment]
                make = torch.Generator().manual_seed(1)
                state = model.init_state()
                for chunk in torch.randint(args.vocab, (1, position), generator=make).split(512, 1):
                    _, state = model.step_hidden(chunk, state)
                step_ms(model, state, 2)
                ready[form] = (model, state)
            found: dict[str, list[float]] = {form: [] for form in ready}
            for _ in range(args.rounds):
                for form, (model, state) in ready.items():
                    found[form].append(step_ms(model, state, args.steps))
            for form, times in found.items():
                ratios = [v / t for v, t in zip(found["vanilla"], times, strict=True)]
                row = {
                    "form": form,
                    "position": position,
                    "layers": args.layers,
                    "width": args.width,
                    "ms": [round(t, 4) for t in times],
                }
                print(
                    f"{position:6} {form:26} {statistics.median(times):7.2f} ms "
                    f"({min(times):.2f} to {max(times):.2f}); vanilla's speed x "
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                )
                if args.out:
                    with args.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
