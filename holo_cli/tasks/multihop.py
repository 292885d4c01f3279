"""Multi-hop recall, as Depo in "Physics of Language Models" part 4.1 (arXiv 2512.17351).

Deviation from Depo: a node is one token, and answers are not shown in the row.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from holo_cli.tasks.base import Task, TokenArray

MOST_HOPS = 8


class MultiHop(Task):
    """Edges of a cycle in any order, then questions: which node is k hops away from a node?

        x   d a  b d  a c  c b   h2 a  h2 d       the cycle is a -> c -> b -> d -> a
        y   . .  . .  . .  . .    . b   . c

    Token 0 fills an odd place before the questions, the next 8 tokens (h1 ... h8) give how many
    hops are asked for, the others are nodes: all of them form one cycle, sampled for each row.
    `items` is k, the number of hops, so a table's columns show how deep a model can follow: one hop
    is plain recall, k hops are k lookups of which each needs the one before. A k whose token was
    never trained cannot be answered; longer rows have more questions, not more nodes.
    """

    title: ClassVar[str] = "Multi-hop recall"
    least_vocab: ClassVar[int] = 1 + MOST_HOPS + 2  # filler, hops, and two nodes
    asks: ClassVar[str] = "Follow a number of edges of a graph that was shown as shuffled pairs."

    def fill(self, rng: np.random.Generator, x: TokenArray, y: TokenArray, items: int) -> None:
        nodes = self._nodes()
        cycle = rng.permutation(nodes)  # place -> node
        place = np.argsort(cycle)
        order = rng.permutation(nodes)
        first = 1 + MOST_HOPS
        x[0 : 2 * nodes : 2] = first + cycle[order]
        x[1 : 2 * nodes : 2] = first + cycle[(order + 1) % nodes]
        start = 2 * nodes + len(x) % 2
        asked = rng.integers(nodes, size=(len(x) - start) // 2)
        x[start::2], x[start + 1 :: 2] = items, first + asked
        y[start + 1 :: 2] = first + cycle[(place[asked] + items) % nodes]

    def _nodes(self) -> int:
        return self.vocab_size - 1 - MOST_HOPS

    def least_length(self, items: int) -> int:
        return 2 * self._nodes() + 2

    def most_items(self) -> int:
        return min(MOST_HOPS, self._nodes() - 1)

    @property
    def chance(self) -> float:
        return 1 / self._nodes()
