"""What was said before and is no longer in sight: a store of episodes that decoding can ask.

An episode is a stretch of earlier text as the model itself sees it: for each token but the last,
the hidden state h_i (C numbers) and the token that came next. Asked with a new text, the store
finds the episodes nearest to it by their mean hidden states; while the answer is written each
step compares its hidden state h with those of the episodes found and mixes what came next then
into what the model expects now (kNN-LM, Khandelwal et al. 2020):

    p = (1 - g) p_model + g p_store,   p_store(w) ~ sum over i with next token w of exp(cos_i / tau)
    g = most * clamp((max cos - low) / (high - low), 0, 1)

The gate g is 0 unless some h_i is really close, so an unrelated store changes nothing. Cosines are
between hidden states less their mean over the store, since hidden states share a large common part
that says nothing. Nothing is ever written into the weights, and a store belongs to one
conversation (remembering.py). Each text is read by itself, from an empty state, so the same texts
always give the same store, and a file needs to hold only texts. Legend: L tokens of an episode, N
tokens of all that were found, A rows, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from holo_cli.inference.generation.engine import Engine

LENGTH = 64  # tokens of an episode: longer texts become several
NEAREST = 8  # episodes that an answer may draw on
TAU = 0.05  # temperature of the neighbours' weights
LOW, HIGH = 0.6, 0.95  # cosines at which the gate begins to open and is open
MOST = 0.6  # of the gate: the model always keeps a say


@dataclass(frozen=True)
class Episode:
    """One stretch of text: hidden states (L, C) and the token after each, (L,) int64."""

    keys: Tensor
    next: Tensor

    @property
    def mean(self) -> Tensor:
        return self.keys.mean(0)


def read_episodes(engine: Engine, ids: Sequence[int]) -> list[Episode]:
    """The episodes of one text, read by itself; none for a text of a single token."""
    if len(ids) < 2:
        return []
    keys, following = engine.hidden_states(ids)[:-1].float(), torch.tensor(ids[1:])
    return [
        Episode(k, n)
        for k, n in zip(keys.split(LENGTH), following.to(keys.device).split(LENGTH), strict=True)
    ]


@dataclass
class Recall:
    """What the store has to say while one answer is written, and how often it was listened to."""

    keys: Tensor  # (N, C), centred, of length 1
    next: Tensor  # (N,)
    centre: Tensor  # (C,)
    steps: int = 0  # tokens it was asked for
    opened: int = 0  # of them, those with a gate above 0

    def mix(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """logits (A, V) and hidden states (A, C) of the same tokens -> log p, (A, V)."""
        cosine = unit(hidden.float() - self.centre) @ self.keys.T  # (A, N)
        weights = (cosine / TAU).softmax(1)
        store = torch.zeros_like(logits, dtype=weights.dtype)
        store.index_add_(1, self.next, weights)
        near = (cosine.amax(1, keepdim=True) - LOW) / (HIGH - LOW)
        gate = MOST * near.clamp(0, 1)
        self.steps += gate.shape[0]
        self.opened += int((gate > 0).sum())
        model = logits.to(weights.dtype).log_softmax(1)
        mixed = torch.logaddexp(model + (-gate).log1p(), (gate * store).log())
        return torch.where(gate > 0, mixed, model)


class KNNMemory:
    """The episodes of one conversation, each under the text it comes from."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._read: dict[tuple[int, ...], list[Episode]] = {}  # texts are read once

    def recall(self, texts: Iterable[Sequence[int]], asked: Sequence[int]) -> Recall | None:
        """What these texts have to say to `asked`; None when there is nothing to compare."""
        episodes = [episode for ids in texts for episode in self.episodes(ids)]
        query = self.episodes(asked)
        if not episodes:
            return None
        keys = torch.cat([episode.keys for episode in episodes])
        centre = keys.mean(0)
        if query and len(episodes) > NEAREST:
            mean = torch.cat([episode.keys for episode in query]).mean(0)
            means = torch.stack([episode.mean for episode in episodes])
            near = unit(means - centre) @ unit(mean - centre)
            kept = near.topk(NEAREST).indices.sort().values.tolist()
            episodes = [episodes[i] for i in kept]
        return Recall(
            unit(torch.cat([episode.keys for episode in episodes]) - centre),
            torch.cat([episode.next for episode in episodes]),
            centre,
        )

    def episodes(self, ids: Sequence[int]) -> list[Episode]:
        """The episodes of a text, read once."""
        key = tuple(ids)
        if key not in self._read:
            self._read[key] = read_episodes(self._engine, key)
        return self._read[key]

    def forget(self) -> None:
        """Lets go of everything that was read."""
        self._read.clear()


def unit(x: Tensor) -> Tensor:
    """Vectors of length 1 along the last dimension; zero stays zero."""
    return torch.nn.functional.normalize(x, dim=-1)
