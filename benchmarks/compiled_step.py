"""vanilla's decoding step through torch.compile, beside the steps that `holo generate` makes.

    python -m benchmarks.compiled_step --rounds 5

The compiled step is written for it: keys and values in buffers of a fixed length, the position a
tensor, so that there is one graph for all positions, with the model's own weights stored by
columns. It is checked against the model first. One JSON object: milliseconds of processor time of a
step from position 16, the seconds that compiling takes (a second start of the command finds the
kernels that inductor has kept), and after how many tokens they are won back.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.decoding_weights import POSITION, TOKENS, built, formed, reader, stepper
from holo_cli.experiment.machine import describe_machine
from holo_cli.layers.mlp import MLP
from holo_cli.layers.norm import rms_norm
from holo_cli.models.vanilla.attention import Attention
from holo_cli.models.vanilla.model import Modern

Layer = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # qkv, out, up, down, gains of the queries
StaticStep = Callable[[Tensor, Tensor, list[Tensor], list[Tensor]], Tensor]


def static_step(model: Modern) -> tuple[StaticStep, Callable[[], list[Tensor]]]:
    """A step (stream (1, C), position (1,), keys, values) -> logits (1, V), and what makes its
    buffers, (H, T, d) for each layer, which it writes to."""
    config = model.config
    heads, width, room = config.heads, config.width, config.context
    layers: list[Layer] = []
    tables: tuple[Tensor, Tensor] | None = None
    for block in model.layers():
        mixer, mlp = block.mixer, block.mlp
        assert isinstance(mixer, Attention)
        assert isinstance(mlp, MLP)
        gains = torch.ones(heads) if mixer.gain is None else mixer.gain.gains().detach()
        qkv, out, up, down = (
            linear.weight.detach() for linear in (mixer.qkv, mixer.out, mlp.up, mlp.down)
        )
        layers.append((qkv, out, up, down, gains[:, None]))
        tables = mixer.rope.tables(0, room, torch.zeros(1))
    assert tables is not None
    cosines, sines = tables
    head, cap = model.head.weight.detach(), config.soft_cap
    places = torch.arange(room)

    def step(x: Tensor, position: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        x = rms_norm(x)
        cosine, sine = cosines[position].view(1, -1), sines[position].view(1, -1)
        past = places <= position
        for n, (qkv, out, up, down, gains) in enumerate(layers):
            y = F.linear(rms_norm(x), qkv).view(3 * heads, -1)
            qk = rms_norm(y[: 2 * heads])
            qk = qk * cosine + qk.roll(qk.shape[1] // 2, -1) * sine
            keys[n].index_copy_(1, position, qk[heads:, None])
            values[n].index_copy_(1, position, y[2 * heads :, None])
            query = (qk[:heads] * gains)[:, None] * qk.shape[1] ** -0.5
            score = (query * keys[n]).sum(-1).masked_fill(~past, float("-inf"))
            mixed = (score.softmax(-1)[:, :, None] * values[n]).sum(1)
            x = x + F.linear(mixed.reshape(1, width), out)
            x = x + F.linear(F.linear(rms_norm(x), up).relu().square(), down)
        logits = F.linear(rms_norm(x), head)
        return cap * torch.tanh(logits / cap) if cap else logits

    def buffers() -> list[Tensor]:
        return [torch.zeros(heads, room, width // heads) for _ in layers]

    return step, buffers


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="25m")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = formed(built("vanilla", options.preset, options.vocab), "by columns")
    assert isinstance(model, Modern)
    with torch.inference_mode():
        step, buffers = static_step(model)
        tokens = torch.arange(POSITION + TOKENS + 2)[None] % options.vocab
        places = [torch.tensor([n]) for n in range(tokens.shape[1])]
        embedded = model.embedding(tokens, torch.tensor([-1]))[0].split(1)  # (1, C) each
        expected = model.head(model.hidden(tokens).x)[0]
        begun = time.perf_counter()
        inductor = torch.compile(step, fullgraph=True, dynamic=False)
        keys, values = buffers(), buffers()
        logits = [
            inductor(x, place, keys, values) for x, place in zip(embedded, places, strict=True)
        ]
        compile_seconds = time.perf_counter() - begun
        torch.testing.assert_close(torch.cat(logits), expected, atol=1e-3, rtol=1e-3)

        def timed(function: StaticStep) -> Callable[[], float]:
            def run() -> float:
                begun = time.process_time()
                for n in range(POSITION, POSITION + TOKENS):
                    function(embedded[n], places[n], keys, values)
                return (time.process_time() - begun) / TOKENS

            return run

        forms = {
            "quick steps": stepper(model, 1), "static": timed(step), "inductor": timed(inductor),
            "reading": reader(model),
        }  # fmt: skip
        found: dict[str, list[float]] = {name: [] for name in forms}
        for turn in range(options.rounds + 1):
            for name, run in forms.items():
                seconds = run()
                if turn:  # the first is warming up
                    found[name].append(seconds)
    medians = {name: statistics.median(times) for name, times in found.items()}
    saved = medians["quick steps"] - medians["inductor"]
    row = {
        "ms": {name: round(value * 1e3, 2) for name, value in medians.items()},
        "least": {name: round(min(times) * 1e3, 2) for name, times in found.items()},
        "compile_seconds": round(compile_seconds, 1),
        "tokens_to_win_it_back": round(compile_seconds / saved) if saved > 0 else None,
        "machine": describe_machine(),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
