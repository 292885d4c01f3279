"""Decoding time with and without early exit, at a given increase in loss.

    python benchmarks/early_exit.py --checkpoint NAME --tolerance 0 0.01 0.05

For each tolerance (nats per token above the loss of all layers) the threshold is calibrated on the
first half of the validation text, as `--exit-threshold auto` does it. Loss, depth and time are
reported for the second half, which had no part in the choice. Its tokens are read one at a time, as
in decoding, in turn with and without the threshold, so that other load on the machine affects both
alike. Prints one JSON row for each tolerance, and the machine last. `calibration_loss` and
`calibration_full_loss` are of the first half; `times_faster` is the ratio of the median wall clock
times, `times_faster_cpu` that of the processor times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holo_cli.data.dataset import PreparedData
from holo_cli.errors import DataError, HoloError
from holo_cli.inference.generation.early_exit import (
    NEVER,
    Shards,
    calibrate_threshold,
    loss_at,
    set_threshold,
)
from holo_cli.inference.generation.exit_protocol import mean_depth
from holo_cli.inference.generation.loaded_model import LoadedModel, load


@torch.inference_mode()
def decoded(loaded: LoadedModel, tokens: Tensor, threshold: float) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and layers per token of reading (1, T) token by token."""
    set_threshold(loaded.model, threshold)
    state = loaded.model.init_state(1)
    wall, used = time.perf_counter(), time.process_time()
    for token in tokens.split(1, dim=1):
        _, state = loaded.model.step(token, state)
    taken = time.perf_counter() - wall, time.process_time() - used
    return (*taken, mean_depth(state) or float(loaded.model.config.layers))


def split_in_half(shards: Shards) -> tuple[Shards, Shards]:
    """A text split in the middle. Raises DataError for a text without tokens."""
    left = sum(map(len, shards)) // 2
    if not left:
        raise DataError("The validation text is too short to be split in halves.")
    parts: tuple[list[Any], list[Any]] = [], []
    for shard in shards:
        for part, piece in zip(parts, (shard[:left], shard[left:]), strict=True):
            if len(piece):
                part.append(piece)
        left -= min(left, len(shard))
    return parts


def measure(
    loaded: LoadedModel, data: PreparedData, tolerances: list[float], *, tokens: int, repeats: int
) -> Iterator[dict[str, Any]]:
    """A row for each tolerance."""
    model, end = loaded.model, data.tokenizer.end
    model.eval()
    chosen_on, other = split_in_half(data.split("val"))
    start = other[0][: min(tokens, model.config.context)].astype("int64")
    length = len(start)
    text = torch.as_tensor(start, device=model.device)[None]
    full_loss, _, scored = loss_at(model, other, end, NEVER, dtype=loaded.dtype)
    decoded(loaded, text[:, :8], NEVER)  # warm
    for tolerance in tolerances:
        found = calibrate_threshold(
            model, data, tolerance=tolerance, dtype=loaded.dtype, text=chosen_on
        )
        loss, depth, _ = loss_at(model, other, end, found.threshold, dtype=loaded.dtype)
        turns = [
            [decoded(loaded, text, threshold) for threshold in (NEVER, found.threshold)]
            for _ in range(repeats)
        ]
        full, early = zip(*turns, strict=True)
        wall, cpu = (
            [statistics.median(turn[clock] for turn in form) for form in (full, early)]
            for clock in (0, 1)
        )
        yield {
            "checkpoint": loaded.header.run,
            "tolerance": tolerance,
            "every": getattr(model.config, "exit_every", None),
            "threshold": found.threshold,
            "loss": round(loss, 4),
            "full_loss": round(full_loss, 4),
            "loss_tokens": scored,
            "calibration_loss": round(found.loss, 4),
            "calibration_full_loss": round(found.full_loss, 4),
            "layers": found.layers,
            "mean_depth": round(depth, 3),
            "mean_depth_decoding": round(early[0][2], 3),
            "tokens": length,
            "tokens_per_second": round(length / wall[1], 1),
            "full_tokens_per_second": round(length / wall[0], 1),
            "times_faster": round(wall[0] / wall[1], 3),
            "times_faster_cpu": round(cpu[0] / cpu[1], 3),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="name of a run, or a file")
    parser.add_argument("--data", type=Path, help="prepared set (default: the checkpoint's own)")
    parser.add_argument(
        "--tolerance", type=float, nargs="+", default=[0.0, 0.01, 0.05], help="nats per token"
    )
    parser.add_argument("--every", type=int, help="layers between exits (default: the model's)")
    parser.add_argument(
        "--tokens", type=int, default=256, help="tokens read in a turn (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: %(default)s)")
    asked = parser.parse_args()
    from holo_cli.experiment.machine import describe_machine

    try:
        loaded = load(asked.checkpoint)
        set_threshold(loaded.model, NEVER)  # raises at once for a model without early exit
        if asked.every:
            changed = loaded.model.config.model_copy(update={"exit_every": asked.every})
            loaded.model.config = changed
        path = asked.data or loaded.header.data.path
        if not path:
            raise DataError("The checkpoint names no data.", next_step="Add --data FOLDER.")
        data = PreparedData.open(path)
        rows = measure(loaded, data, asked.tolerance, tokens=asked.tokens, repeats=asked.repeats)
        for row in rows:
            print(json.dumps(row), flush=True)
    except HoloError as error:
        parser.error(" ".join(filter(None, (error.message, error.next_step))))
    print(json.dumps(describe_machine()))


if __name__ == "__main__":
    main()
