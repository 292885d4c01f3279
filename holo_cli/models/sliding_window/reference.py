"""Sliding-window attention in its slow obvious form, and what the contract suite needs to know.

One position, one head and one layer at a time, by the formulas, in the dtype of the weights. Shares
no code with the fast path and reads only its weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.layers.mlp import MLP
from holo_cli.models.base import LanguageModel
from holo_cli.models.sliding_window.attention import WindowAttention
from holo_cli.models.sliding_window.model import Model

# Config overrides on top of the suite's small shapes. The window is shorter than every text of the
# suite that has to look back, and the sinks let the first token reach the last position.
CASES: dict[str, dict[str, Any]] = {"window": {"window": 12, "sinks": 2, "rope_fraction": 0.5}}


def disable(model: LanguageModel) -> None:
    """Switch the mixing of tokens off, for good: attention writes nothing into the stream."""
    for module in model.modules():
        if isinstance(module, WindowAttention):
            nn.init.zeros_(module.out.weight)
            module.out.weight.requires_grad_(False)


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T, V), row by row."""
    assert isinstance(model, Model)
    return torch.stack([_row(model, row) for row in tokens])


def _norm(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()


def _row(model: Model, row: Tensor) -> Tensor:
    config = model.config
    stream = [_norm(model.embedding.token.weight[token]) for token in row]
    for block in model._blocks():
        assert isinstance(block.mixer, WindowAttention)
        assert isinstance(block.mlp, MLP)
        mixed = _mix(block.mixer, model, [_norm(x) for x in stream])
        for t, y in enumerate(mixed):
            stream[t] = stream[t] + y
            hidden = (block.mlp.up.weight @ _norm(stream[t])).clamp_min(0) ** 2
            stream[t] = stream[t] + block.mlp.down.weight @ hidden
    out = torch.stack([model.head.weight @ _norm(x) for x in stream])
    return config.soft_cap * torch.tanh(out / config.soft_cap)


def _mix(mixer: WindowAttention, model: Model, inputs: list[Tensor]) -> list[Tensor]:
    config = model.config
    width = config.width // config.heads
    made = [(mixer.qkv.weight @ x).view(3, config.heads, width) for x in inputs]
    heads: list[list[Tensor]] = [[] for _ in inputs]
    for h in range(config.heads):
        q = [_rotate(_norm(x[0, h]), t, config.rope_fraction) for t, x in enumerate(made)]
        k = [_rotate(_norm(x[1, h]), t, config.rope_fraction) for t, x in enumerate(made)]
        if mixer.gain is not None:
            q = [1.5 * (4 * mixer.gain.log_gain[h]).exp() * x for x in q]
        for t in range(len(inputs)):
            seen = [s for s in range(t + 1) if s > t - config.window or s < config.sinks]
            weight = torch.stack([q[t] @ k[s] / math.sqrt(width) for s in seen]).exp()
            total = torch.stack([w * made[s][2, h] for w, s in zip(weight, seen, strict=True)])
            heads[t].append(total.sum(0) / weight.sum())
    return [mixer.out.weight @ torch.cat(heard) for heard in heads]


def _rotate(x: Tensor, position: int, fraction: float) -> Tensor:
    """The pairs (i, i + d/2) turned as complex numbers by position * 10000^(-i / rotated)."""
    half = len(x) // 2
    rotated = round(half * fraction)
    angles = [position * 10_000.0 ** (-i / rotated) for i in range(rotated)]
    angle = torch.tensor(angles + [0.0] * (half - rotated), dtype=x.dtype)
    pair = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((pair.real, pair.imag))
