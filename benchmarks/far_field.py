"""What ngt's far field by blocks costs in loss and saves in time.

    python -m benchmarks.far_field loss --checkpoint NAME --data SET --lengths 2048 16384
    python -m benchmarks.far_field loss --checkpoint NAME --data SET --lengths 2048 --spread 0.3
    python -m benchmarks.far_field speed --lengths 2048 4096 8192 16384 --rounds 3
    python -m benchmarks.far_field decode --lengths 2048 16384

`loss`: a checkpoint that was trained with every token by itself reads the validation text in rows
of the given length, exactly and with each number of exact blocks; the difference of the mean losses
in nats, over the whole row and over its last half.

`speed`: a training step (forward, loss, backward, without the optimizer) of vanilla, of exact ngt
and of ngt with blocks, one row, in interleaved rounds; ratios are of the same round.

`decode`: a token after a prompt of zeros of the given length, likewise.

Prints JSON rows. Times are processor time of one thread, which other load disturbs least.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holo_cli import registry
from holo_cli.checkpoint.rebuild import load_model
from holo_cli.data.dataset import PreparedData
from holo_cli.layers.cross_entropy import chunked_cross_entropy
from holo_cli.layers.head import Head
from holo_cli.models.base import LanguageModel, State
from holo_cli.models.ngt import far_field
from holo_cli.models.ngt.blocks import FarBlocks
from holo_cli.models.ngt.diagnostics import gravity_mixers
from holo_cli.models.ngt.model import Model

SHAPE: dict[str, Any] = {"vocab_size": 2048, "layers": 4, "heads": 4, "width": 128}


def loss(args: argparse.Namespace) -> None:
    """A row per length and number of exact blocks."""
    model, _, _ = load_model(args.checkpoint)
    assert isinstance(model, Model)
    text = torch.as_tensor(PreparedData.open(args.data).split("val")[0].astype("int64"))
    for length in args.lengths:
        count = min(args.rows, (len(text) - 1) // length)
        exact = None
        for number in [None, *args.exact_blocks]:
            far = None if number is None else FarBlocks(args.block, number)
            for mixer in gravity_mixers(model):
                mixer.far = far
            found = [losses(model, text[n * length :][: length + 1]) for n in range(count)]
            if exact is None:
                exact = found
            off = torch.stack(found) - torch.stack(exact)
            by_row = off.mean(1)
            row = {
                "length": length,
                "rows": count,
                "exact_blocks": number,
                "spread": args.spread,
                "loss": round(torch.stack(found).mean().item(), 4),
                "off": round(off.mean().item(), 5),
                "off_by_row": [round(x, 5) for x in by_row.tolist()],
                "off_last_half": round(off[:, length // 2 :].mean().item(), 5),
            }
            print(json.dumps(row), flush=True)


def losses(model: Model, tokens: Tensor) -> Tensor:
    """(T + 1,) -> the loss of each token after the first, (T,)."""
    with torch.no_grad():
        x = model.hidden(tokens[None, :-1]).x[0]
        pieces = [
            torch.nn.functional.cross_entropy(model.head(part), target, reduction="none")
            for part, target in zip(x.split(1024), tokens[1:].split(1024), strict=True)
        ]
    return torch.cat(pieces)


def models(context: int, exact_blocks: list[int]) -> dict[str, LanguageModel]:
    """Vanilla, exact ngt and ngt with blocks, of the same width."""
    given: dict[str, tuple[str, dict[str, Any]]] = {
        "vanilla": ("vanilla", {}),
        "exact": ("ngt", {}),
    }
    for number in exact_blocks:
        given[f"blocks-{number}"] = ("ngt", {"far_field": "blocks", "exact_blocks": number})
    out = {}
    for name, (model, own) in given.items():
        torch.manual_seed(0)
        config = registry.config_class(model)(**SHAPE, context=context, **own)
        built = out[name] = registry.build_model(model, config)
        for p in built.parameters():  # projections start at zero: let choices differ
            if p.ndim == 2 and not p.detach().any():
                torch.nn.init.normal_(p, std=0.05)
    return out


def step(model: LanguageModel, tokens: Tensor) -> None:
    """Forward, loss and backward, in bfloat16 as training is."""
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.hidden(tokens[:, :-1])
    target = tokens[:, 1:].flatten()
    x, dtype = hidden.x.flatten(0, 1), torch.bfloat16
    head = model.head
    assert isinstance(head, Head)
    nats = chunked_cross_entropy(x, head.weight, target, head.cap, dtype, -100)
    nats.backward()
    model.zero_grad()


def rounds(ways: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Seconds of processor time of each, in turn; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(count + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            if number:
                times[name].append(time.process_time() - start)
    return times


def report(length: int, times: dict[str, list[float]]) -> None:
    row: dict[str, object] = {"length": length}
    row |= {f"{name}_ms": round(1e3 * statistics.median(t), 1) for name, t in times.items()}
    for name, t in times.items():
        if name != "vanilla":
            ratios = [v / x for v, x in zip(times["vanilla"], t, strict=True)]
            row[f"{name}_against_vanilla"] = [
                round(x, 2) for x in (statistics.median(ratios), min(ratios), max(ratios))
            ]
    print(json.dumps(row), flush=True)


def speed(args: argparse.Namespace) -> None:
    """A row per length: medians in ms, and how many times vanilla's speed (median, least, most)."""
    for length in args.lengths:
        tokens = torch.randint(0, SHAPE["vocab_size"], (1, length + 1))
        made = models(length, args.exact_blocks)
        ways = {name: partial(step, model, tokens) for name, model in made.items()}
        report(length, rounds(ways, args.rounds))


def write(model: LanguageModel, state: State, token: Tensor) -> None:
    """16 times the same token."""
    for _ in range(16):
        _, state = model.step(token, state)


def decode(args: argparse.Namespace) -> None:
    """As `speed`, of 16 tokens that are decoded one by one."""
    for length in args.lengths:
        ways: dict[str, Callable[[], object]] = {}
        with torch.inference_mode():
            for name, model in models(length + 32, args.exact_blocks).items():
                model.eval()
                tokens = torch.randint(0, SHAPE["vocab_size"], (1, length))
                _, state = model.step(tokens, model.init_state(1))
                # the first continuation makes room
                _, state = model.step(tokens[:, :1], state)

                ways[name] = partial(write, model, state, tokens[:, :1])
            report(length, rounds(ways, args.rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["loss", "speed", "decode"])
    parser.add_argument("--checkpoint")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 16384])
    parser.add_argument("--exact-blocks", type=int, nargs="+", default=[0, 4, 8, 16])
    parser.add_argument("--block", type=int, default=64, help="tokens per block, for `loss`")
    parser.add_argument("--spread", type=float, default=far_field.SPREAD, help="for `loss`")
    parser.add_argument("--rows", type=int, default=4, help="rows of text, for `loss`")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    far_field.SPREAD = args.spread
    {"loss": loss, "speed": speed, "decode": decode}[args.what](args)


if __name__ == "__main__":
    main()
