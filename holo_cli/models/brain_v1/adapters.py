"""Language adapters: a small bottleneck per language after every layer (Houlsby et al. 2019).

A token uses the adapter of the last language marker up to it in its own sequence. That is causal,
costs one number per row of decoding state, and needs no detector inside the model: `holo prepare`
marks documents, and a prompt is marked by its detected language or by `--lang`.
Legend: B rows, T positions, C width, R width of the bottleneck, L languages.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.interfaces import Aux, FeedForward
from holo_cli.models.brain_v1.config import Config


class LanguageAdapters(FeedForward):
    """The adapter of each token's language; its output is zero at first."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.count, self.inner = len(config.languages), config.adapters
        self.down = nn.Linear(config.width, self.count * self.inner, bias=False)
        self.up = nn.Linear(self.inner, self.count * config.width, bias=False)
        for stacked in (self.down, self.up):  # a matrix per language
            stacked.weight.splits = self.count  # type: ignore[attr-defined]

    def finish_initialisation(self) -> None:
        nn.init.zeros_(self.up.weight)

    def active_parameters(self) -> int:
        return (self.down.weight.numel() + self.up.weight.numel()) // self.count

    def forward(self, x: Tensor, languages: Tensor | None = None) -> tuple[Tensor, Aux]:
        """x (B, T, C), languages (B, T) int64 in 0 .. L - 1."""
        assert languages is not None
        flat, language = x.flatten(0, 1), languages.flatten()
        downs = self.down.weight.unflatten(0, (self.count, -1))  # (L, R, C)
        ups = self.up.weight.unflatten(0, (self.count, -1))  # (L, C, R)
        y = torch.zeros_like(flat)
        if torch.compiler.is_compiling():  # shapes may not depend on the data: all, and a mask
            for number in range(self.count):
                h = torch.relu(nn.functional.linear(flat, downs[number]))
                mine = (language == number)[:, None]
                y = y + nn.functional.linear(h, ups[number]).to(y.dtype) * mine
            return y.view_as(x), {}
        for number in range(self.count):
            rows = (language == number).nonzero()[:, 0]
            h = torch.relu(nn.functional.linear(flat[rows], downs[number]))
            y = y.index_add(0, rows, nn.functional.linear(h, ups[number]).to(y.dtype))
        return y.view_as(x), {}


def token_languages(tokens: Tensor, markers: Tensor, before: Tensor) -> Tensor:
    """The language of each token: that of the last marker up to and with it.

    tokens (B, T) int64, markers (L,) their ids, before (B,) the languages so far -> (B, T) int64.
    """
    here = tokens[..., None] == markers  # (B, T, L)
    position = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    # position of the last marker, 0 where there is none yet
    last = (here.any(-1) * position).cummax(1).values
    language = torch.cat((before[:, None], here.int().argmax(-1)), 1)
    return language.gather(1, last)
