"""Decoding as before, with fewer operations, weights by columns or in eight bits, in rounds.

    python -m benchmarks.decoding_weights --model vanilla --preset 25m --rows 1 16 --rounds 5

One JSON object a row of the table: processor milliseconds of a step from position 16, and their
ratio to the first form within a round. "reading" sums up as many float32 numbers as the model has.
With `--transformers` GPT-2 of that library, of the same depth, width and vocabulary, takes part.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from holo_cli import registry
from holo_cli.config.resolve import resolve
from holo_cli.experiment.machine import describe_machine
from holo_cli.inference.generation.engine import Engine
from holo_cli.inference.generation.weights import quantise, relay
from holo_cli.models.base import LanguageModel
from holo_cli.models.vanilla.model import Modern

POSITION, TOKENS = 16, 6
FORMS = ("as before", "quick steps", "by columns", "int8")  # the last two with quick steps
Step = Callable[[], float]


def built(model: str, preset: str, vocab: int) -> LanguageModel:
    torch.manual_seed(0)
    config = resolve(model, preset=preset, sets=["model.context=64"]).model
    found = registry.build_model(model, config.model_copy(update={"vocab_size": vocab})).eval()
    for parameter in found.parameters():  # not the zeros of a new model
        if parameter.ndim == 2 and not parameter.any():
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return found


def formed(model: LanguageModel, form: str) -> LanguageModel:
    if form == "as before" and isinstance(model, Modern):
        model.quick_steps = False
    if form == "by columns":
        relay(model)
    if form == "int8":
        quantise(model)
    return model


def stepper(model: LanguageModel, rows: int) -> Step:
    engine = Engine(model)
    prompt = torch.arange(POSITION).repeat(rows, 1) % model.config.vocab_size

    def step() -> float:
        logits, _, state = engine.advance(prompt, None)
        logits, _, state = engine.advance(logits.argmax(-1, keepdim=True), state)
        begun = time.process_time()
        for _ in range(TOKENS):
            logits, _, state = engine.advance(logits.argmax(-1, keepdim=True), state)
        return (time.process_time() - begun) / TOKENS

    return step


def reader(model: LanguageModel) -> Step:
    """Reads as many bytes as the weights have in float32: the least that a step has to do."""
    numbers = torch.zeros(model.describe().active_parameters)

    def step() -> float:
        begun = time.process_time()
        numbers.sum()
        return time.process_time() - begun

    return step


def gpt2(like: LanguageModel, rows: int) -> Step:
    from transformers import GPT2Config, GPT2LMHeadModel

    config: Any = like.config
    shape = GPT2Config(
        vocab_size=config.vocab_size, n_embd=config.width, n_layer=config.layers,
        n_head=config.heads, n_positions=config.context,
    )  # fmt: skip
    model = GPT2LMHeadModel(shape).eval()
    prompt = torch.arange(POSITION).repeat(rows, 1) % config.vocab_size

    @torch.inference_mode()
    def step() -> float:
        out = model(prompt, use_cache=True)
        begun = time.process_time()
        for _ in range(TOKENS):
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
        return (time.process_time() - begun) / TOKENS

    return step


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", default=["vanilla"])
    parser.add_argument("--preset", default="25m")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--rows", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--transformers", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for name in options.model:
        steps: dict[tuple[str, int], Step] = {}
        for form in FORMS:
            model = formed(built(name, options.preset, options.vocab), form)
            steps |= {(form, rows): stepper(model, rows) for rows in options.rows}
        steps |= {("reading", rows): reader(model) for rows in options.rows}
        if options.transformers:
            steps |= {("transformers", rows): gpt2(model, rows) for rows in options.rows}
        found: dict[tuple[str, int], list[float]] = {key: [] for key in steps}
        for turn in range(options.rounds + 1):
            for key, step in steps.items():
                seconds = step()
                if turn:  # the first is warming up
                    found[key].append(seconds)
        for (form, rows), times in found.items():
            base = found[FORMS[0], rows]
            ratios = sorted(a / b for a, b in zip(base, times, strict=True))
            row = {
                "model": name, "form": form, "rows": rows,
                "ms_a_step": round(statistics.median(times) * 1e3, 2),
                "least": round(min(times) * 1e3, 2), "most": round(max(times) * 1e3, 2),
                "times_as_fast": round(statistics.median(ratios), 2),
                "range": [round(ratios[0], 2), round(ratios[-1], 2)],
            }  # fmt: skip
            print(json.dumps(row), flush=True)
    print(json.dumps({"row": "machine", **describe_machine()}), flush=True)


if __name__ == "__main__":
    main()
