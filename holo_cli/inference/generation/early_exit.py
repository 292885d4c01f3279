"""Leaving layers early at inference: which models can, at what threshold, and what it costs.

A model whose tokens can leave after a part of its layers has an `exit_threshold`, which evaluation
and decoding obey: a token leaves where its confidence, between 0 and 1, reaches it, so above 1 all
layers are passed. `calibrate` looks for the lowest threshold that costs no more than a given loss
on validation text, by measuring: each trial is a whole evaluation with tokens leaving as they would
in decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray

from holo_cli.data.batches import IGNORE, val_batches
from holo_cli.data.dataset import PreparedData
from holo_cli.errors import DataError, UsageError
from holo_cli.models.base import LanguageModel, State
from holo_cli.training.loss import nats_per_token
from holo_cli.training.precision import autocast

if TYPE_CHECKING:
    from holo_cli.inference.generation.loaded_model import LoadedModel

NEVER = 2.0  # above every confidence
AUTO = "auto"
TOKENS = 16_384  # of validation text that a calibration reads at most
TRIALS = 7  # halvings of the range of thresholds


@runtime_checkable
class SupportsEarlyExit(Protocol):
    """What a model has whose tokens can leave early."""

    exit_threshold: float

    def depths(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, T) int64 -> the layers that each token passes, (B, T) int64."""
        ...


@dataclass(frozen=True)
class Calibration:
    """What was found: losses are nats per token, `mean_depth` layers passed per token."""

    threshold: float
    loss: float
    full_loss: float
    mean_depth: float
    layers: int
    tokens: int


def set_threshold(model: LanguageModel, threshold: float) -> None:
    """Let tokens leave where their confidence reaches `threshold`.

    Raises UsageError for a model without early exit and for a threshold of zero or less.
    """
    if not isinstance(model, SupportsEarlyExit):
        raise UsageError(
            "The tokens of this model cannot leave early (--exit-threshold).",
            next_step="Leave the flag out; `brain-v1` is a model that has early exit.",
        )
    if not threshold > 0:
        raise UsageError(
            f"--exit-threshold must be above 0, not {threshold:g}.",
            next_step="Try 0.9; above 1 all layers are passed.",
        )
    model.exit_threshold = threshold


def choose_threshold(loaded: LoadedModel, wish: str) -> Calibration | None:
    """Obey `--exit-threshold`: a number, or `auto`, which calibrates on the validation part of the
    data that the checkpoint was trained on. Raises UsageError, or DataError where that is gone."""
    if wish != AUTO:
        try:
            threshold = float(wish)
        except ValueError:
            raise UsageError(
                f"--exit-threshold takes a number or '{AUTO}', not '{wish}'.",
                next_step=f"Try 0.9, or {AUTO}.",
            ) from None
        set_threshold(loaded.model, threshold)
        return None
    set_threshold(loaded.model, NEVER)  # says so at once where a model cannot
    path = loaded.header.data.path
    if not path or not Path(path).is_dir():
        raise DataError(
            f"--exit-threshold {AUTO} needs the data of this checkpoint, '{path}', for its "
            "validation part.",
            next_step="Run it where the data are, or give a number, as in 0.9.",
        )
    found = calibrate(loaded.model, PreparedData.open(path), dtype=loaded.dtype)
    set_threshold(loaded.model, found.threshold)
    return found


Shards = Sequence[NDArray[Any]]


@torch.inference_mode()
def calibrate(
    model: LanguageModel,
    data: PreparedData,
    *,
    tolerance: float = 0.01,
    tokens: int = TOKENS,
    dtype: torch.dtype | None = None,
    text: Shards | None = None,
) -> Calibration:
    """The lowest threshold found whose loss is at most `tolerance` nats above all layers'.

    Halves [0, 1] a few times, as if the loss fell with the threshold throughout; the figures that
    come back were measured at the threshold that comes back, and are true whether it does or not.
    They are of the text that the threshold was chosen on: the beginning of `text` (None: of the
    validation part). The model's threshold and mode stay as they were. Raises UsageError as
    `set_threshold`.
    """
    text = data.split("val") if text is None else text
    end = data.tokenizer.end

    def measured(threshold: float) -> tuple[float, float, int]:
        return loss_at(model, text, end, threshold, tokens=tokens, dtype=dtype)

    full, depth, count = measured(NEVER)
    best = (NEVER, full, depth)
    low, high = 0.0, 1.0
    for _ in range(TRIALS):
        threshold = (low + high) / 2
        loss, depth, _ = measured(threshold)
        if loss <= full + tolerance:
            best, high = (threshold, loss, depth), threshold
        else:
            low = threshold
    return Calibration(
        threshold=best[0],
        loss=best[1],
        full_loss=full,
        mean_depth=best[2],
        layers=model.config.layers,
        tokens=count,
    )


@torch.inference_mode()
def loss_at(
    model: LanguageModel,
    text: Shards,
    end: int,
    threshold: float,
    *,
    tokens: int = TOKENS,
    dtype: torch.dtype | None = None,
) -> tuple[float, float, int]:
    """Nats per token, layers per token, and tokens, of the beginning of a text at a threshold;
    `end` is the token before it. The model's threshold and mode stay as they were."""
    before, training = getattr(model, "exit_threshold", NEVER), model.training
    set_threshold(model, threshold)
    assert isinstance(model, SupportsEarlyExit)
    rows = max(1, min(tokens, TOKENS) // model.config.context)
    x, y = next(val_batches(text, model.config.context, rows, end))
    x, y = x.to(model.device), y.to(model.device)
    model.eval()
    with autocast(model.device, dtype or torch.float32):
        nats = nats_per_token(model.hidden(x).x, model.head, y)
        depth = model.depths(x)[y != IGNORE].double().mean()
    count = int((y != IGNORE).sum())
    set_threshold(model, before)
    model.train(training)
    return (nats.sum() / count).item(), depth.item(), count


def mean_depth(state: State) -> float | None:
    """Layers that the tokens read so far passed on average; None where states do not count them."""
    passed = getattr(state, "passed", None)
    if passed is None or not state.position:
        return None
    return float(passed.double().mean()) / state.position
