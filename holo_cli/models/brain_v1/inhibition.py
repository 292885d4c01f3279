"""Lateral inhibition: active columns suppress each other, token by token.

Divisive normalisation (Heeger 1992; Carandini & Heeger 2012). With a_c the mean energy of a
column's units and w >= 0 learned, a column's units are multiplied by

    sqrt(a_c / (sigma^2 + sum_c' w_cc' a_c'))

so that a strong column weakens its neighbours and a column alone is nearly unchanged.
Columns that are not kept have no energy and take no part. Legend: N tokens, G columns, c kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TINY = 1e-6  # the square root has no gradient at zero
# Initial w of a column itself, of others, and sigma^2. From 0.01, where the slope of softplus is
# 0.01 too, the others' weights stayed where they began and did nothing; see docs/results/brains.md.
OWN, OTHER, SIGMA = 1.0, 0.5, 0.1


class Inhibition(nn.Module):
    """Factors for the columns of one layer."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        raw = torch.full((columns, columns), math.log(math.expm1(OTHER)))
        raw.fill_diagonal_(math.log(math.expm1(OWN)))
        self.raw = nn.Parameter(raw)  # (G, G), w = softplus(raw)
        self.raw.no_muon = True  # type: ignore[attr-defined]
        self.log_sigma = nn.Parameter(torch.tensor(math.log(SIGMA)))

    def weights(self) -> Tensor:
        """w, (G, G), each at least 0: row c weighs what suppresses column c."""
        return F.softplus(self.raw)

    def forward(self, energy: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Energies of the chosen columns, (N, c), or of all, (N, G) -> factors, same shape."""
        w = self.weights().to(energy.dtype)
        if chosen is None:
            against = energy @ w.T
        else:
            among = w[chosen[:, :, None], chosen[:, None, :]]  # (N, c, c)
            against = (among * energy[:, None, :]).sum(2)
        return torch.sqrt((energy + TINY) / (self.log_sigma.exp() + against + TINY))
