"""What keeps coordinates from falling into one point.

    loss = log( sum m_i m_j exp(-d_ij / sigma) / sum m_i m_j )   over pairs i, j of a token and one
                                                                 in its past

Unusual: the exponent has the distance, not its square. With the square the pull apart goes to zero
as two points meet; so it stays 1/sigma, however near they are, and is never more, because what the
pairs share sums to one. Masses weigh the pairs and are not moved by it, else the light would win.

Which pairs: a fixed sequence that covers the triangle of pairs evenly, the same in every batch. No
random numbers and no counting of steps, so resuming and recomputing change nothing.

Legend: B rows, T positions, H heads, d coordinates, P pairs.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

LEAST = 1e-4  # added to squared distances, where the root has no slope at zero
# the most even sequence of points in a square that steps by constants: powers of the plastic number
STEPS = (0.7548776662466927, 0.5698402909980532)


def repulsion(z: Tensor, m: Tensor, pairs: int) -> Tensor:
    """z (B, T, H, d), before turning, m (B, T, H), T > 1 -> the loss above, a scalar; at most 0.

    sigma is sqrt(d): the length of a vector whose coordinates have unit root mean square.
    """
    later, earlier = pair_positions(z.shape[1], pairs, z.device)
    squared = (z[:, later] - z[:, earlier]).square().sum(-1)  # (B, P, H)
    distance = (squared + LEAST).sqrt()
    with torch.no_grad():
        weight = m[:, later] * m[:, earlier]
        weight = weight.log() - weight.sum((0, 1)).log()  # (B, P, H)
    near = weight - distance * z.shape[3] ** -0.5
    return near.flatten(0, 1).logsumexp(0).mean()


@lru_cache(maxsize=32)
def pair_positions(length: int, pairs: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions (P,) of the later and the earlier token of each pair, 0 <= earlier < later."""
    # outside inference mode: a cached tensor may be used by a later training step
    with torch.inference_mode(False):
        place = torch.arange(1, pairs + 1, dtype=torch.float64)
        across, down = ((place * step) % 1.0 for step in STEPS)
        # the root: later tokens have more past, and every pair is to be as likely
        later = 1 + (across.sqrt() * (length - 1)).long()
        earlier = (down * later).long()
        return later.to(device), earlier.to(device)
