"""A loss that keeps coordinates from collapsing into one point.

    loss = log( sum m_i m_j exp(-d_ij / sigma) / sum m_i m_j )   over pairs i, j of a token and one
                                                                 in its past

The exponent has the distance, not its square: with the square the repulsive force vanishes as two
points meet, while here it stays 1/sigma times the share of the pair. Masses weigh the pairs without
a gradient, or they would shrink to lower the loss.

The pairs are a fixed sequence that covers the triangle of pairs evenly, the same in every batch: no
random numbers and no step count, so that resuming and recomputing change nothing.

Legend: B rows, T positions, H heads, d coordinates, P pairs.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from holo_cli.layers.whole_batch import over_processes

EPS = 1e-4  # added to squared distances: the root has no gradient at zero
# inverse powers of the plastic number: an even additive sequence of points in the unit square
STEPS = (0.7548776662466927, 0.5698402909980532)


def repulsion(z: Tensor, m: Tensor, pairs: int, *, training: bool = False) -> Tensor:
    """z (B, T, H, d), before rotation, m (B, T, H), T > 1 -> the loss above, a scalar; at most 0.

    sigma is sqrt(d): the length of a vector whose coordinates have unit root mean square. The sums
    are over the whole batch: in `training`, gradients are those of the rows of all processes.
    """
    later, earlier = pair_positions(z.shape[1], pairs, z.device)
    squared = (z[:, later] - z[:, earlier]).square().sum(-1)  # (B, P, H)
    distance = (squared + EPS).sqrt()
    with torch.no_grad():
        weight = m[:, later] * m[:, earlier]
        total = weight.sum((0, 1))  # (H,)
        weight = weight.log() - total.log()  # (B, P, H)
    near = weight - distance * z.shape[3] ** -0.5
    loss = near.flatten(0, 1).logsumexp(0)  # (H,)
    if not training:
        return loss.mean()
    # the gradient of log(sum) divides by the sum: that of all processes; 1 in one process
    own = loss.detach().exp() * total
    mean = over_processes(own)
    share = torch.where(mean > 0, own / mean.clamp_min(torch.finfo(mean.dtype).tiny), 1.0)
    return (loss.detach() + share * (loss - loss.detach())).mean()


@lru_cache(maxsize=32)
def pair_positions(length: int, pairs: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions (P,) of the later and the earlier token of each pair, 0 <= earlier < later."""
    # outside inference mode: a cached tensor may be used by a later training step
    with torch.inference_mode(False):
        place = torch.arange(1, pairs + 1, dtype=torch.float64)
        across, down = ((place * step) % 1.0 for step in STEPS)
        # the root makes every pair equally likely: later tokens have more past
        later = 1 + (across.sqrt() * (length - 1)).long()
        earlier = (down * later).long()
        return later.to(device), earlier.to(device)
