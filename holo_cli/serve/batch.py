"""The rows of one model that are being written, and the steps that write them.

Rows that can be computed together form a group with one state (`layers/joined.py`); a step draws a
token for every row and reads it, group by group. Rows join and leave between two steps. What a row
draws depends on its own tokens, its sampling rules and its generator alone.

**Equal to the last token.** Sums over a batch are rounded otherwise than those of a row alone, by
some 1e-6 of a logit. Where a greedy row's two best tokens are closer than NEAR, its logits are
computed again as for a row alone, and decide.

Legend: R rows of a group, V vocabulary, C width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from holo_cli.errors import HoloError
from holo_cli.inference.generation.engine import PrefixCache, window_start
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.generation.logits import BANNED, sample, shape_logits
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.inference.generation.stream import ids_of_text
from holo_cli.layers.joined import joined_states, row_of, state_kind
from holo_cli.models.base import State
from holo_cli.serve.prefixes import Prefixes
from holo_cli.serve.refusal import Refusal
from holo_cli.serve.rows import BatchRow, TokenScore
from holo_cli.serve.scoring import scored, scored_prompt

NEAR = 1e-4  # of logits in float32; what rounding moves them by is a hundredth of it
FAILURES = (HoloError, RuntimeError, MemoryError)  # torch raises RuntimeError, out of memory too


@dataclass
class RowGroup:
    """Rows with one state, in order, and what follows the last token that each has read."""

    rows: list[BatchRow]
    state: State
    logits: Tensor  # (R, V)
    hidden: Tensor  # (R, C)


@dataclass
class Counts:
    """What was done so far, for /metrics."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    steps: int = 0
    rows_read: int = 0  # rows x steps: divided by `passes` it is the mean batch
    passes: int = 0
    near_ties: int = 0


class Batch:
    """All active rows of one model. Used by the computing thread alone."""

    def __init__(self, loaded: LoadedModel, prefixes: Prefixes) -> None:
        self.loaded = loaded
        self.engine = loaded.engine
        self.prefixes = prefixes
        self.groups: list[RowGroup] = []
        self.counts = Counts()

    def __len__(self) -> int:
        return sum(len(group.rows) for group in self.groups)

    def rows(self) -> Iterable[BatchRow]:
        """All of them."""
        return (row for group in self.groups for row in group.rows)

    def admit(self, row: BatchRow) -> None:
        """Reads a row's prompt; the row joins the others at the next step."""
        if row.job.cancelled:
            return

        def read() -> None:
            if row.job.echo and row.job.logprobs is not None:
                scores, cache = scored_prompt(self.engine, row.ids, row.job.logprobs)
                row.emit(scores=tuple(scores))
            else:
                cache = self._prefilled(row)
            self.counts.prompt_tokens += len(row.ids)
            self.counts.cached_tokens += row.cached_tokens
            if row.job.nothing_new:
                row.finish = "length"
                row.emit(finish="length")
            else:
                self.groups.append(RowGroup([row], cache.state, cache.logits, cache.hidden))

        self._guarded([row], read)

    def _prefilled(self, row: BatchRow) -> PrefixCache:
        """The state after a row's prompt, from a kept one where there is one."""
        job = row.job
        if job.prompt is not None and list(job.prompt.ids) == row.ids:
            return job.prompt  # another answer to the same prompt: read once, as alone
        known = self.prefixes.find(row.ids) if job.keep else None
        cache = self.engine.prefill(row.ids, [] if known is None else [known])
        if known is not None:
            row.cached_tokens, row.mixed = len(known.ids), True
        elif len(job.rows) > 1:
            job.prompt = cache
        if job.keep:
            self.prefixes.keep(cache)
        return cache

    def step(self) -> None:
        """One more token for every row."""
        for group in self.groups:
            self._remove(group, [row for row in group.rows if row.job.cancelled])
        self.groups = [group for group in self.groups if group.rows]
        if not self.groups:
            return
        self.counts.steps += 1
        for group in self.groups:
            self._guarded(group.rows, lambda group=group: self._draw(group))  # type: ignore[misc]
            done = [row for row in group.rows if row.finish]
            self._guarded(done, lambda group=group: self._keep(group))  # type: ignore[misc]
            self._remove(group, done)
        self.groups = [group for group in self.groups if group.rows]
        moved = self._move_windows()
        self._join()
        for group in self.groups:
            self._guarded(group.rows, lambda group=group: self._read(group))  # type: ignore[misc]
        self.groups = [g for g in self.groups if not g.rows[0].finish] + moved

    def fail(self, rows: Iterable[BatchRow], refusal: Refusal) -> None:
        """Ends rows with an error."""
        for row in rows:
            if not row.finish:
                row.finish = "failed"
                row.emit(refusal=refusal)

    def _guarded(self, rows: list[BatchRow], work: Callable[[], None]) -> None:
        """Does something for rows; where it fails, they alone end with an error."""
        try:
            work()
        except FAILURES as error:
            reason = getattr(error, "message", f"{type(error).__name__}: {error}")
            self.fail(rows, Refusal(500, reason, code="model_failed"))

    # -- drawing ----------------------------------------------------------------------------------

    def _draw(self, group: RowGroup) -> None:
        """The next token of each row: drawn, shown, and its end noticed."""
        alike: dict[SamplingConfig, list[int]] = {}
        for place, row in enumerate(group.rows):
            alike.setdefault(row.job.rules, []).append(place)
        for rules, places in alike.items():
            rows = [group.rows[place] for place in places]
            raw = group.logits[places]
            shaped = self._shaped(raw, rows, rules)
            if rules.is_greedy:
                tokens = self._greedy_tokens(shaped, rows, rules)
            else:
                generators = [row.generator for row in rows if row.generator is not None]
                tokens = sample(shaped, generators).tolist()
            scores = self._scores(raw, rows, tokens)
            for row, token, score in zip(rows, tokens, scores, strict=True):
                self._append(row, token, score)

    def _shaped(self, logits: Tensor, rows: list[BatchRow], rules: SamplingConfig) -> Tensor:
        """Logits (R, V) -> those to draw from."""
        engine = self.engine
        logits = logits.clone()
        if engine.banned.numel():
            logits[:, engine.banned.to(logits.device)] = BANNED
        if engine.characters is not None:
            left = [row.job.sampling.max_new_tokens - row.new_tokens - 1 for row in rows]
            logits = engine.characters.exclude(logits, [row.begun for row in rows], left)
        history = [row.ids for row in rows]
        return shape_logits(logits, history, rules, exempt=engine.end, breakers=engine.breakers)

    def _greedy_tokens(
        self, shaped: Tensor, rows: list[BatchRow], rules: SamplingConfig
    ) -> list[int]:
        """The best tokens; those of near ties by the logits of the row alone."""
        best = shaped.topk(2, dim=-1).values
        close = (best[:, 0] - best[:, 1] < NEAR).tolist()
        tokens: list[int] = shaped.argmax(dim=-1).tolist()
        for place, row in enumerate(rows):
            if close[place] and row.mixed:
                self.counts.near_ties += 1
                alone = self._shaped(self._recomputed(row), [row], rules)
                tokens[place] = int(alone.argmax(dim=-1))
        return tokens

    def _recomputed(self, row: BatchRow) -> Tensor:
        """The next logits of a row, (1, V), as if it had been computed alone from its prompt on."""
        engine, limit = self.engine, self.loaded.model.context_limit
        cache = engine.prefill(row.ids[: row.prompt_length])
        for length in range(row.prompt_length + 1, len(row.ids) + 1):
            if window_start(length, limit) != window_start(length - 1, limit):
                cache = engine.prefill(row.ids[:length])
                continue
            token = torch.tensor([[row.ids[length - 1]]], device=self.loaded.model.device)
            logits, hidden, state = engine.advance(token, cache.state)
            cache = PrefixCache((), state, logits, hidden)
        return cache.logits

    def _scores(
        self, raw: Tensor, rows: list[BatchRow], tokens: list[int]
    ) -> list[tuple[TokenScore, ...]]:
        found: list[tuple[TokenScore, ...]] = [()] * len(rows)
        for place, row in enumerate(rows):
            if row.job.logprobs is not None:
                found[place] = tuple(
                    scored(raw[place : place + 1], [tokens[place]], row.job.logprobs)
                )
        return found

    def _append(self, row: BatchRow, token: int, score: tuple[TokenScore, ...]) -> None:
        """Adds a token to a row and reports it."""
        self.counts.new_tokens += 1
        if token == self.engine.end:
            row.finish = "end"
            row.emit(row.stream.flush(), finish="stop")
            return
        row.ids.append(token)
        if self.engine.characters is not None:
            row.begun = self.engine.characters.after(row.begun, token)
        text = row.stream.push(token)
        if row.stream.stopped:
            row.finish = "stop"
        elif row.new_tokens >= row.job.sampling.max_new_tokens:
            row.finish = "length"
            text += row.stream.flush()
            # the text held back may have been the beginning of a stop string, and was not
            if row.stream.stopped:
                row.finish = "stop"
        row.emit(text, score, row.finish)

    # -- joining and leaving ----------------------------------------------------------------------

    def _keep(self, group: RowGroup) -> None:
        """Keeps the states of finished rows for the next turns of their conversations."""
        for place, row in enumerate(group.rows):
            if not row.finish or not row.job.keep or not self.prefixes.budget:
                continue
            read = len(row.ids) - (row.finish != "end")  # the last token is drawn, and not read
            start = window_start(read, self.loaded.model.context_limit)
            at = slice(place, place + 1)
            state = row_of(group.state, place) if len(group.rows) > 1 else group.state
            ids, recalled = row.ids[start:read], self.engine.recalled((), row.ids[:start])
            logits, hidden = group.logits[at].clone(), group.hidden[at].clone()
            self.prefixes.keep(PrefixCache(tuple(ids), state, logits, hidden, recalled))
            text, new = row.stream.text, row.ids[row.prompt_length :]
            self.prefixes.keep_answer(text, ids_of_text(self.loaded.tokenizer, new, text))

    def _remove(self, group: RowGroup, rows: list[BatchRow]) -> None:
        """Takes rows out of a group."""
        if not rows:
            return
        gone = {id(row) for row in rows}
        keep = [place for place, row in enumerate(group.rows) if id(row) not in gone]
        group.rows = [group.rows[place] for place in keep]
        if len(keep) == 1:
            group.state = row_of(group.state, keep[0])
        elif keep:
            group.state = group.state.select(torch.tensor(keep, device=group.logits.device))
        group.logits, group.hidden = group.logits[keep], group.hidden[keep]

    def _move_windows(self) -> list[RowGroup]:
        """Rows whose text outgrows the context read its later half again, each alone."""
        limit = self.loaded.model.context_limit
        if limit is None:
            return []
        moved: list[RowGroup] = []
        for group in self.groups:
            moving = [
                row
                for row in group.rows
                if window_start(len(row.ids), limit) != window_start(len(row.ids) - 1, limit)
            ]
            self._remove(group, moving)
            for row in moving:

                def read(row: BatchRow = row) -> None:
                    cache = self.engine.prefill(row.ids)
                    moved.append(RowGroup([row], cache.state, cache.logits, cache.hidden))

                self._guarded([row], read)
        self.groups = [group for group in self.groups if group.rows]
        return moved

    def _join(self) -> None:
        """Groups of the same kind of state become one."""
        if len(self.groups) < 2:
            return
        mixed = self.loaded.model.mixed_lengths
        kinds: dict[object, list[RowGroup]] = {}
        for group in self.groups:
            kinds.setdefault(state_kind(group.state, mixed), []).append(group)
        self.groups = []
        for alike in kinds.values():
            if len(alike) == 1:
                self.groups += alike
                continue
            rows = [row for group in alike for row in group.rows]
            state = joined_states([group.state for group in alike])
            logits = torch.cat([group.logits for group in alike])
            hidden = torch.cat([group.hidden for group in alike])
            self.groups.append(RowGroup(rows, state, logits, hidden))

    def _read(self, group: RowGroup) -> None:
        """Reads the token that each row has drawn."""
        device = self.loaded.model.device
        tokens = torch.tensor([[row.ids[-1]] for row in group.rows], device=device)
        group.logits, group.hidden, group.state = self.engine.advance(tokens, group.state)
        self.counts.passes += 1
        self.counts.rows_read += len(group.rows)
        if len(group.rows) > 1:
            for row in group.rows:
                row.mixed = True
