"""Early exit at inference: which models support it, at what threshold, and at what cost in loss.

A model with early exit has an `exit_threshold` that applies to evaluation and decoding: a token
skips the remaining layers once its confidence, between 0 and 1, reaches the threshold. Above 1
every token passes all layers. `calibrate_threshold` searches for the lowest threshold whose loss on
validation text is within a tolerance; each trial evaluates the text with tokens exiting as they
would in decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from holo_cli.data.batches import IGNORE, val_batches
from holo_cli.data.dataset import PreparedData
from holo_cli.data.windows import TokenStream
from holo_cli.errors import DataError, UsageError
from holo_cli.inference.generation.exit_protocol import NEVER, SupportsEarlyExit
from holo_cli.inference.trained_data import open_trained
from holo_cli.models.base import LanguageModel
from holo_cli.training.loss import nats_per_token
from holo_cli.training.precision import autocast

if TYPE_CHECKING:
    from holo_cli.inference.generation.loaded_model import LoadedModel

AUTO = "auto"
TOKENS = 16_384  # maximum validation tokens that a calibration evaluates
TRIALS = 7  # steps of the bisection


@dataclass(frozen=True)
class Calibration:
    """Result of a calibration: losses in nats per token, `mean_depth` in layers per token."""

    threshold: float
    loss: float
    full_loss: float
    mean_depth: float
    layers: int
    tokens: int


def set_threshold(model: LanguageModel, threshold: float) -> None:
    """Sets the confidence at which tokens exit.

    Raises UsageError for a model without early exit and for a threshold of zero or less.
    """
    if not isinstance(model, SupportsEarlyExit):
        raise UsageError(
            "This model does not support early exit (--exit-threshold).",
            next_step="Omit --exit-threshold, or use a model with early exit, such as brain-v1.",
        )
    if not threshold > 0:
        raise UsageError(
            f"--exit-threshold must be above 0, not {threshold:g}.",
            next_step="Try 0.9. Above 1 every token passes all layers.",
        )
    model.exit_threshold = threshold


def choose_threshold(loaded: LoadedModel, value: str) -> Calibration | None:
    """Applies `--exit-threshold`: a number, or `auto` to calibrate on the validation split of the
    checkpoint's training data. Raises UsageError, or DataError if that data is missing."""
    if value != AUTO:
        try:
            threshold = float(value)
        except ValueError:
            raise UsageError(
                f"--exit-threshold takes a number or '{AUTO}', not '{value}'.",
                next_step=f"Try 0.9 or {AUTO}.",
            ) from None
        set_threshold(loaded.model, threshold)
        return None
    set_threshold(loaded.model, NEVER)  # raises early if the model has no early exit
    info = loaded.header.data
    path = info.path
    if not path or not all(Path(one).is_dir() for one in [path, *(s.path for s in info.sets)]):
        raise DataError(
            f"--exit-threshold {AUTO} needs the validation split of this checkpoint's training "
            f"data, but '{path}' does not exist.",
            next_step="Run the command where the data is, or give a number such as 0.9.",
        )
    found = calibrate_threshold(loaded.model, open_trained(info), dtype=loaded.dtype)
    set_threshold(loaded.model, found.threshold)
    return found


Shards = Sequence[NDArray[Any]]
ScoredText = TokenStream | Shards


@torch.inference_mode()
def calibrate_threshold(
    model: LanguageModel,
    data: PreparedData,
    *,
    tolerance: float = 0.01,
    tokens: int = TOKENS,
    dtype: torch.dtype | None = None,
    text: ScoredText | None = None,
) -> Calibration:
    """The lowest threshold found whose loss is at most `tolerance` nats above that of all layers.

    Bisects [0, 1], assuming that the loss falls as the threshold rises; the returned figures are
    measured at the returned threshold, so they hold even if that assumption fails. They refer to
    the text the threshold was chosen on: the first `tokens` tokens of `text` (default: the
    validation split). The model's threshold and mode are restored. Raises UsageError like
    `set_threshold`.
    """
    chosen: ScoredText = data.stream("val") if text is None else text
    end = data.tokenizer.end

    def measured(threshold: float) -> tuple[float, float, int]:
        return loss_at(model, chosen, end, threshold, tokens=tokens, dtype=dtype)

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
    text: ScoredText,
    end: int,
    threshold: float,
    *,
    tokens: int = TOKENS,
    dtype: torch.dtype | None = None,
) -> tuple[float, float, int]:
    """(nats per token, layers per token, tokens) of the beginning of a text at a threshold; `end`
    is the token before it. The model's threshold and mode are restored."""
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
    count = max(1, int((y != IGNORE).sum()))
    set_threshold(model, before)
    model.train(training)
    return (nats.sum() / count).item(), depth.item(), count
