"""Self-speculation: a model's first layers guess tokens ahead, and one pass of all layers checks.

Decoding stays what it is: one draw for each token, from the whole model's logits, by all rules.
What is new is where these logits come from. After a token the first layers guess the next few, by
the same rules and with a copy of the same random numbers; the remaining layers then compute the
logits at all of these places at once. As long as the tokens drawn are those guessed, their logits
are there already; at the first that is not, the rest is taken back. So the text is that of decoding
without guesses, for each seed, up to the rounding of a product of several rows instead of one; its
distribution is the model's. (Rejection sampling, Leviathan et al. 2022, arXiv 2211.17192, would
accept a little more and give other texts for a seed.)

Legend: S tokens of a round, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from holo_cli.errors import UsageError
from holo_cli.inference.generation.exit_protocol import NEVER, SupportsEarlyExit
from holo_cli.models.base import LanguageModel, State
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.inference.generation.sampling import SamplingConfig

Guess = Callable[[Tensor, list[int]], int]  # logits (1, V), tokens guessed before -> the next one


class Draft(Protocol):
    """Tokens that the first layers have read after a state, as in `brain_v1/drafting.py`."""

    def read(self, token: Tensor) -> Tensor:
        """(1, 1) next token -> the hidden state (1, 1, C) of the first layers' prediction."""
        ...

    def verify(self) -> Tensor:
        """The whole model's hidden states at the tokens read, (1, S, C)."""
        ...

    def state_after(self, count: int, *, reclaim: bool) -> State:
        """The state after the first `count` tokens; `reclaim` gives up all that come after."""
        ...


@runtime_checkable
class SupportsDrafting(Protocol):
    """A model whose first layers can predict alone."""

    def draft(self, state: State, layers: int) -> Draft:
        """An empty draft after `state`."""
        ...


class Reads(Protocol):
    """What a speculation needs of the engine."""

    model: LanguageModel
    end: int | None

    def mode(self, single: bool) -> AbstractContextManager[None]:
        """Settings for products of one row or of several."""
        ...

    def checked(self, logits: Tensor) -> Tensor:
        """The logits, or an error where they are not finite."""
        ...


@dataclass
class DraftCounts:
    """Rounds so far, tokens guessed in them, and those of them that were drawn."""

    rounds: int = 0
    guessed: int = 0
    accepted: int = 0

    def sentence(self) -> str:
        """The counts for people."""
        return (
            f"Drafts: {self.accepted} of {counted(self.guessed, 'guessed token')} accepted, "
            f"in {counted(self.rounds, 'pass')} of all layers."
        )


def check_drafting(model: LanguageModel, config: SamplingConfig) -> None:
    """Raises UsageError where the model cannot draft, or not as the config says."""
    layers, flag = model.config.layers, f"--draft-layers {config.draft_layers}"
    if not isinstance(model, SupportsDrafting):
        raise UsageError(
            "This model cannot guess tokens with its first layers (--draft-layers).",
            next_step="Omit --draft-layers, or use a model with early exit, such as brain-v1.",
        )
    if config.draft_layers >= layers:
        raise UsageError(
            f"{flag} must be less than the model's {counted(layers, 'layer')}.",
            next_step=f"Try --draft-layers {max(1, layers // 4)}.",
        )
    if config.num_samples > 1:
        raise UsageError(
            f"{flag} decodes one text at a time, not {config.num_samples} (--num-samples).",
            next_step="Omit --num-samples or --draft-layers.",
        )
    if isinstance(model, SupportsEarlyExit) and model.exit_threshold < NEVER:
        raise UsageError(
            f"{flag} checks with all layers, and the exit threshold {model.exit_threshold:g} "
            "skips some.",
            next_step=f"Give --exit-threshold {NEVER:g}, or omit --draft-layers.",
        )


class Speculation:
    """Reads tokens one by one for a decoding, guessing `layers` deep what comes next."""

    def __init__(self, engine: Reads, layers: int, state: State) -> None:
        self.counts = DraftCounts()
        self._engine, self._layers = engine, layers
        self._before = state
        self._draft: Draft | None = None
        self._tokens: list[int] = []  # read by the draft
        self._used = 0  # of these, how many were drawn
        self._logits: Tensor = torch.empty(0)  # (S, V) after each of them
        self._hidden: Tensor = torch.empty(0)  # (S, C)

    @property
    def state(self) -> State:
        """The model's state after the tokens drawn and read so far."""
        if self._draft is None:
            return self._before
        with self._engine.mode(single=True):
            return self._draft.state_after(self._used, reclaim=False)

    def restart(self, state: State) -> None:
        """Goes on after another state; nothing is guessed yet."""
        self._before, self._draft, self._tokens, self._used = state, None, [], 0

    def read(self, token: int, most: int, guess: Guess) -> tuple[Tensor, Tensor]:
        """Reads the next token -> logits (1, V) and hidden state (1, C) after it. At most `most`
        tokens are guessed where a new round begins."""
        if self._used < len(self._tokens) and self._tokens[self._used] == token:
            self.counts.accepted += 1
        else:
            self._begin(token, most, guess)
        self._used += 1
        place = slice(self._used - 1, self._used)
        return self._logits[place], self._hidden[place]

    def _begin(self, token: int, most: int, guess: Guess) -> None:
        model, device = self._engine.model, self._engine.model.device
        assert isinstance(model, SupportsDrafting)
        with self._engine.mode(single=True):
            if self._draft is not None:
                self._before = self._draft.state_after(self._used, reclaim=True)
            draft = model.draft(self._before, self._layers)
            tokens = [token]
            x = draft.read(torch.tensor([[token]], device=device))
            while len(tokens) <= most:
                following = guess(model.head(x[:, -1]), tokens[1:])
                if following == self._engine.end:
                    break
                tokens.append(following)
                x = draft.read(torch.tensor([[following]], device=device))
        with self._engine.mode(single=len(tokens) == 1):
            hidden = draft.verify()[0]
            logits = self._engine.checked(model.head(hidden))
        self._draft, self._tokens, self._used = draft, tokens, 0
        self._logits, self._hidden = logits, hidden
        self.counts.rounds += 1
        self.counts.guessed += len(tokens) - 1
