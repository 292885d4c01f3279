"""Token ids in, token ids out: prefills a prompt once, then decodes any number of rows in a batch.

Legend: A active rows, S positions of one step, C width, V vocabulary.

Design notes:
- A `PrefixCache` (tokens, the state after them, the logits after them) is an immutable value: it
  can be kept and continued from any number of times. A conversation prefills only its new tokens.
- Text may grow past the model's context. Which tokens the model sees at a given length depends on
  that length alone (`window_start`), so incremental decoding equals recomputing from scratch.
- Compiled, the state is in the buffers of a `CompiledStep`; rows that are finished stay in it, and
  their tokens are not looked at.
- With `draft_layers` logits come from `speculation.py`; every token is drawn here all the same.
- Inference mode, eval mode and autocast are restored after each step, so a caller that stops
  between two tokens finds torch in the mode it left it in.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from holo_cli.errors import CheckpointError, UsageError
from holo_cli.inference.generation.logits import BANNED, sample, shape_logits
from holo_cli.inference.generation.sampling import SamplingConfig, make_generators
from holo_cli.inference.generation.speculation import (
    DraftCounts,
    Guess,
    Speculation,
    check_drafting,
)
from holo_cli.inference.generation.whole_characters import WholeCharacters
from holo_cli.models.base import LanguageModel, State

if TYPE_CHECKING:
    from holo_cli.inference.generation.compiled_step import CompiledStep

PREFILL_CHUNK = 512  # tokens per prefill step; bounds the memory that a long prompt takes


class LogitsMixer(Protocol):
    """Changes the model's next-token distribution before sampling, e.g. a kNN memory."""

    def mix(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """Logits (A, V) and the hidden states they came from (A, C) -> logits (A, V)."""
        ...


def window_start(length: int, limit: int | None) -> int:
    """First position of `length` tokens that the model sees, for a context of `limit` tokens.

    Nothing is dropped up to `limit`; each time the window would exceed it, its older half is
    dropped. Prefilling the other half again costs `limit / 2` tokens every `limit / 2` new tokens,
    so a token costs about twice as much as within the context, at any length.

    >>> [window_start(n, 8) for n in (8, 9, 12, 13)]
    [0, 4, 4, 8]
    """
    if limit is None or length <= limit:
        return 0
    stride = limit - limit // 2
    return -(-(length - limit) // stride) * stride


class Recalled(NamedTuple):
    """What a suffix memory can propose from beside the tokens that the model reads, as token ids:
    other texts, and what stands before the context in the same text."""

    texts: tuple[tuple[int, ...], ...] = ()
    past: tuple[int, ...] = ()


NOTHING_RECALLED = Recalled()


@dataclass(frozen=True)
class PrefixCache:
    """Tokens the model has read, with its state, logits and hidden state after the last of them."""

    ids: tuple[int, ...]
    state: State  # one row
    logits: Tensor  # (1, V), of the next token
    hidden: Tensor  # (1, C), at the last token
    recalled: Recalled = NOTHING_RECALLED

    def is_prefix_of(self, ids: Sequence[int], recalled: Recalled = NOTHING_RECALLED) -> bool:
        """Whether `ids` start with the cached tokens, and the same can be recalled."""
        return self.recalled == recalled and self.ids == tuple(ids[: len(self.ids)])


class Engine:
    """Decodes with one model. The token `end` finishes a sample; `banned` ids are never sampled.

    `breakers` are ids that a repeated span never runs across. With `characters` every sample
    consists of whole characters, if its prompt does.
    `dtype` None or float32 computes in the dtype of the weights; others run under autocast.
    `compile_steps` makes steps by torch.compile (`compiled_step.py`), with `backend` if that is
    not None.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        end: int | None = None,
        banned: Iterable[int] = (),
        breakers: Iterable[int] = (),
        characters: WholeCharacters | None = None,
        dtype: torch.dtype | None = None,
        compile_steps: bool = False,
        backend: str | None = None,
    ) -> None:
        self.model = model
        self.end = end
        self.banned = torch.tensor(sorted(set(banned)), dtype=torch.long)
        self.breakers = frozenset(breakers)
        self.characters = characters
        self.dtype = None if dtype is torch.float32 else dtype
        self.compile_steps, self.backend = compile_steps, backend
        # by rows, positions, and positions of what is recalled
        self._steps: dict[tuple[int, int, int], CompiledStep] = {}

    def generate(
        self,
        prompt: Sequence[int],
        config: SamplingConfig,
        caches: Iterable[PrefixCache] = (),
        mixer: LogitsMixer | None = None,
        texts: Sequence[tuple[int, ...]] = (),
    ) -> Decoding:
        """Prefills the prompt (at least one token), then decodes `config.num_samples` rows.

        The prefill happens before this returns; new tokens are computed as the result is iterated.
        `mixer` changes the logits of every new token before sampling; `texts` are token ids that a
        suffix memory can propose from. Raises UsageError where the model cannot draft and the
        config says so, or cannot be compiled.
        """
        if self.compile_steps:
            from holo_cli.inference.generation.compiled_step import check_compiling

            check_compiling(self.model, config)
        elif config.draft_layers:
            check_drafting(self.model, config)
        return Decoding(self, prompt, config, self.prefill(prompt, caches, texts), mixer)

    def recalled(self, texts: Sequence[tuple[int, ...]], before: Sequence[int]) -> Recalled:
        """What can be recalled where the context begins after the tokens `before` of a text;
        nothing by a model without a suffix memory."""
        if not self.model.can_recall:
            return NOTHING_RECALLED
        past = list(before)
        if self.end in past:  # no match across the end of a document
            past = past[len(past) - past[::-1].index(self.end) :]
        return Recalled(tuple(texts), tuple(past))

    def start(self, recalled: Sequence[Recalled]) -> State:
        """The state before the first token that is read, for rows that recall the same texts."""
        state = self.model.init_state(len(recalled))
        if not any(recalled[0]):
            return state
        return self.model.recalling(state, recalled[0].texts, [row.past for row in recalled])

    def prefill(
        self,
        ids: Sequence[int],
        caches: Iterable[PrefixCache] = (),
        texts: Sequence[tuple[int, ...]] = (),
    ) -> PrefixCache:
        """Reads `ids`, continuing from the longest cache that is a prefix of them; `texts` as for
        `generate`.

        Raises UsageError for no ids, CheckpointError for ids outside the model's vocabulary.
        """
        vocabulary = self.model.config.vocab_size
        if not ids:
            raise UsageError("The prompt is empty.", next_step="Give a prompt.")
        if max(ids) >= vocabulary or min(ids) < 0:
            raise CheckpointError(
                f"The prompt contains token {max(ids)}, but the model's vocabulary has "
                f"{vocabulary} tokens.",
                next_step="Use the tokenizer that the checkpoint was trained with.",
            )
        first = window_start(len(ids), self.model.context_limit)
        window, recalled = tuple(ids[first:]), self.recalled(texts, ids[:first])
        best = max(
            (cache for cache in caches if cache.is_prefix_of(window, recalled)),
            key=lambda cache: len(cache.ids),
            default=None,
        )
        if best is not None and len(best.ids) == len(window):
            return best
        cached = 0 if best is None else len(best.ids)
        new = torch.tensor([window[cached:]], device=self.model.device)  # (1, S)
        before = self.start([recalled]) if best is None else best.state
        logits, hidden, state = self.advance(new, before)
        return PrefixCache(window, state, logits, hidden, recalled)

    def step_of(self, state: State, rows: int, length: int) -> CompiledStep:
        """The compiled step for `rows` rows that may become `length` tokens long, of which `state`
        is one; compiled where none is yet."""
        from holo_cli.inference.generation.compiled_step import CompiledStep, room_for

        key = rows, room_for(self.model, length), self.model.recalled_positions(state)
        if key not in self._steps:
            self._steps[key] = CompiledStep(
                self.model, state, key[1], lambda: self.mode(single=True), self.backend
            )
        return self._steps[key]

    @property
    def compile_seconds(self) -> float:
        """What compiling took so far."""
        return sum(step.seconds for step in self._steps.values())

    def hidden_states(self, ids: Sequence[int]) -> Tensor:
        """Hidden states (L, C) of a text of L tokens, read from an empty state in segments of the
        model's context length (in one segment if the context is unlimited)."""
        length = self.model.context_limit or len(ids)
        found = []
        with self.mode(single=False):
            for first in range(0, len(ids), length):
                state = self.model.init_state(1)
                segment = torch.tensor([ids[first : first + length]], device=self.model.device)
                for chunk in segment.split(PREFILL_CHUNK, dim=1):
                    x, state = self.model.step_hidden(chunk, state)
                    found.append(x[0])
        return torch.cat(found)

    def advance(self, tokens: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
        """(A, S) next tokens and the state before them (None: empty) -> logits after the last
        token (A, V), its hidden state (A, C), and the state after it."""
        with self.mode(single=tokens.shape[1] == 1):
            if state is None:
                state = self.model.init_state(tokens.shape[0])
            for chunk in tokens.split(PREFILL_CHUNK, dim=1):
                x, state = self.model.step_hidden(chunk, state)
            logits = self.model.head(x[:, -1])
        return self.checked(logits), x[:, -1], state

    def checked(self, logits: Tensor) -> Tensor:
        """The logits. Raises CheckpointError if they are not finite."""
        if not bool(torch.isfinite(logits).all()):
            raise CheckpointError(
                "The model's output contains NaN or infinity: its weights come from a training run "
                "that diverged.",
                next_step="Generate from an earlier checkpoint, or train with a lower --lr.",
            )
        return logits

    @contextmanager
    def mode(self, single: bool) -> Iterator[None]:
        """Inference mode, eval mode and autocast for one step; restores all of them."""
        device = self.model.device.type
        training = self.model.training
        precision = torch.get_float32_matmul_precision()
        # On CPU, matrix products with a single row are about twice as fast at "highest".
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
    """Yields, at each step, one new token per sample, or None for samples that are finished.

    `finish[row]` is "" while a sample is active, then "end" (the model ended the text), "length"
    (max_new_tokens), or the reason given to `stop`. The end token itself is not yielded.
    `ids[row]` holds prompt and new tokens; `seconds` is the time spent computing new tokens,
    excluding the time the caller takes between steps.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Sequence[int],
        config: SamplingConfig,
        prefix: PrefixCache,
        mixer: LogitsMixer | None = None,
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
        self._mixer = mixer
        self._recalled = prefix.recalled
        self._begun = [b""] * rows  # bytes of a character that is not whole yet
        self._batch = list(range(rows))  # the rows in state and logits, in order
        self._position = len(prompt)  # tokens of each row that the state has read
        self._speculation: Speculation | None = None
        self._compiled: CompiledStep | None = None
        if engine.compile_steps:
            longest = len(prompt) + config.max_new_tokens
            self._compiled = engine.step_of(self._state, rows, longest)
        elif config.draft_layers:
            self._speculation = Speculation(engine, config.draft_layers, self._state)

    def __next__(self) -> list[int | None]:
        began = time.perf_counter()
        active = [row for row in self._batch if not self.finish[row]]
        if not active:
            raise StopIteration
        if len(self.ids[active[0]]) > self._position:
            self._step(active)
        tokens = self._draw(active)
        new: list[int | None] = [None] * len(self.finish)
        for row, token in zip(active, tokens, strict=True):
            if token == self._engine.end:
                self.finish[row] = "end"
                continue
            new[row] = token
            self.ids[row].append(token)
            if self._engine.characters is not None:
                self._begun[row] = self._engine.characters.after(self._begun[row], token)
            if len(self.ids[row]) - self._prompt_length == self._config.max_new_tokens:
                self.finish[row] = "length"
        self.seconds += time.perf_counter() - began
        if all(token is None for token in new):
            raise StopIteration
        return new

    def stop(self, row: int, reason: str = "stop") -> None:
        """Finishes one sample, e.g. because a stop string was found."""
        self.finish[row] = self.finish[row] or reason

    def new_tokens(self, row: int) -> list[int]:
        """The tokens of a sample after the prompt."""
        return self.ids[row][self._prompt_length :]

    @property
    def state(self) -> State:
        """The model's state after the last token read, of the rows active at that step."""
        if self._compiled is not None and self._compiled.user() is self:
            return self._compiled.value()
        return self._state if self._speculation is None else self._speculation.state

    @property
    def drafted(self) -> DraftCounts | None:
        """What was guessed so far; None without drafting."""
        return None if self._speculation is None else self._speculation.counts

    def prefix(self) -> PrefixCache:
        """A cache of the only row as far as it was read; its last token may not be included."""
        assert len(self.ids) == 1, "a prefix cache holds one row"
        start = window_start(self._position, self._engine.model.context_limit)
        ids = tuple(self.ids[0][start : self._position])
        recalled = self._engine.recalled(self._recalled.texts, self.ids[0][:start])
        return PrefixCache(ids, self.state, self._logits, self._hidden, recalled)

    def _restart(self, rows: Sequence[int], start: int) -> State:
        """The state of these rows before the window that begins at `start`."""
        engine, texts = self._engine, self._recalled.texts
        return engine.start([engine.recalled(texts, self.ids[row][:start]) for row in rows])

    def restore(self, state: State) -> None:
        """Takes the state from the buffers of a compiled step, which another decoding uses now."""
        self._state = state

    def _compiled_step(self, step: CompiledStep) -> None:
        """Reads the next token of all rows; what a finished row reads does not matter."""
        engine, length = self._engine, self._position + 1
        limit = engine.model.context_limit
        start = window_start(length, limit)
        moved = start != window_start(self._position, limit)
        first = start if moved else self._position
        rows = [(ids + [ids[-1]] * (length - len(ids)))[first:] for ids in self.ids]
        tokens = torch.tensor(rows, device=engine.model.device)
        if moved:  # prefill again
            before = self._restart(range(len(self.ids)), start)
            self._logits, self._hidden, self._state = engine.advance(tokens, before)
            longest = self._prompt_length + self._config.max_new_tokens
            # what is recalled may need more room now
            self._compiled = step = engine.step_of(self._state, len(self.ids), longest)
            step.take(self, self._state)
        else:
            if step.user() is not self:
                step.take(self, self._state)
            logits, self._hidden = step.read(tokens)
            self._logits = engine.checked(logits)
        self._position = length

    def _step(self, active: list[int]) -> None:
        """Reads the last token of the active rows; finished rows leave the batch."""
        if self._compiled is not None:
            self._compiled_step(self._compiled)
            return
        limit = self._engine.model.context_limit
        length = self._position + 1
        start = window_start(length, limit)
        device = self._engine.model.device
        state = self._state
        if self._speculation is not None and start == window_start(self._position, limit):
            token, most = self.ids[0][-1], self._guesses(length - start)
            self._logits, self._hidden = self._speculation.read(token, most, self._guess())
            self._position = length
            return
        moved = start != window_start(self._position, limit)
        if moved:  # prefill again
            state = self._restart(active, start)
        elif active != self._batch:
            keep = [self._batch.index(row) for row in active]
            state = self._state.select(torch.tensor(keep, device=device))
        first = start if moved else self._position
        tokens = torch.tensor([self.ids[row][first:] for row in active], device=device)
        self._logits, self._hidden, self._state = self._engine.advance(tokens, state)
        self._batch, self._position = active, length
        if self._speculation is not None:
            self._speculation.restart(self._state)

    def _guesses(self, seen: int) -> int:
        """The most tokens to guess after the model has seen `seen`: no more than are still to be
        drawn or fit into the context."""
        config, limit = self._config, self._engine.model.context_limit
        most = config.max_new_tokens - (len(self.ids[0]) - self._prompt_length) - 1
        if limit is not None:
            most = min(most, limit - seen)
        return max(0, min(config.draft_tokens, most))

    def _guess(self) -> Guess:
        """Chooses as `_draw` will, with a copy of its random numbers; whole characters and the
        mixer are left to it."""
        copies = None
        if self._generators is not None:
            copies = [torch.Generator().set_state(self._generators[0].get_state())]

        def guess(logits: Tensor, guessed: list[int]) -> int:
            history = [self.ids[0] + guessed]
            return int(self._choose(self._allowed(logits.clone()), history, copies))

        return guess

    def _draw(self, active: list[int]) -> list[int]:
        keep = [self._batch.index(row) for row in active]
        logits = self._logits[keep]  # a copy: (A, V)
        if self._mixer is not None:
            logits = self._mixer.mix(logits, self._hidden[keep])
        logits = self._allowed(logits)
        if self._engine.characters is not None:
            most = self._prompt_length + self._config.max_new_tokens - 1
            left = [most - len(self.ids[row]) for row in active]
            starts = [self._begun[row] for row in active]
            logits = self._engine.characters.exclude(logits, starts, left)
        chosen = None if self._generators is None else [self._generators[row] for row in active]
        drawn = self._choose(logits, [self.ids[row] for row in active], chosen)
        return [int(token) for token in drawn.tolist()]

    def _allowed(self, logits: Tensor) -> Tensor:
        """Logits (A, V), in place, without the ids that are never sampled."""
        if self._engine.banned.numel():
            logits[:, self._engine.banned.to(logits.device)] = BANNED
        return logits

    def _choose(
        self,
        logits: Tensor,
        history: list[list[int]],
        generators: Sequence[torch.Generator] | None,
    ) -> Tensor:
        """Logits (A, V) and the tokens of each row -> the next tokens, (A,)."""
        logits = shape_logits(
            logits,
            history,
            self._config,
            exempt=self._engine.end,
            breakers=self._engine.breakers,
            prompt=self._prompt_length,
        )
        return sample(logits, generators)
