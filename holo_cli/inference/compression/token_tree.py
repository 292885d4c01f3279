"""The next token as a few yes-or-no decisions, with the model's log-odds of each.

Token ids are the leaves of a balanced binary tree. A token is coded as its path: at each node one
bit says whether its id is in the upper half. The probability of a bit is the share of the model's
probability mass in that half, so the product over the path is the probability of the token.

Why a tree and not one distribution over the vocabulary: encoder and decoder must derive the same
integers from logits that can differ in their last digits. A table over V tokens has V places where
a difference can change an integer, a path has log2(V).

Sums run in a fixed order in float64. Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
_TINY = 1e-300  # where a half has no mass at all


def depth_of(vocab_size: int) -> int:
    """Decisions per token."""
    return max(1, (vocab_size - 1).bit_length())


class TokenTree:
    """The probability mass below every node, for one position of each row."""

    def __init__(self, logits: NDArray[Any]) -> None:
        """`logits`: (B, V), finite."""
        rows, vocab_size = logits.shape
        self.depth = depth_of(vocab_size)
        masses = np.zeros((rows, 1 << self.depth))
        shifted = logits.astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        np.exp(shifted, out=masses[:, :vocab_size])
        levels = [masses]
        while levels[-1].shape[1] > 1:
            below = levels[-1]
            levels.append(below[:, 0::2] + below[:, 1::2])
        self._levels = levels[::-1]  # level l: (B, 2^l)
        self._rows = np.arange(rows)

    def log_odds(self, level: int, nodes: Ids) -> Floats:
        """Log-odds of the bit 1 at node `nodes[b]` of a level, (B,); level 0 has the root."""
        below = self._levels[level + 1]
        low = below[self._rows, 2 * nodes] + _TINY
        high = below[self._rows, 2 * nodes + 1] + _TINY
        found: Floats = np.log(high) - np.log(low)
        return found

    def path_log_odds(self, tokens: Ids) -> Floats:
        """Log-odds of the bit 1 at every node on the path to a token, (B, depth)."""
        depth = self.depth
        path = [self.log_odds(level, tokens >> (depth - level)) for level in range(depth)]
        return np.stack(path, axis=1)

    def nats(self, tokens: Ids) -> Floats:
        """-log p of one token per row, (B,)."""
        leaves, root = self._levels[-1], self._levels[0]
        found: Floats = np.log(root[:, 0]) - np.log(leaves[self._rows, tokens] + _TINY)
        return found


def path_bits(ids: Ids, depth: int) -> NDArray[np.int32]:
    """The bits of each token's path, (T, depth) for (T,).

    >>> path_bits(np.array([5]), 4).tolist()
    [[0, 1, 0, 1]]
    """
    return ((ids[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.int32)
