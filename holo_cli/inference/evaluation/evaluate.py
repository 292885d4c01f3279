"""How well a checkpoint predicts a text: nats per document, and the metrics derived from them.

The corpus (`eval_corpus.py`) is a token stream in which documents follow each other as in training,
each with its marker and end token. Every token is scored once. Markers and end tokens contribute
to the loss but not to bytes and words; `text_bpb` leaves their nats out as well.

    loss             nats / tokens
    bits per byte    nats / (ln 2 x UTF-8 bytes)      comparable between tokenizers
      of the text    the same without the nats of markers and end tokens
    perplexity       exp(loss)
    word perplexity  exp(nats / words)                comparable between tokenizers

Words are counted as in papers on WikiText: separated by white space, plus one `<eos>` per line.
Legend: T context, S stride, D documents.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from holo_cli.data.batches import conversation_windows, eval_windows
from holo_cli.data.windows import IGNORE, apart
from holo_cli.errors import DataError, UsageError
from holo_cli.inference.evaluation.eval_corpus import Texts
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.models.base import LanguageModel
from holo_cli.training.capacity import check_rows
from holo_cli.training.evaluate import TOKENS_PER_BATCH
from holo_cli.training.loss import nats_per_token
from holo_cli.training.precision import autocast
from holo_cli.wording import counted

OnProgress = Callable[[int, int], None]  # tokens scored so far, tokens in total


@dataclass(frozen=True)
class Score:
    """Sums over some documents, and the metrics derived from them.

    `special_nats` is the part of `nats` that markers and end tokens have.
    """

    nats: float
    tokens: int
    bytes: int
    words: int
    documents: int
    special_nats: float = 0.0

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def bpb(self) -> float:
        """Bits per UTF-8 byte; NaN for texts without bytes."""
        return self.nats / (math.log(2) * self.bytes) if self.bytes else math.nan

    @property
    def text_bpb(self) -> float:
        """Bits per UTF-8 byte of the text alone, without markers and end tokens."""
        nats = self.nats - self.special_nats
        return nats / (math.log(2) * self.bytes) if self.bytes else math.nan

    @property
    def perplexity(self) -> float:
        """Per token."""
        return _exp(self.loss)

    @property
    def word_perplexity(self) -> float:
        """Per word of the text; line ends count as words."""
        return _exp(self.nats / self.words) if self.words else math.nan

    def to_dict(self) -> dict[str, Any]:
        return {
            "loss": self.loss,
            "bpb": self.bpb,
            "text_bpb": self.text_bpb,
            "perplexity": self.perplexity,
            "word_perplexity": self.word_perplexity,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "words": self.words,
            "documents": self.documents,
        }


@dataclass(frozen=True)
class Result:
    """The scores of a corpus. `nats` are per document, (D,), as are those of its special tokens."""

    texts: Texts
    nats: NDArray[np.float64]
    special_nats: NDArray[np.float64]
    context: int
    stride: int | None  # None: the state was carried through the corpus
    seconds: float

    @cached_property
    def total(self) -> Score:
        return self._of(np.ones(len(self.nats), dtype=bool))

    @cached_property
    def per_language(self) -> dict[str, Score]:
        """By ISO 639-1 code, most tokens first; "" holds documents of unknown language."""
        codes = np.unique(self.texts.languages).tolist()
        scores = {code: self._of(self.texts.languages == code) for code in codes}
        return dict(sorted(scores.items(), key=lambda item: -item[1].tokens))

    def _of(self, chosen: NDArray[np.bool_]) -> Score:
        texts = self.texts
        return Score(
            nats=float(self.nats[chosen].sum()),
            tokens=int(texts.tokens[chosen].sum()),
            bytes=int(texts.bytes[chosen].sum()),
            words=int(texts.words[chosen].sum()),
            documents=int(chosen.sum()),
            special_nats=float(self.special_nats[chosen].sum()),
        )

    def to_dict(self) -> dict[str, Any]:
        """The keys of `holo eval --json` about the corpus."""
        return {
            **self.total.to_dict(),
            "context": self.context,
            "stride": self.stride,
            "per_language": {code: s.to_dict() for code, s in self.per_language.items()},
            "seconds": round(self.seconds, 3),
        }


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


# -- scoring --------------------------------------------------------------------------------------


def evaluate_texts(
    loaded: LoadedModel,
    texts: Texts,
    *,
    context: int | None = None,
    stride: int | None = None,
    carry: bool = False,
    rows: int = 0,
    progress: OnProgress = lambda done, total: None,
) -> Result:
    """Scores all of `texts`.

    `context` is T (default: the training context). Windows of T tokens start S = `stride` tokens
    apart (default: T), and each scores its last S. With `carry` there are no windows: the state is
    carried through the whole text, which only models of unlimited context support. Conversations
    are scored each for itself. `rows` windows form a batch (0: about 16k tokens). Raises UsageError
    for a context or stride that the model does not support."""
    model = loaded.model
    context = model.config.context if context is None else context
    _check(model, context, stride, carry, rows)
    begun, was_training = time.perf_counter(), model.training
    stride = stride or context
    # nothing is longer than the text: no window, no step, no batch
    window = min(context, texts.stream.length)
    step = min(stride, window)
    rows = min(rows or max(1, TOKENS_PER_BATCH // window), -(-texts.stream.length // step))
    check_rows(window, rows * model.config.width * 4, "--context", model.device)
    nats, special_nats = np.zeros((2, len(texts.ends)))
    specials = list(loaded.tokenizer.specials.values())
    done = 0
    total = texts.stream.length
    dtype = loaded.dtype or torch.float32
    model.eval()
    with torch.inference_mode(), autocast(model.device, dtype):
        scored = (
            _carried(model, texts, window) if carry else _windowed(model, texts, window, step, rows)
        )
        for values in scored:
            documents = np.searchsorted(
                texts.ends, np.arange(done, done + len(values)), side="right"
            )
            if texts.answers is not None:
                targets = texts.stream.read(done, len(values))
                texts.stream.mask(done, targets)
                values = np.where(targets == IGNORE, 0.0, values)
            special = np.isin(texts.stream.read(done, len(values)), specials)
            np.add.at(nats, documents, values)
            np.add.at(special_nats, documents[special], values[special])
            done += len(values)
            progress(done, total)
    model.train(was_training)
    assert done == total, "every token is scored once"
    if not np.isfinite(nats).all():
        raise DataError(
            "The model's loss on this text is NaN or infinity: its weights come from a training "
            "run that diverged.",
            next_step="Use an earlier checkpoint.",
        )
    return Result(
        texts, nats, special_nats, context, None if carry else stride, time.perf_counter() - begun
    )


def _check(model: LanguageModel, context: int, stride: int | None, carry: bool, rows: int) -> None:
    limit = model.context_limit
    if carry and limit is not None:
        raise UsageError(
            "This model does not support --carry: its context is limited to "
            f"{counted(limit, 'token')}.",
            next_step=f"Use --stride {max(1, limit // 2)} instead of --carry.",
        )
    if carry and stride is not None:
        raise UsageError("--carry and --stride cannot be combined.", next_step="Omit one of them.")
    if rows < 0:
        raise UsageError(
            f"--batch-size must be at least 0, not {rows}.", next_step="0 chooses it automatically."
        )
    if context < 1 or (limit is not None and context > limit):
        raise UsageError(
            f"This model does not support a context of {counted(context, 'token')}.",
            next_step="--context must be at least 1."
            if limit is None
            else f"--context must be from 1 to {limit}.",
        )
    if stride is not None and not 1 <= stride <= context:
        raise UsageError(
            f"--stride must be from 1 to the context of {counted(context, 'token')}, not {stride}.",
            next_step="A smaller stride takes longer and gives every token more context.",
        )


def _windowed(
    model: LanguageModel, texts: Texts, context: int, stride: int, rows: int
) -> Iterator[NDArray[np.float64]]:
    stream = texts.stream.unmasked()
    if texts.answers is None:
        windows = eval_windows(stream, context, rows, texts.first, stride)
    else:
        windows = conversation_windows(stream, texts.ends, context, rows, texts.first, stride)
    for x, y in windows:
        y = y.to(model.device)
        nats = nats_per_token(model.hidden(x.to(model.device)).x, model.head, y)
        yield nats[y != IGNORE].double().cpu().numpy()


def _carried(model: LanguageModel, texts: Texts, chunk: int) -> Iterator[NDArray[np.float64]]:
    stream = texts.stream.unmasked()
    # one text, or each conversation for itself
    parts = [stream] if texts.answers is None else apart(stream, texts.ends)
    for own in parts:
        state = model.init_state(1)
        for x, y in eval_windows(own, chunk, 1, texts.first):
            known = int((y != IGNORE).sum())
            x, y = x[:, :known].to(model.device), y[:, :known].to(model.device)
            hidden, state = model.step_hidden(x, state)
            yield nats_per_token(hidden, model.head, y)[0].double().cpu().numpy()
