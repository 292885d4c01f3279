"""A model with a decoder behind its last hidden state: what the task `compression` trains.

    hidden states (B, T, C)  ->  h_T + p_t  ->  MLP  ->  (B, T, C)  ->  the model's head

As in MAD (Poli et al. 2024, arXiv 2403.17844): position t of the decoder's output sees nothing of
the text but h_T, the hidden state at its end, and a learned vector p_t that selects which token is
predicted. Deviation from MAD: p_t is learned and added instead of concatenated, and the head is the
model's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.models.base import Description, Hidden, LanguageModel, State

EXPANSION = 4  # hidden units of the decoder, in widths


class Decoder(nn.Module):
    """(B, C) -> (B, items, C)."""

    def __init__(self, width: int, items: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(items, width))
        self.up = nn.Linear(width, EXPANSION * width)
        self.down = nn.Linear(EXPANSION * width, width)

    def forward(self, last: Tensor) -> Tensor:
        x = last[:, None] + self.positions
        return x + self.down(torch.relu(self.up(x)).square())


class Compressor(LanguageModel):
    """`inner` with a decoder for strings of up to `items` tokens behind its hidden states."""

    def __init__(self, inner: LanguageModel, decoder: Decoder) -> None:
        super().__init__(inner.config)
        self.inner, self.decoder = inner, decoder
        self.head = inner.head

    @classmethod
    def of(cls, inner: LanguageModel, items: int) -> Compressor:
        """With a new decoder, on the model's device."""
        return cls(inner, Decoder(inner.config.width, items).to(inner.device))

    def hidden(self, tokens: Tensor) -> Hidden:
        """(B, T) -> (B, T, C): the decoder's output for the last hidden state, padded with
        zeros."""
        x, aux = self.inner.hidden(tokens)
        decoded = self.decoder(x[:, -1])[:, : tokens.shape[1]]
        rest = tokens.shape[1] - decoded.shape[1]
        return Hidden(nn.functional.pad(decoded, (0, 0, 0, rest)), aux)

    @property
    def context_limit(self) -> int | None:
        return self.inner.context_limit

    def init_state(self, batch: int = 1) -> State:
        return self.inner.init_state(batch)

    def step_hidden(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """As the inner model: the decoder is not used in decoding."""
        return self.inner.step_hidden(tokens, state)

    def state_bytes(self, length: int) -> int:
        return self.inner.state_bytes(length)

    def describe(self) -> Description:
        """The inner model's cost; the decoder belongs to the task."""
        return self.inner.describe()

    def matrices(self) -> dict[str, nn.Parameter]:
        return {f"inner.{name}": p for name, p in self.inner.matrices().items()}

    def grown(self, layers: int) -> tuple[LanguageModel, dict[str, str | None]]:
        inner, names = self.inner.grown(layers)
        own = {f"inner.{new}": old and f"inner.{old}" for new, old in names.items()}
        kept: dict[str, str | None] = {
            f"decoder.{name}": f"decoder.{name}" for name, _ in self.decoder.named_parameters()
        }
        return Compressor(inner, self.decoder), own | kept
