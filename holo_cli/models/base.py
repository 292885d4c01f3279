"""The contract of every model, in words in `README.md` beside this file.

Legend: B rows, T positions, S positions of one step, C width, V vocabulary, N parameters.
Whatever a caller needs is returned: auxiliary losses with the hidden states, and the decoding state
as an explicit object. Nothing is stored on the module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from holo_cli.config.model_schema import ModelConfig
from holo_cli.layers.head import Head
from holo_cli.layers.interfaces import Mixer
from holo_cli.layers.measure import state_nbytes
from holo_cli.layers.positions import Positions
from holo_cli.layers.state import DataState


class Hidden(NamedTuple):
    """What `LanguageModel.hidden` returns.

    `x`: (B, T, C) final hidden states, ready for the head; `aux`: auxiliary losses by name, scalars
    already multiplied by their weight, to be added to the cross-entropy and logged one by one.
    """

    x: Tensor
    aux: dict[str, Tensor]


@dataclass(frozen=True)
class State(DataState):
    """Decoding state of each row. A value: `step` returns a new one.

    A state may be kept and continued again (to retry an answer, say): an implementation that writes
    in place copies its buffer first if another state has already continued it.
    """

    position: Positions  # tokens so far

    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return state_nbytes(self)


@dataclass
class Description:
    """Cost of a model. FLOPs count a multiply-add as two."""

    parameters: int
    active_parameters: int  # parameters that take part in one token's logits
    train_flops_per_token: float  # forward + backward, at the config's context
    decode_flops_per_token: float  # one new token at the end of a full context
    state_bytes: int  # decoding state of one row at the config's context, float32
    notes: dict[str, Any] = field(default_factory=dict)


class LanguageModel(nn.Module, ABC):
    """Base of all models. Subclasses are named `Model` and take their `Config`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.head: Head
        # recompute activations in the backward pass: set by the training loop, changes no value
        self.grad_checkpoint = False

    # -- training ---------------------------------------------------------------------------------

    @abstractmethod
    def hidden(self, tokens: Tensor) -> Hidden:
        """(B, T) int64 -> final hidden states (B, T, C) and the auxiliary losses by name."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 -> logits (B, T, V) float32. Position t has seen tokens 0..t only."""
        logits: Tensor = self.head(self.hidden(tokens).x)
        return logits

    # -- evaluation -------------------------------------------------------------------------------

    def calibrate(self, tokens: Tensor) -> None:
        """Set what evaluation and decoding read and training does not, by held-out text (B, T).

        Called in eval mode before each evaluation of a training. What it sets is saved with the
        weights. Does nothing by default.
        """

    @contextmanager
    def counting(self) -> Iterator[dict[str, float]]:
        """Figures over all forward passes within, filled in at the end; none by default."""
        yield {}

    # -- decoding ---------------------------------------------------------------------------------

    @property
    def context_limit(self) -> int | None:
        """The longest history that decoding may hold; None where there is no limit."""
        return self.config.context

    @property
    def mixed_lengths(self) -> bool:
        """Whether rows of one state may have read different numbers of tokens, where each step
        reads one token of each (`layers/joined.py`). By default such rows have states of their own.
        """
        return False

    def step_obstacle(self) -> str | None:
        """Why a step of one token cannot be one graph for all positions (`Mixer.step_obstacle`).
        Default: where rows cannot have read different numbers of tokens."""
        if self.mixed_lengths:
            return None
        return "its steps differ from position to position"

    @abstractmethod
    def init_state(self, batch: int = 1) -> State:
        """The state before the first token, for `batch` rows, on the model's device."""

    @property
    def can_recall(self) -> bool:
        """Whether a state can begin with texts that the model does not read (`recalling`)."""
        return False

    def recalling(
        self, state: State, texts: Sequence[Sequence[int]], past: Sequence[Sequence[int]]
    ) -> State:
        """A state of no tokens, with the token ids of other texts, and for each row what stands
        before it in its own text, to be recalled from; for models that `can_recall`."""
        raise TypeError  # there is no memory that could recall them

    def recalled_positions(self, state: State) -> int:
        """How many positions of a state are of what is recalled."""
        return 0

    @abstractmethod
    def step_hidden(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, S) next tokens -> their hidden states (B, S, C) and the state after them."""

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, S) next tokens -> logits (B, S, V) float32 and the state after them."""
        x, state = self.step_hidden(tokens, state)
        return self.head(x), state

    @abstractmethod
    def state_bytes(self, length: int) -> int:
        """Bytes of decoding state for one row after `length` tokens, in the weights' dtype."""

    # -- what it is -------------------------------------------------------------------------------

    @property
    def has_memory(self) -> bool:
        """Whether the decoding state has an episodic memory, which outlasts the context."""
        return False

    @abstractmethod
    def describe(self) -> Description:
        """Parameters, FLOPs and state size, by formula; tests check them against counts."""

    def measures(self, tokens: Tensor) -> dict[str, float]:
        """Figures to log at an evaluation, by name, from a sample (B, T). Default none."""
        return {}

    def disable(self) -> None:
        """Switch the mixing of tokens off, for good, as tests and ablations do."""
        for module in self.modules():
            if isinstance(module, Mixer):
                module.disable()

    def matrices(self) -> dict[str, nn.Parameter]:
        """The weights Muon may orthogonalise, by name: 2-D weights inside the blocks.

        Embeddings, head, gains, convolution filters and biases are for AdamW. A parameter may
        carry `splits`, the number of separate matrices stacked along its first dimension.
        """
        return {
            name: p
            for name, p in self.named_parameters()
            if p.ndim == 2 and name.startswith("blocks.") and not getattr(p, "no_muon", False)
        }

    def grown(self, layers: int) -> tuple[LanguageModel, dict[str, str | None]]:
        """The same model with more blocks, as at a later one of `config.stages()`.

        Consumes `self`: the new model may share its tensors. The dict maps the name of every
        parameter of the new model to that of the parameter here, of the same shape, whose optimizer
        state it takes over, or to None for a fresh state.
        The new model's config is `config.at_depth(layers)`, its device this model's.
        """
        raise TypeError(f"{type(self).__name__} cannot grow: its config must name no stages")

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device
