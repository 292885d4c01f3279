"""Where a training step of vanilla spends its time, in both recipes, by PyTorch's profiler.

    python -m benchmarks.step_profile --layers 8 --batch-size 8

One JSON object for each recipe and round: seconds of a step by kind (products of the model and
of the optimizer, attention, everything else), the rate of the model's products over the best rate
of this machine, and `bound`: how many times as fast the step would be if everything but the model's
products and attention were free.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from holo_cli.config.resolve import resolve
from holo_cli.experiment.machine import describe_machine, product_rate
from holo_cli.speed.step_benchmark import TrainingBenchmark

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
ATTENTION = "scaled_dot_product"


def of_a_step(benchmark: TrainingBenchmark, rate: float) -> dict[str, float]:
    """Seconds by kind. The optimizer's products are those inside `Optimizer.step`."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        benchmark.measure()
    events = recorded.events() or []
    updates = [e.time_range for e in events if e.name.startswith("Optimizer.step")]
    seconds = {"products": 0.0, "optimizer_products": 0.0, "attention": 0.0, "other": 0.0}
    for event in events:
        begun = event.time_range.start
        if ATTENTION in event.name:
            kind = "attention"
        elif event.name not in PRODUCTS:
            kind = "other"
        elif any(update.start <= begun < update.end for update in updates):
            kind = "optimizer_products"
        else:
            kind = "products"
        seconds[kind] += event.self_cpu_time_total / 1e6
    total = sum(seconds.values())
    described = benchmark.model.describe()
    config = benchmark.trainer.config
    tokens = config.batch_size * benchmark.model.config.context
    past = 6.0 * benchmark.model.config.width * benchmark.model.config.layers  # per mean position
    attention = past * (benchmark.model.config.context + 1)
    flops = (described.train_flops_per_token - attention) * tokens
    return {
        **{kind: round(value, 3) for kind, value in seconds.items()},
        "step": round(total, 3),
        "rate_of_products": round(flops / seconds["products"] / rate / 1e9, 2),
        "share_of_rate": round(described.train_flops_per_token * tokens / total / rate / 1e9, 3),
        "bound": round(total / (seconds["products"] + seconds["attention"]), 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    flags = {
        "model.vocab_size": 8192, "model.context": options.context, "model.layers": options.layers,
        "training.batch_size": options.batch_size, "training.dtype": options.dtype,
    }  # fmt: skip
    benchmarks = {}
    for recipe in ("modern", "classic"):
        resolved = resolve("vanilla", "25m", recipe, flags=flags, env={})
        benchmarks[recipe] = TrainingBenchmark(resolved)
        benchmarks[recipe].warm(1)
    dtype = getattr(torch, options.dtype)
    for number in range(options.rounds):
        for recipe, benchmark in benchmarks.items():
            row = of_a_step(benchmark, product_rate(dtype))
            print(json.dumps({"recipe": recipe, "round": number, **row}), flush=True)
    print(json.dumps({"row": "machine", **describe_machine()}), flush=True)


if __name__ == "__main__":
    main()
