"""What is computed for a request: one row for each text that is to be written.

A job is a request as the computing thread sees it. Its rows report what happens to them as events,
which the job hands to whoever waits for them.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from holo_cli.inference.generation.engine import PrefixCache
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.inference.generation.stream import TextStream
from holo_cli.serve.refusal import Refusal

_numbers = itertools.count()


@dataclass(frozen=True)
class TokenScore:
    """A token with its natural log-probability by the model, before temperature and penalties.

    `logprob` None for the first token of a text, which nothing precedes. `top` has the most likely
    tokens there, most likely first.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class RowEvent:
    """Something new of a row: text, scored tokens, its end, or why it failed."""

    row: int
    text: str = ""
    scores: tuple[TokenScore, ...] = ()
    finish: str = ""  # "stop" or "length"; "" while it runs
    refusal: Refusal | None = None


@dataclass
class BatchRow:
    """A text that is being written. `ids` are prompt and new tokens."""

    job: GenerationJob
    index: int  # among the job's rows
    ids: list[int]
    generator: torch.Generator | None
    stream: TextStream
    prompt_length: int = 0
    begun: bytes = b""  # of a character that is not whole yet
    finish: str = ""
    mixed: bool = False  # whether its state was ever computed otherwise than alone and in full
    cached_tokens: int = 0  # of the prompt, not read again

    def __post_init__(self) -> None:
        self.prompt_length = len(self.ids)

    @property
    def new_tokens(self) -> int:
        """How many were drawn."""
        return len(self.ids) - self.prompt_length

    def emit(
        self,
        text: str = "",
        scores: tuple[TokenScore, ...] = (),
        finish: str = "",
        refusal: Refusal | None = None,
    ) -> None:
        """Reports to the job."""
        self.job.emit(RowEvent(self.index, text, scores, finish, refusal))


@dataclass(eq=False)
class GenerationJob:
    """A request with its rows. `emit` is called by the computing thread."""

    loaded: LoadedModel
    sampling: SamplingConfig
    emit: Callable[[RowEvent], None]
    client: str = ""  # shares of the queue are by client
    logprobs: int | None = None  # how many alternatives to tell; None tells nothing
    echo: bool = False  # whether the prompt's own tokens are scored as well
    nothing_new: bool = False  # only the prompt is scored
    keep: bool = False  # whether the states are kept for a longer prompt with this beginning
    rows: list[BatchRow] = field(default_factory=list)
    prompt: PrefixCache | None = None  # read last, for further answers to the same one
    number: int = field(default_factory=lambda: next(_numbers))
    _gone: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def rules(self) -> SamplingConfig:
        """The sampling without what is a row's own: rows with equal rules are drawn together."""
        return replace(self.sampling, seed=None, stop=(), max_new_tokens=1)

    def cancel(self) -> None:
        """Nobody waits for the answer any longer: its rows leave at the next step."""
        self._gone.set()

    @property
    def cancelled(self) -> bool:
        return self._gone.is_set()
