"""Unlikelihood: a penalty in training on tokens that would repeat what the row has said.

Welleck et al. 2019, "Neural Text Generation with Unlikelihood Training", arXiv 1908.04319, the
token-level objective: at each position every candidate c costs -log(1 - p(c)). Candidates are the
tokens seen before, without the target. Unlike the paper, they are of the same document, and a
longer span n can be asked for: then a token is a candidate only if it would complete an n-gram seen
before, as decoding with a span penalty counts. n = 1 is the paper's.

Legend: R rows of a chunk, B sequences, T positions, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

APART = 1 << 40  # more than any token id: the same token in another document is another


def candidates(tokens: Tensor, vocab: int, rows: slice, span: int, end: int | None) -> Tensor:
    """Tokens that would repeat a span, (R, V) bool, at rows of the flattened (B, T) `tokens`.

    At position t, token c is a candidate if tokens t - span + 2 .. t followed by c occurred at or
    before t in the document; `end` is the token that ends one (None: a row is one document).
    """
    batch, length = tokens.shape
    if end is None:
        ended = torch.zeros_like(tokens)
        before = ended
    else:
        ended = (tokens == end).long().cumsum(1)  # documents ended up to and with t
        before = ended - (tokens == end).long()
    own = tokens + APART * before
    number = torch.arange(batch * length, device=tokens.device)[rows]
    b, t = number // length, number % length
    at = torch.arange(length, device=tokens.device)
    seen = (at[None] <= t[:, None]) & (before[b] == ended[b, t][:, None])  # (R, T)
    for back in range(span - 1):  # token t - back against token s - 1 - back
        now = pad(own, (back, 0), value=-1)[b, t]
        then = pad(own, (back + 1, 0), value=-2)[:, :length]
        seen &= then[b] == now[:, None]
    index = tokens[b].masked_fill(~seen, vocab)  # a column that is cut off again
    found = torch.zeros(len(number), vocab + 1, dtype=torch.bool, device=tokens.device)
    return found.scatter_(1, index, True)[:, :vocab]


class Unlikelihood:
    """The penalty for one batch of inputs `tokens` (B, T); see `cross_entropy.Penalty`."""

    def __init__(
        self, tokens: Tensor, target: Tensor, weight: float, span: int = 1, end: int | None = None
    ) -> None:
        """`target` (B, T) is never a candidate."""
        self.tokens, self.target = tokens, target.reshape(-1)
        self.weight, self.span, self.end = weight, span, end
        self.columns = tokens.shape[1]

    def __call__(self, rows: slice, log_p: Tensor) -> tuple[Tensor, Tensor]:
        """With q = 1 - p and a = p / q at candidates, else 0: -sum of log q at candidates, (R, 1),
        and its gradient a - p sum(a), (R, V).

        1 - p is not exact where p is nearly 1, and a is then as large as its error. Only the most
        likely token of a row can be that: its q is the sum of all other probabilities, and its
        a (1 - p) is p.
        """
        asked = candidates(self.tokens, log_p.shape[1], rows, self.span, self.end)
        asked.scatter_(1, self.target[rows].clamp_min(0)[:, None], False)
        p = log_p.exp()
        likely, best = p.max(dim=1, keepdim=True)
        rest = p.scatter(1, best, 0.0)
        q = (1 - p).scatter_(1, best, rest.sum(1, keepdim=True))
        q.clamp_min_(torch.finfo(q.dtype).tiny)
        nats = -torch.where(asked, q.log(), 0.0).sum(1, keepdim=True)
        a = torch.where(asked, p / q, 0.0)
        most = a.gather(1, best)
        a.scatter_(1, best, 0.0)
        total = a.sum(1, keepdim=True)
        grad = a.sub_(rest.mul_(total + most))
        grad.scatter_(1, best, likely * (asked.gather(1, best).to(p.dtype) - total))
        return nats, grad
