"""Token ids in, token ids out: reads a prompt once, then decodes any number of rows together.

Legend: A rows still going, S positions of one step, C width, V vocabulary.

What is unusual:
- A `PrefixCache` (tokens, the state after them, the logits after them) is a value: it can be kept,
  gone on from, and gone on from again. A conversation reads only what is new through it.
- Text may grow past the model's context. The tokens that are read at a given length depend on
  that length alone (`window_start`), so decoding step by step equals starting anew at any point.
- No torch mode outlives a step: a caller who stops between two tokens finds torch as it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from holo_cli.errors import CheckpointError, UsageError
from holo_cli.inference.generation.sampling import (
    BANNED,
    SamplingConfig,
    make_generators,
    sample,
    shape_logits,
)
from holo_cli.models.base import LanguageModel, State

if TYPE_CHECKING:
    from holo_cli.inference.chat.knn_memory import Recall

PREFILL_CHUNK = 512  # tokens read at once: bounds the memory that a long prompt takes


def window_start(length: int, limit: int | None) -> int:
    """Where the model's view of `length` tokens begins, for a context of `limit` tokens.

    Nothing is dropped up to `limit`; each time the view would grow past it, half of it is dropped.
    Reading the other half again costs `limit / 2` tokens every `limit / 2` new ones: about twice
    the work of a token, whatever the length.

    >>> [window_start(n, 8) for n in (8, 9, 12, 13)]
    [0, 4, 4, 8]
    """
    if limit is None or length <= limit:
        return 0
    stride = limit - limit // 2
    return -(-(length - limit) // stride) * stride


@dataclass(frozen=True)
class PrefixCache:
    """Tokens that were read, and what the model made of them."""

    ids: tuple[int, ...]
    state: State  # one row
    logits: Tensor  # (1, V) of the token after them
    hidden: Tensor  # (1, C) of the last one

    def begins(self, ids: Sequence[int]) -> bool:
        """Whether `ids` begin with these tokens."""
        return self.ids == tuple(ids[: len(self.ids)])


class Engine:
    """Decodes with one model. `end` finishes a sample; `banned` ids are never sampled.

    `dtype` None or float32 computes as the weights are; another dtype runs under autocast.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        end: int | None = None,
        banned: Iterable[int] = (),
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.end = end
        self.banned = torch.tensor(sorted(set(banned)), dtype=torch.long)
        self.dtype = None if dtype is torch.float32 else dtype

    def generate(
        self,
        prompt: Sequence[int],
        config: SamplingConfig,
        known: Iterable[PrefixCache] = (),
        recall: Recall | None = None,
    ) -> Decoding:
        """Reads the prompt (at least one token), then decodes `config.num_samples` rows.

        The prompt is read before this returns; tokens are computed as they are asked for. `recall`
        is what earlier text has to say at each of them (episodes.py).
        """
        return Decoding(self, prompt, config, self.read(prompt, known), recall)

    def read(self, ids: Sequence[int], known: Iterable[PrefixCache] = ()) -> PrefixCache:
        """What the model makes of `ids`, going on from the longest of the `known` prefixes."""
        vocabulary = self.model.config.vocab_size
        if not ids:
            raise UsageError("There is nothing to go on from.", next_step="Give a prompt.")
        if max(ids) >= vocabulary or min(ids) < 0:
            raise CheckpointError(
                f"The prompt holds token {max(ids)}, but the model knows only {vocabulary}.",
                next_step="Use the tokenizer that the checkpoint was trained with.",
            )
        view = tuple(ids[window_start(len(ids), self.model.context_limit) :])
        best = max(
            (p for p in known if p.begins(view)),
            key=lambda p: len(p.ids),
            default=None,
        )
        if best is not None and len(best.ids) == len(view):
            return best
        read = 0 if best is None else len(best.ids)
        new = torch.tensor([view[read:]], device=self.model.device)  # (1, S)
        logits, hidden, state = self._advance(new, None if best is None else best.state)
        return PrefixCache(view, state, logits, hidden)

    def hidden_states(self, ids: Sequence[int]) -> Tensor:
        """Hidden states of a text read by itself, (L, C); no token sees more than the context."""
        stretch = self.model.context_limit or len(ids)
        found = []
        with self._mode(single=False):
            for first in range(0, len(ids), stretch):
                state = self.model.init_state(1)
                part = torch.tensor([ids[first : first + stretch]], device=self.model.device)
                for chunk in part.split(PREFILL_CHUNK, dim=1):
                    x, state = self.model.step_hidden(chunk, state)
                    found.append(x[0])
        return torch.cat(found)

    def _advance(self, tokens: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
        """(A, S) next tokens, and the state before them (None: nothing was read) -> the logits
        after the last one, (A, V), its hidden state, (A, C), and the state after it."""
        with self._mode(single=tokens.shape[1] == 1):
            if state is None:
                state = self.model.init_state(tokens.shape[0])
            for chunk in tokens.split(PREFILL_CHUNK, dim=1):
                x, state = self.model.step_hidden(chunk, state)
            logits = self.model.head(x[:, -1])
        if not bool(torch.isfinite(logits).all()):
            raise CheckpointError(
                "The model's output is not a number: its weights come from a run that diverged.",
                next_step="Generate from an earlier checkpoint, or train with a lower --lr.",
            )
        return logits, x[:, -1], state

    @contextmanager
    def _mode(self, single: bool) -> Iterator[None]:
        """Inference mode, eval mode and the dtype, for one step; all as before afterwards."""
        device = self.model.device.type
        training = self.model.training
        precision = torch.get_float32_matmul_precision()
        # On CPU, products with a single row are about twice as fast at the highest precision.
        highest = single and device == "cpu" and precision != "highest"
        if training:
            self.model.eval()
        if highest:
            torch.set_float32_matmul_precision("highest")
        cast = torch.autocast(device, self.dtype) if self.dtype is not None else nullcontext()
        try:
            with torch.inference_mode(), cast:
                yield
        finally:
            if highest:
                torch.set_float32_matmul_precision(precision)
            if training:
                self.model.train()


class Decoding(Iterator[list[int | None]]):
    """Yields, step by step, one new token for each sample, None for those that are finished.

    `finish[row]` is "" while a sample goes on, then "end" (the model ended the text), "length"
    (max_new_tokens), or what `stop` was given. The end token itself is not yielded. `ids[row]` are
    prompt and new tokens; `seconds` is the time spent on new tokens, the reader's time excluded.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Sequence[int],
        config: SamplingConfig,
        prefix: PrefixCache,
        recall: Recall | None = None,
    ) -> None:
        rows = config.num_samples
        self.ids = [list(prompt) for _ in range(rows)]
        self.finish = [""] * rows
        self.seconds = 0.0
        self._engine = engine
        self._config = config
        self._prompt_length = len(prompt)
        self._generators = make_generators(config)
        self._state = prefix.state
        if rows > 1:
            self._state = prefix.state.select(prefix.logits.new_zeros(rows, dtype=torch.long))
        self._logits = prefix.logits.expand(rows, -1)
        self._hidden = prefix.hidden.expand(rows, -1)
        self._recall = recall
        self._batch = list(range(rows))  # the rows that state and logits hold, in order
        self._read = len(prompt)  # how many tokens of each row the state has read

    def __next__(self) -> list[int | None]:
        began = time.perf_counter()
        going = [row for row in self._batch if not self.finish[row]]
        if not going:
            raise StopIteration
        if len(self.ids[going[0]]) > self._read:
            self._step(going)
        tokens = self._draw(going)
        new: list[int | None] = [None] * len(self.finish)
        for row, token in zip(going, tokens, strict=True):
            if token == self._engine.end:
                self.finish[row] = "end"
                continue
            new[row] = token
            self.ids[row].append(token)
            if len(self.ids[row]) - self._prompt_length == self._config.max_new_tokens:
                self.finish[row] = "length"
        self.seconds += time.perf_counter() - began
        if all(token is None for token in new):
            raise StopIteration
        return new

    def stop(self, row: int, reason: str = "stop") -> None:
        """Ends one sample from outside: a stop string was found, or nobody reads on."""
        self.finish[row] = self.finish[row] or reason

    def new_tokens(self, row: int) -> list[int]:
        """The tokens of a sample after the prompt."""
        return self.ids[row][self._prompt_length :]

    @property
    def state(self) -> State:
        """The model's state after the last token read, of the rows that went on till then."""
        return self._state

    def prefix(self) -> PrefixCache:
        """What has been read of the only row, to go on from later; its last token may be unread."""
        assert len(self.ids) == 1, "a prefix belongs to one row"
        start = window_start(self._read, self._engine.model.context_limit)
        ids = tuple(self.ids[0][start : self._read])
        return PrefixCache(ids, self._state, self._logits, self._hidden)

    def _step(self, going: list[int]) -> None:
        """Reads the last token of the rows that go on; finished rows leave the batch."""
        limit = self._engine.model.context_limit
        length = self._read + 1
        start = window_start(length, limit)
        device = self._engine.model.device
        state: State | None = self._state
        if start != window_start(self._read, limit):  # the view slides: read its later half again
            state = None
        elif going != self._batch:
            keep = [self._batch.index(row) for row in going]
            state = self._state.select(torch.tensor(keep, device=device))
        first = start if state is None else self._read
        tokens = torch.tensor([self.ids[row][first:] for row in going], device=device)
        self._logits, self._hidden, self._state = self._engine._advance(tokens, state)
        self._batch, self._read = going, length

    def _draw(self, going: list[int]) -> list[int]:
        """One token for each row that goes on."""
        keep = [self._batch.index(row) for row in going]
        logits = self._logits[keep]  # a copy: (A, V)
        if self._recall is not None:
            logits = self._recall.mix(logits, self._hidden[keep])
        if self._engine.banned.numel():
            logits[:, self._engine.banned.to(logits.device)] = BANNED
        history = [self.ids[row] for row in going]
        logits = shape_logits(logits, history, self._config, exempt=self._engine.end)
        chosen = None if self._generators is None else [self._generators[row] for row in going]
        return [int(token) for token in sample(logits, chosen).tolist()]
