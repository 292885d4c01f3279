"""Token embeddings, with an optional hashed table of bigrams added to them.

A bigram row is a lookup: almost free, and it gives the model the statistics of token pairs from the
first steps on. If the vocabulary has at most `bigrams` pairs, each has its own row; with more,
pairs share rows by a multiplicative hash.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Embedding(nn.Module):
    """(B, T) int64 -> (B, T, C): the token's row plus, with `bigrams` rows, the pair's row."""

    def __init__(self, vocab: int, width: int, bigrams: int = 0) -> None:
        super().__init__()
        self.vocab = vocab
        self.bigrams = bigrams
        self.token = nn.Embedding(vocab, width)
        self.pair = nn.Embedding(bigrams, width) if bigrams else None

    def forward(self, tokens: Tensor, previous: Tensor | None = None) -> Tensor:
        """`previous`: (B,) the token before the first, -1 for none; None means none."""
        x: Tensor = self.token(tokens)
        if self.pair is not None:
            x = x + self.pair(self.rows(tokens, previous))
        return x

    def rows(self, tokens: Tensor, previous: Tensor | None = None) -> Tensor:
        """Row of each pair, (B, T) int64. The pair of a first token is (no token, token)."""
        if previous is None:
            previous = torch.full_like(tokens[:, 0], -1)
        before = torch.cat((previous[:, None], tokens[:, :-1]), dim=1) + 1  # 0: no token
        pair = before * self.vocab + tokens
        if (self.vocab + 1) * self.vocab > self.bigrams:
            # Knuth's multiplicative hash spreads neighbouring ids over the table
            pair = (pair * 2_654_435_761 & 0x7FFF_FFFF) >> 3
        return pair % self.bigrams
