"""Forward and backward time of one mixer: two forms of the holographic memory against attention.

    python benchmarks/memory_scan.py --width 512 --heads 8 --plates 1 2

`memory` is the hand-written backward pass that training uses, `plain` the same formula in autograd
operations over the whole length, `attention` is vanilla's; each with its projections and random
weights. All are measured in turn in every round, so that other load on the machine affects all
alike; the lowest processor time of the rounds is reported. Prints one JSON row for each length and
form, and the machine last.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.experiment.machine import describe_machine
from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.memory import Memory
from holo_cli.models.holographic.mixer import Holographic
from holo_cli.models.vanilla.attention import Attention
from holo_cli.training.precision import autocast, pick_dtype

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)


class Plain(Holographic):
    """The mixer with the plain form of its memory."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        memory = self.memory
        assert isinstance(memory, Memory)
        memory.forward = lambda x, v: memory.plain(x, v, None)[0]  # type: ignore[method-assign]


def mixers(asked: argparse.Namespace, length: int) -> dict[str, nn.Module]:
    """The mixers to be timed, by name."""
    shape = {"vocab_size": 2, "layers": 1, "heads": asked.heads, "width": asked.width}
    found: dict[str, nn.Module] = {}
    for binding in asked.binding:
        for plates in asked.plates:
            config = Config(
                **shape, context=length, plates=plates, binding=binding, phases="learned"
            )
            name = f"{binding}, {plates} plates"
            found[f"memory: {name}"] = Holographic(config)
            if length <= asked.plain_until:
                found[f"plain: {name}"] = Plain(config)
    if length <= asked.attention_until:
        found["attention"] = Attention(BackboneConfig(**shape, context=length))
    for mixer in found.values():
        for module in mixer.modules():
            if isinstance(module, Memory):
                module.finish_initialisation()
    return found


def seconds(mixer: nn.Module, x: Tensor, dtype: torch.dtype) -> float:
    """Processor seconds of one forward and backward pass."""
    started = time.process_time()
    with autocast(x.device, dtype):
        y = mixer(x)[0]
    y.sum().backward()
    taken = time.process_time() - started
    mixer.zero_grad()
    x.grad = None
    return taken


def measure(asked: argparse.Namespace, length: int, emit: Callable[[str], None]) -> None:
    """Measure all forms at one length; calls `emit` with a JSON row for each."""
    dtype = pick_dtype("auto", torch.device("cpu"))
    rows = max(1, asked.tokens // length)
    x = torch.randn(rows, length, asked.width, dtype=dtype).requires_grad_()
    forms = mixers(asked, length)
    least = dict.fromkeys(forms, float("inf"))
    for _ in range(asked.rounds):
        for name, mixer in forms.items():
            least[name] = min(least[name], seconds(mixer, x, dtype))
    for name, taken in least.items():
        microseconds = round(taken / (rows * length) * 1e6, 2)
        row = {"length": length, "rows": rows, "form": name, "microseconds_per_token": microseconds}
        emit(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", default=512, type=int, help="default: %(default)s")
    parser.add_argument("--heads", default=8, type=int, help="default: %(default)s")
    parser.add_argument("--plates", default=[1, 2], type=int, nargs="+", help="plates per head")
    parser.add_argument("--binding", default=["phasor"], nargs="+", choices=("phasor", "hrr"))
    parser.add_argument("--lengths", default=LENGTHS, type=int, nargs="+", help="tokens in a row")
    parser.add_argument(
        "--tokens", default=1024, type=int, help="tokens in a batch, at least one row"
    )
    parser.add_argument("--rounds", default=3, type=int, help="default: %(default)s")
    parser.add_argument("--plain-until", default=LENGTHS[-1], type=int, help="its longest length")
    parser.add_argument(
        "--attention-until", default=LENGTHS[-1], type=int, help="its longest length"
    )
    asked = parser.parse_args()
    torch.manual_seed(0)
    for length in asked.lengths:
        measure(asked, length, lambda line: print(line, flush=True))
    print(json.dumps(describe_machine()))


if __name__ == "__main__":
    main()
