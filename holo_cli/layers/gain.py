"""A learned gain per head on normalized queries: the inverse temperature of attention.

With unit-RMS queries and keys and logits divided by sqrt(d), no logit exceeds sqrt(d): at d = 32
one token among 128 can get at most 0.69 of the weight, whatever the model learns. Henry et al. 2020
(arXiv 2010.04245), who introduced the normalization, learn this scale for that reason.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

START = 1.5  # initial gain
RATE = 4.0  # in the exponent, since AdamW's steps are small for a scalar


class QueryGain(nn.Module):
    """q (B, H, S, d) -> g_h q, g_h = START exp(RATE s_h), with s_h learned from 0."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(heads))

    def gains(self) -> Tensor:
        """(H,), above 0."""
        return START * (RATE * self.log_gain).exp()

    def forward(self, q: Tensor) -> Tensor:
        return q * self.gains().to(q.dtype)[:, None, None]
