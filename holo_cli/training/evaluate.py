"""Loss and bits per byte over a whole split."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from holo_cli.data.answers import token_sizes
from holo_cli.data.batches import IGNORE, conversation_windows, eval_windows, split_windows
from holo_cli.data.combined import CombinedData
from holo_cli.data.dataset import PreparedData
from holo_cli.data.halves import half_streams, halves
from holo_cli.data.windows import DocumentSubset, TokenStream
from holo_cli.models.base import LanguageModel
from holo_cli.training.loss import nats_per_token
from holo_cli.training.precision import autocast

TOKENS_PER_BATCH = 16_384


@dataclass(frozen=True)
class Evaluation:
    """`loss` in nats per token (end and marker tokens among them), `bpb` over the text's bytes."""

    loss: float
    bpb: float
    tokens: int
    bytes: int
    seconds: float
    # the model's own figures over the whole split (`LanguageModel.counting`)
    measures: dict[str, float] = field(default_factory=dict)


def evaluate(
    model: LanguageModel,
    data: PreparedData,
    dtype: torch.dtype,
    *,
    split: str = "val",
    rows: int = 0,
) -> Evaluation:
    """Score every token of a split once, in windows of the model's context that do not overlap; of
    conversations, the answers, and each conversation for itself.

    Bits per byte = total nats / (ln 2 x UTF-8 bytes of the text that is scored). `rows` windows go
    through the model at a time (0: about 16k tokens). Leaves the model's train/eval mode as it was.
    """
    started = time.perf_counter()
    context = model.config.context
    rows = rows or max(1, TOKENS_PER_BATCH // context)
    was_training = model.training
    model.eval()
    nats, tokens = 0.0, 0
    # of conversations only the answers are text that is scored
    sizes = token_sizes(data.tokenizer) if data.chat else None
    size = 0 if data.chat else data.byte_count(split)
    with torch.inference_mode(), autocast(model.device, dtype), model.counting() as measures:
        for x, y in split_windows(data, split, context, rows):
            if sizes is not None:
                size += int(sizes[y[y != IGNORE].numpy()].sum())
            y = y.to(model.device)
            hidden = model.hidden(x.to(model.device)).x
            nats += nats_per_token(hidden, model.head, y).sum().item()
            tokens += int((y != IGNORE).sum())
    model.train(was_training)
    return Evaluation(
        loss=nats / tokens,
        bpb=nats / (math.log(2) * size),
        tokens=tokens,
        bytes=size,
        seconds=time.perf_counter() - started,
        measures=measures,
    )


def evaluate_sets(
    model: LanguageModel, data: PreparedData, dtype: torch.dtype, *, rows: int = 0
) -> tuple[Evaluation, dict[str, Evaluation]]:
    """The validation part as `evaluate`, and that of each set where there are several.

    Together they are weighted as in training, so that the loss is that of the text which the model
    is trained for, however large the validation parts are: loss = sum of weight x loss of each set.
    """
    if not isinstance(data, CombinedData):
        return evaluate(model, data, dtype, rows=rows), {}
    found = [evaluate(model, part, dtype, rows=rows) for part in data.parts]
    loss = sum(w * one.loss for w, one in zip(data.weights, found, strict=True))
    # bytes of text per scored token, of which the weights are shares
    size = sum(w * one.bytes / one.tokens for w, one in zip(data.weights, found, strict=True))
    together = Evaluation(
        loss=loss,
        bpb=loss / (math.log(2) * size),
        tokens=sum(one.tokens for one in found),
        bytes=sum(one.bytes for one in found),
        seconds=sum(one.seconds for one in found),
        measures={
            name: sum(w * one.measures[name] for w, one in zip(data.weights, found, strict=True))
            for name in found[0].measures
            if all(name in one.measures for one in found)
        },
    )
    return together, dict(zip(data.labels, found, strict=True))


def calibrate(model: LanguageModel, data: PreparedData, dtype: torch.dtype) -> None:
    """Let the model set what only evaluation reads (`LanguageModel.calibrate`) by the tuning half
    of the validation split: at most 16k tokens, in windows from all over it. Leaves the model's
    mode as it was. Does nothing where the split is too small for a window."""
    context = model.config.context
    if data.token_count("val") < 2 * context:
        return
    parts = halves(data, context)[0]
    windows = [part[at : at + context] for part in parts for at in range(0, len(part), context)]
    whole = [window for window in windows if len(window) == context]
    count = max(1, min(len(whole), TOKENS_PER_BATCH // context))
    some = np.stack([whole[n * len(whole) // count] for n in range(count)]).astype(np.int64)
    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast(model.device, dtype):
        model.calibrate(torch.from_numpy(some).to(model.device))
    model.train(was_training)


@dataclass(frozen=True)
class HalfEvaluation:
    """Half of the validation part: `loss` in nats per token, `bpb` over the bytes of its text."""

    loss: float
    bpb: float
    tokens: int


def evaluate_halves(
    model: LanguageModel, data: PreparedData, dtype: torch.dtype
) -> tuple[HalfEvaluation, HalfEvaluation]:
    """The tune half and the test half of the validation part (`data.halves`), as `evaluate`.

    What chooses among runs (rates, settings) reads the first, what is reported is the second.
    """
    halved = half_streams(data, model.config.context)
    tune, test = (_score(model, data, dtype, part) for part in halved)
    return tune, test


def _score(
    model: LanguageModel,
    data: PreparedData,
    dtype: torch.dtype,
    part: TokenStream | DocumentSubset,
) -> HalfEvaluation:
    context, first = model.config.context, data.tokenizer.end
    rows = max(1, TOKENS_PER_BATCH // context)
    if isinstance(part, DocumentSubset):
        windows = conversation_windows(part, part.ends, context, rows, first)
    else:
        windows = eval_windows(part, context, rows, first)
    was_training = model.training
    model.eval()
    nats = 0.0
    scored: list[NDArray[Any]] = []
    with torch.inference_mode(), autocast(model.device, dtype):
        for x, y in windows:
            scored.append(y[y != IGNORE].numpy())
            y = y.to(model.device)
            hidden = model.hidden(x.to(model.device)).x
            nats += nats_per_token(hidden, model.head, y).sum().item()
    model.train(was_training)
    tokens = sum(map(len, scored))
    if isinstance(part, DocumentSubset):
        size = int(token_sizes(data.tokenizer)[np.concatenate(scored)].sum())
    else:
        size = sum(
            len(data.tokenizer.decode(block.tolist()).encode("utf-8")) for block in part.shards
        )
    return HalfEvaluation(nats / tokens, nats / (math.log(2) * size), tokens)


def model_measures(
    model: LanguageModel, data: PreparedData, dtype: torch.dtype
) -> dict[str, float]:
    """The model's own figures on the first validation window; leaves it in eval mode."""
    x = torch.from_numpy(data.split("val")[0][: model.config.context].astype("int64"))
    model.eval()
    with torch.inference_mode(), autocast(model.device, dtype):
        return model.measures(x[None].to(model.device))
