"""The backbone in its slow, obvious form: the oracle that every model is tested against.

One row, one position and one layer at a time, by the formulas, in the dtype of the weights. It
shares no code with the fast path and reads only its weights. A model's `reference.py` adds the
formula of its own mixer and what the contract suite has to know:

    CASES: dict[str, dict]                   config overrides by label: every path of the model once
    CLAIMS: dict[str, Claims]                optional, by label: what the mixer does not claim there
    mix(mixer, inputs) -> list[Tensor]       what the mixer adds at each position, (C,) each

and, only where a model has them,

    feed(mlp, inputs) -> list[Tensor]        a feed-forward half that is no dense MLP
    side(model, tokens, stream) -> list      the side stream at its start, an entry a position
    finish(inputs, before, after) -> list    what a block does to the stream after its two halves
    logits(model, tokens) -> Tensor          for a model that is not on the backbone

`Inputs` is a list of vectors, one a position, with the layer's context. Legend: B rows, T
positions, C width, d width of a head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.layers.conv import ShortConv
from holo_cli.layers.mlp import MLP
from holo_cli.layers.suffix import LONGEST
from holo_cli.models.backbone import Backbone, Block
from holo_cli.models.base import LanguageModel

Vectors = list[Tensor]  # one vector a position


@dataclass(frozen=True)
class Claims:
    """What the contract suite may ask of a model in one case; the defaults ask the most.

    `recall`: after 200 steps on a small model the token this many positions back can be named, and
    without the mixer it cannot. None: the mixer does not claim recall by position (it has no code
    of position, say).
    `reach`: an input token still changes the output this many positions later; None: at any
    distance. For mixers with a window.
    `rounding`: the largest gradient from a position to a later token that counts as zero, for
    mixers whose transform along time spreads rounding errors.
    """

    recall: int | None = 9
    reach: int | None = None
    rounding: float = 0.0


def claims(reference: ModuleType, label: str) -> Claims:
    """What a `reference.py` claims in one of its cases."""
    found: Claims = getattr(reference, "CLAIMS", {}).get(label, Claims())
    return found


class Inputs(list[Tensor]):
    """What one half of a block reads: a vector (C,) for each position of one row.

    `side`: the side stream, an entry a position; a mixer may replace entries in place.
    """

    def __init__(
        self, vectors: Iterable[Tensor], row: _SharedByLayers, layer: int, block: Block
    ) -> None:
        super().__init__(vectors)
        self.model, self.config, self.tokens = row.model, row.model.config, row.tokens
        self.layer, self.block, self.side = layer, block, row.side
        self._row = row

    def rotate(self, x: Tensor, position: int) -> Tensor:
        """A query or key (d,) by the config's rotary positions."""
        return rotate(x, position, rotary_rates(self.config, len(x)))

    def values(self, own: Vectors) -> Vectors:
        """A layer's own values, (C,) each -> with value residual and value embeddings added."""
        out, first = list(own), self._row.first_values
        if self.block.residual_gain is not None:
            out = [v + self.block.residual_gain * f for v, f in zip(out, first, strict=True)]
        if self.block.embedding_gain is not None and self.model.values is not None:
            rows = [self.model.values.weight[token] for token in self.tokens]
            out = [v + self.block.embedding_gain * e for v, e in zip(out, rows, strict=True)]
        first.extend(own if not first else [])
        return out


class _SharedByLayers:
    """What the layers of one row share."""

    def __init__(self, model: Backbone, tokens: Tensor) -> None:
        self.model, self.tokens = model, tokens
        self.side: list[Any] = []
        self.first_values: Vectors = []


def logits(reference: ModuleType, model: LanguageModel, tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T, V) by a model's `reference.py`, row by row."""
    if hasattr(reference, "logits"):
        found: Tensor = reference.logits(model, tokens)
        return found
    return backbone_logits(reference, model, tokens)


def backbone_logits(reference: Any, model: LanguageModel, tokens: Tensor) -> Tensor:
    """As `logits`, of a model on the backbone; `reference` has `mix` and perhaps the others."""
    assert isinstance(model, Backbone)
    return torch.stack([_logits_of_row(reference, model, row) for row in tokens])


def _logits_of_row(reference: Any, model: Backbone, tokens: Tensor) -> Tensor:
    row = _SharedByLayers(model, tokens)
    stream = [norm(x) for x in _embed(model, tokens)]
    if hasattr(reference, "side"):
        row.side = reference.side(model, tokens, stream)
    feed: Callable[[Any, Inputs], Vectors] = getattr(reference, "feed", dense)
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        read = convolved(block.conv, [norm(x) for x in stream])
        mixed = reference.mix(
            block.mixer, Inputs(convolved(block.canon_a, read), row, layer, block)
        )
        after = added(stream, mixed)
        read = convolved(block.canon_c, [norm(x) for x in after])
        after = added(after, feed(block.mlp, Inputs(read, row, layer, block)))
        if hasattr(reference, "finish"):
            after = reference.finish(Inputs(read, row, layer, block), stream, after)
        stream = after
    final = [norm(x) for x in stream]
    if model.suffix is not None:
        final = _remembered(model, final, tokens.tolist())
    return torch.stack([_logits(model, x) for x in final])


def _remembered(model: Backbone, final: Vectors, tokens: list[int]) -> Vectors:
    """The final hidden states with what followed the longest earlier match."""
    memory, end = model.suffix, model.config.end_token
    assert memory is not None
    weights = memory.weight.view(-1, memory.width)
    out = []
    for t, x in enumerate(final):
        length, proposed = longest_match(tokens[: t + 1], end)
        if length:
            level = sum(length > longest for longest in LONGEST)
            gate = weights[level] @ x + memory.bias[level]
            row = model.head.weight[proposed]
            x = x + gate * norm(row)
        out.append(x)
    return out


def longest_match(tokens: Sequence[int], end: int) -> tuple[int, int]:
    """How many of the last tokens stood together before, in their document, and what followed them
    the last time; (0, 0) where not even the last token did. `end` begins a document."""
    start = max((i for i, token in enumerate(tokens) if token == end), default=0)
    text = tokens[start:]
    found = (0, 0)
    for j in range(len(text) - 1):
        length = 0
        while length <= j and text[j - length] == text[len(text) - 1 - length]:
            length += 1
        if length and length >= found[0]:
            found = (length, text[j + 1])
    return found


def _embed(model: Backbone, tokens: Tensor) -> Vectors:
    config, pairs = model.config, model.embedding.pair
    stream = [model.embedding.token.weight[token] for token in tokens]
    if pairs is None:
        return stream
    before = [-1, *tokens.tolist()]
    for t, token in enumerate(tokens.tolist()):
        number = (before[t] + 1) * config.vocab_size + token
        if (config.vocab_size + 1) * config.vocab_size > config.bigrams:
            number = (number * 2_654_435_761 % 2**31) // 8
        stream[t] = stream[t] + pairs.weight[number % config.bigrams]
    return stream


def head(model: Backbone, x: Tensor) -> Tensor:
    """The stream (C,) at a position -> logits (V,)."""
    return _logits(model, norm(x))


def _logits(model: Backbone, hidden: Tensor) -> Tensor:
    out, cap = model.head.weight @ hidden, model.config.soft_cap
    return cap * torch.tanh(out / cap) if cap else out


def dense(mlp: Any, inputs: Sequence[Tensor]) -> Vectors:
    """The dense MLP, with its Canon convolution where it has one."""
    assert isinstance(mlp, MLP)
    hidden = convolved(mlp.canon, [mlp.up.weight @ x for x in inputs])
    return [mlp.down.weight @ h.clamp_min(0) ** 2 for h in hidden]


# -- formulas that several references use ---------------------------------------------------------


def norm(x: Tensor) -> Tensor:
    """RMS norm of one vector."""
    return x / (x.pow(2).mean() + 1e-6).sqrt()


def layer_norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.pow(2).mean() + module.eps).sqrt() * module.weight + module.bias


def unit(x: Tensor) -> Tensor:
    """A vector at length 1."""
    return x / x.pow(2).sum().sqrt()


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def softplus(x: Tensor) -> Tensor:
    return (1 + x.exp()).log()


def total(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum(0)


def added(a: Iterable[Tensor], b: Iterable[Tensor]) -> Vectors:
    return [x + y for x, y in zip(a, b, strict=True)]


def convolved(conv: ShortConv | None, inputs: Sequence[Tensor]) -> Vectors:
    """The weighted sum of the last inputs at each position; of a layer that is not linear, its
    silu."""
    if conv is None:
        return list(inputs)
    w = conv.weight
    out = [
        total([w[k] * inputs[t - k] for k in range(min(len(w), t + 1))]) for t in range(len(inputs))
    ]
    return out if conv.linear else [silu(x) for x in out]


def rotary_rates(config: BackboneConfig, width: int) -> list[float]:
    """Radians per position of the rotated pairs of a vector of `width`."""
    rotated = round(width // 2 * config.rope_fraction)
    return [config.rope_base ** (-i / rotated) for i in range(rotated)]


def rotate(x: Tensor, position: int, rates: Sequence[float]) -> Tensor:
    """The pairs (i, i + d/2) turned as complex numbers by position * rates[i], the rest not."""
    half = len(x) // 2
    angles = [position * rate for rate in rates] + [0.0] * (half - len(rates))
    turn = torch.tensor(angles, dtype=x.dtype)
    pair = torch.polar(torch.ones_like(turn), turn) * torch.complex(x[:half], x[half:])
    return torch.cat((pair.real, pair.imag))


def attend(q: Vectors, k: Vectors, v: Vectors, seen: Callable[[int], Sequence[int]]) -> Vectors:
    """One head: position t averages the values of `seen(t)` by softmax(q.k / sqrt(d))."""
    out = []
    for t in range(len(q)):
        weight = torch.stack([q[t] @ k[s] / math.sqrt(len(q[t])) for s in seen(t)]).exp()
        weight = weight / weight.sum()
        out.append(total([w * v[s] for w, s in zip(weight, seen(t), strict=True)]))
    return out


def past(t: int) -> range:
    """All positions up to t."""
    return range(t + 1)


def recur(transitions: Vectors, writes: Vectors, queries: Vectors) -> Vectors:
    """One head: S = M_t S + W_t, with M (K, K) and W (K, V) per position, read at q (K)."""
    state = torch.zeros_like(writes[0])
    out = []
    for transition, write, query in zip(transitions, writes, queries, strict=True):
        state = transition @ state + write
        out.append(state.T @ query)
    return out


def joined(heads: Sequence[Vectors]) -> Vectors:
    """Vectors (d,) per head and position -> their concatenation (H d,) at each position."""
    return [torch.cat(parts) for parts in zip(*heads, strict=True)]
