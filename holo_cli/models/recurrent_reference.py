"""The slow obvious form of the backbone around a recurrent mixer: the oracle of their tests.

One position and one layer at a time, by the formulas, in the dtype of the weights; shares no code
with the fast path and reads only its weights. A model's `reference.py` adds its mixer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from holo_cli.layers.mlp import MLP
from holo_cli.models.base import LanguageModel
from holo_cli.models.recurrent import RecurrentMixer, RecurrentModel

Turn = Callable[[Tensor, int], Tensor]  # a key or query and its position -> rotated
Mix = Callable[[RecurrentMixer, list[Tensor], Turn], list[Tensor]]


def disable(model: LanguageModel) -> None:
    """Switch the mixing of tokens off, for good: the mixers write nothing into the stream."""
    for module in model.modules():
        if isinstance(module, RecurrentMixer):
            nn.init.zeros_(module.out.weight)
            module.out.weight.requires_grad_(False)


def backbone_logits(model: LanguageModel, tokens: Tensor, mix: Mix) -> Tensor:
    """(B, T) int64 -> (B, T, V), row by row; `mix` gives what a mixer adds for its inputs, and
    is told how to rotate keys and queries."""
    assert isinstance(model, RecurrentModel)
    return torch.stack([_row(model, row, mix) for row in tokens])


def norm(x: Tensor) -> Tensor:
    """RMS norm of one vector."""
    return x / (x.pow(2).mean() + 1e-6).sqrt()


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def unit(x: Tensor) -> Tensor:
    return x / x.pow(2).sum().sqrt()


def turn(x: Tensor, position: int, base: float, fraction: float) -> Tensor:
    """The pairs (i, i + d/2) turned as complex numbers by position * base^(-i / rotated)."""
    half = len(x) // 2
    rotated = round(half * fraction)
    angles = [position * base ** (-i / rotated) for i in range(rotated)] + [0.0] * (half - rotated)
    angle = torch.tensor(angles, dtype=x.dtype)
    pair = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((pair.real, pair.imag))


def recur(transitions: list[Tensor], writes: list[Tensor], queries: list[Tensor]) -> list[Tensor]:
    """One head: S = M_t S + W_t, with M (K, K) and W (K, V) per position, read at q (K)."""
    state = torch.zeros_like(writes[0])
    out = []
    for transition, write, query in zip(transitions, writes, queries, strict=True):
        state = transition @ state + write
        out.append(state.T @ query)
    return out


def _embed(model: RecurrentModel, row: Tensor) -> list[Tensor]:
    config = model.config
    stream = [model.embedding.token.weight[token] for token in row]
    if model.embedding.pair is not None:
        before = torch.cat((torch.tensor([-1]), row[:-1]))
        for t, (a, b) in enumerate(zip(before.tolist(), row.tolist(), strict=True)):
            number = (a + 1) * config.vocab_size + b
            if (config.vocab_size + 1) * config.vocab_size > config.bigrams:
                number = (number * 2_654_435_761 % 2**31) // 8
            stream[t] = stream[t] + model.embedding.pair.weight[number % config.bigrams]
    return [norm(x) for x in stream]


def _row(model: RecurrentModel, row: Tensor, mix: Mix) -> Tensor:
    config = model.config
    stream = _embed(model, row)

    def turned(x: Tensor, position: int) -> Tensor:
        return turn(x, position, config.rope_base, config.rope_fraction)

    for block in model._blocks():
        inputs = [norm(x) for x in stream]
        if block.conv is not None:
            mixed = []
            for t in range(len(inputs)):
                taps = range(min(config.conv, t + 1))
                x = sum((block.conv.weight[k] * inputs[t - k] for k in taps), torch.zeros(()))
                mixed.append(x * sigmoid(x))
            inputs = mixed
        assert isinstance(block.mixer, RecurrentMixer)
        assert isinstance(block.mlp, MLP)
        added = mix(block.mixer, inputs, turned)
        for t in range(len(stream)):
            stream[t] = stream[t] + added[t]
            hidden = (block.mlp.up.weight @ norm(stream[t])).clamp_min(0) ** 2
            stream[t] = stream[t] + block.mlp.down.weight @ hidden
    out = torch.stack([model.head.weight @ norm(x) for x in stream])
    return config.soft_cap * torch.tanh(out / config.soft_cap) if config.soft_cap else out
