"""Language adapters: a small bottleneck per language after every layer (Houlsby et al. 2019).

Which one a token passes is said by the last language marker before it in its own sequence, which
is causal, survives decoding as one number per row, and needs no detector inside the model:
`holo prepare` marks documents, and a prompt is marked by its detected language or by `--lang`.
Legend: B rows, T positions, C width, R width of the bottleneck, L languages.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.interfaces import Aux, FeedForward
from holo_cli.models.brain_v1.config import Config


class LanguageAdapters(FeedForward):
    """What the adapter of each token's language adds to the stream; zero at first."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.count, self.inner = len(config.languages), config.adapters
        self.down = nn.Linear(config.width, self.count * self.inner, bias=False)
        self.up = nn.Linear(self.inner, self.count * config.width, bias=False)
        for stacked in (self.down, self.up):  # one matrix a language
            stacked.weight.splits = self.count  # type: ignore[attr-defined]

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.up.weight)

    def active_parameters(self) -> int:
        return (self.down.weight.numel() + self.up.weight.numel()) // self.count

    def forward(self, x: Tensor, languages: Tensor | None = None) -> tuple[Tensor, Aux]:
        """x (B, T, C), languages (B, T) int64 in 0 .. L - 1."""
        assert languages is not None
        flat, spoken = x.flatten(0, 1), languages.flatten()
        downs = self.down.weight.unflatten(0, (self.count, -1))  # (L, R, C)
        ups = self.up.weight.unflatten(0, (self.count, -1))  # (L, C, R)
        y = torch.zeros_like(flat)
        for number in range(self.count):
            rows = (spoken == number).nonzero()[:, 0]
            h = torch.relu(nn.functional.linear(flat[rows], downs[number]))
            y = y.index_add(0, rows, nn.functional.linear(h, ups[number]).to(y.dtype))
        return y.view_as(x), {}


def languages_of(tokens: Tensor, markers: Tensor, before: Tensor) -> Tensor:
    """The language of each token: that of the last marker up to and with it.

    tokens (B, T) int64, markers (L,) their ids, before (B,) the languages so far -> (B, T) int64.
    """
    here = tokens[..., None] == markers  # (B, T, L)
    position = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    # the position of the last marker, 0 where there is none yet, and what it said
    last = (here.any(-1) * position).cummax(1).values
    said = torch.cat((before[:, None], here.int().argmax(-1)), 1)
    return said.gather(1, last)
