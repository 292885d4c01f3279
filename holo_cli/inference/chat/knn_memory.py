"""kNN memory: mixes the continuations of similar earlier text into the next-token distribution.

A text is cut into segments of up to 64 tokens. For each token but the last a segment stores a key,
the model's hidden state h_i (C numbers), and a value, the next token. Given a query text, the
memory selects the segments whose mean hidden states are nearest to the query's. While the answer
is decoded, each step compares its hidden state h with the keys of the selected segments
(kNN-LM, Khandelwal et al. 2020, arXiv 1911.00172):

    p = (1 - g) p_model + g p_knn,   p_knn(w) ~ sum over i with next token w of exp(cos_i / tau)
    g = g_max * clamp((max cos - low) / (high - low), 0, 1)

Deviations from the paper: the gate g is 0 unless a key is close, so that an unrelated memory
changes nothing; similarities are cosines of hidden states minus their mean over the memory, because
hidden states share a large common component. Weights are never changed, and a memory belongs to one
conversation (conversation_memory.py). Each text is read from an empty state, so the same texts
always give the same memory and a memory file needs to store only texts.

Legend: L tokens of a segment, N tokens of all selected segments, A rows, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from holo_cli.inference.generation.engine import Engine

SEGMENT_TOKENS = 64  # longer texts are cut into several segments
MAX_SEGMENTS = 8  # segments selected for one answer
TAU = 0.05  # softmax temperature of the neighbours' weights
LOW, HIGH = 0.6, 0.95  # maximum cosine at which the gate starts to open and is fully open
MAX_GATE = 0.6  # upper bound of the gate, so that the model always contributes


@dataclass(frozen=True)
class Segment:
    """A stretch of text: hidden states (L, C) and the token after each, (L,) int64."""

    keys: Tensor
    next_tokens: Tensor

    @property
    def mean(self) -> Tensor:
        return self.keys.mean(0)


@dataclass
class Neighbours:
    """The segments selected for one answer, as a `LogitsMixer`; counts how often they are used."""

    keys: Tensor  # (N, C), centred, of length 1
    next_tokens: Tensor  # (N,)
    centre: Tensor  # (C,)
    steps: int = 0  # decoded tokens
    mixed_steps: int = 0  # of them, those with a gate above 0

    def mix(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """Logits (A, V) and hidden states (A, C) of the same tokens -> log p, (A, V)."""
        cosine = normalized(hidden.float() - self.centre) @ self.keys.T  # (A, N)
        weights = (cosine / TAU).softmax(1)
        p_knn = torch.zeros_like(logits, dtype=weights.dtype)
        p_knn.index_add_(1, self.next_tokens, weights)
        near = (cosine.amax(1, keepdim=True) - LOW) / (HIGH - LOW)
        gate = MAX_GATE * near.clamp(0, 1)
        self.steps += gate.shape[0]
        self.mixed_steps += int((gate > 0).sum())
        model = logits.to(weights.dtype).log_softmax(1)
        mixed = torch.logaddexp(model + (-gate).log1p(), (gate * p_knn).log())
        return torch.where(gate > 0, mixed, model)


class KNNMemory:
    """The segments of a conversation's texts, cached by the token ids of each text."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._segments: dict[tuple[int, ...], list[Segment]] = {}

    def neighbours(self, texts: Iterable[Sequence[int]], query: Sequence[int]) -> Neighbours | None:
        """The segments of `texts` nearest to `query` (token ids); None if there are none."""
        segments = [segment for ids in texts for segment in self.segments(ids)]
        query_segments = self.segments(query)
        if not segments:
            return None
        centre = torch.cat([segment.keys for segment in segments]).mean(0)
        if query_segments and len(segments) > MAX_SEGMENTS:
            mean = torch.cat([segment.keys for segment in query_segments]).mean(0)
            means = torch.stack([segment.mean for segment in segments])
            similarity = normalized(means - centre) @ normalized(mean - centre)
            nearest = similarity.topk(MAX_SEGMENTS).indices.sort().values.tolist()
            segments = [segments[i] for i in nearest]
        return Neighbours(
            normalized(torch.cat([segment.keys for segment in segments]) - centre),
            torch.cat([segment.next_tokens for segment in segments]),
            centre,
        )

    def segments(self, ids: Sequence[int]) -> list[Segment]:
        """The segments of a text; none for a text of a single token."""
        key = tuple(ids)
        if key not in self._segments:
            self._segments[key] = self._read(key) if len(key) > 1 else []
        return self._segments[key]

    def _read(self, ids: tuple[int, ...]) -> list[Segment]:
        keys = self._engine.hidden_states(ids)[:-1].float()
        next_tokens = torch.tensor(ids[1:], device=keys.device)
        pairs = zip(keys.split(SEGMENT_TOKENS), next_tokens.split(SEGMENT_TOKENS), strict=True)
        return [Segment(k, n) for k, n in pairs]

    def clear(self) -> None:
        """Removes all segments."""
        self._segments.clear()


def normalized(x: Tensor) -> Tensor:
    """Vectors of length 1 along the last dimension; zero stays zero."""
    return torch.nn.functional.normalize(x, dim=-1)
