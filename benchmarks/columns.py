"""brain-v1's sparse MLP against its dense twin: time of one layer, in training and in decoding.

    python benchmarks/columns.py --width 1024

The twin has the same hidden units, all of them active. Training is forward and backward over a
batch of tokens, in the number format that training chooses on this machine; decoding is one token
at a time with float32 weights, as in `holo generate`. All forms are measured in turn, repeat by
repeat, so that other load on the machine affects all alike; figures are medians. On a busy machine
processor time is more reliable than wall clock.

Prints one JSON row for each form, the machine last, and a table on stderr.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from holo_cli.experiment.machine import describe_machine
from holo_cli.models.brain_v1.columns import Columns
from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.kwta import KWTA
from holo_cli.training.precision import autocast, pick_dtype

TWIN = "dense"
FORMS: dict[str, dict[str, Any]] = {
    TWIN: {"sparsity": "dense"},
    "self": {"sparsity": "self"},
    "self-all-inputs": {"sparsity": "self", "selection_inputs": 1.0},
    "columns": {"sparsity": "columns"},
    "both": {"sparsity": "both", "columns": 8, "columns_kept": 2},
    "kwta": {"sparsity": "kwta"},
    "columns-masked": {"sparsity": "columns", "masked": True},
}
CALIBRATION = 0.2  # minimum seconds of a repeat, for the resolution of the clock
DECODED = 64  # different tokens in decoding, so that different columns are active


def make(form: str, width: int, activity: float) -> Columns | KWTA:
    """The MLP of one layer, with no parameter at zero."""
    torch.manual_seed(0)
    config = Config(width=width, heads=max(1, width // 64), activity=activity, **FORMS[form])
    part = KWTA(config, 0) if config.sparsity in ("kwta", "dense") else Columns(config, 0)
    with torch.no_grad():
        for p in part.parameters():
            p.copy_(torch.randn_like(p) * (p.shape[-1] ** -0.5 if p.ndim > 1 else 0.0))
    return part


def training(part: Columns | KWTA, tokens: int, dtype: torch.dtype) -> Callable[[], None]:
    """One forward and backward pass over `tokens` tokens."""
    device = torch.device("cpu")
    part.train()
    kind = torch.float32 if dtype == torch.float32 else dtype  # the stream's, as in training
    x = torch.randn(1, tokens, part.up.in_features).to(kind).requires_grad_()
    slope = torch.randn(1, tokens, part.up.in_features).to(kind)

    def run() -> None:
        with autocast(device, dtype):
            y, aux = part(x)
        torch.autograd.backward(
            [y, *aux.values()], [slope.to(y.dtype), *(torch.ones_like(a) for a in aux.values())]
        )
        x.grad = None
        part.zero_grad()

    return run


def decoding(part: Columns | KWTA) -> Callable[[], None]:
    """`DECODED` tokens one after the other."""
    part.eval()
    tokens: Sequence[Tensor] = torch.randn(DECODED, 1, 1, part.up.in_features).unbind(0)

    def run() -> None:
        with torch.inference_mode():
            for x in tokens:
                part(x)

    return run


def interleaved(runs: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[list[float]]]:
    """Seconds per run, wall and CPU: for each name two lists with a value per repeat."""
    counts = {}
    for name, run in runs.items():
        run()
        started = time.perf_counter()
        run()
        counts[name] = max(1, round(CALIBRATION / (time.perf_counter() - started)))
    found: dict[str, list[list[float]]] = {name: [[], []] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(counts[name]):
                run()
            found[name][0].append((time.perf_counter() - wall) / counts[name])
            found[name][1].append((time.process_time() - cpu) / counts[name])
    return found


def measure(
    what: str, width: int, activity: float, tokens: int, repeats: int, forms: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of one table: `what` is train or decode."""
    dtype = pick_dtype("auto", torch.device("cpu")) if what == "train" else torch.float32
    parts = {form: make(form, width, activity) for form in forms}
    runs = {
        form: training(part, tokens, dtype) if what == "train" else decoding(part)
        for form, part in parts.items()
    }
    times = interleaved(runs, repeats)
    rows = []
    for form, (wall, cpu) in times.items():
        count = tokens if what == "train" else DECODED
        ratios = [
            statistics.median(times[TWIN][clock]) / statistics.median(times[form][clock])
            for clock in (0, 1)
        ]
        with torch.no_grad():
            _, could = parts[form].unit_outputs(torch.randn(256, width))
        rows.append(
            {
                "what": what,
                "form": form,
                "width": width,
                "hidden": parts[form].up.out_features,
                "tokens": count,
                "dtype": str(dtype).removeprefix("torch."),
                "activity": round(could.float().mean().item(), 4),
                "microseconds_per_token": round(1e6 * statistics.median(wall) / count, 2),
                "lowest": round(1e6 * min(wall) / count, 2),
                "highest": round(1e6 * max(wall) / count, 2),
                "cpu_microseconds_per_token": round(1e6 * statistics.median(cpu) / count, 2),
                "times_faster": round(ratios[0], 2),
                "times_faster_cpu": round(ratios[1], 2),
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| | form | units active | us a token | CPU us | faster than dense | by CPU time |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['what']} | {r['form']} | {r['activity']:.1%} | {r['microseconds_per_token']} "
        f"({r['lowest']} to {r['highest']}) | {r['cpu_microseconds_per_token']} | "
        f"{r['times_faster']} | {r['times_faster_cpu']} |"
        for r in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", default=1024, type=int, help="width of the stream")
    parser.add_argument("--activity", default=0.05, type=float, help="share of units active")
    parser.add_argument("--tokens", default=4096, type=int, help="tokens of a training pass")
    parser.add_argument("--repeats", default=7, type=int, help="measurements of each form")
    parser.add_argument(
        "--forms", default=",".join(FORMS), help="forms to measure, separated by commas"
    )
    asked = parser.parse_args(arguments)
    wanted = asked.forms.split(",")
    if unknown := set(wanted) - FORMS.keys():
        parser.error(f"no form {', '.join(sorted(unknown))}; there are: {', '.join(FORMS)}")
    forms = [form for form in FORMS if form in {TWIN, *wanted}]
    rows = []
    for what in ("train", "decode"):
        rows += measure(what, asked.width, asked.activity, asked.tokens, asked.repeats, forms)
    for row in rows:
        print(json.dumps(row))
    print(json.dumps({"what": "machine"} | describe_machine()))
    print(table(rows), file=sys.stderr)


if __name__ == "__main__":
    main()
