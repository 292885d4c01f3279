"""vanilla in its slow obvious form: the oracle that the fast one is tested against.

One position, one head, one layer at a time, by the formulas, in the dtype of the weights; shares
no code with the fast path and reads only its weights. Also holds what the contract suite needs to
know about this model: `CASES` and `disable`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.layers.attention import Attention
from holo_cli.layers.mlp import MLP
from holo_cli.models.base import LanguageModel
from holo_cli.models.skeleton import Skeleton
from holo_cli.models.vanilla.classic import Classic, ClassicBlock

# Config overrides on top of the suite's small shapes: every path of the model once.
CASES: dict[str, dict[str, Any]] = {
    "modern": {},
    "modern-options": {"conv": 4, "bigrams": 61, "tied": False, "rope_fraction": 0.5},
    "classic": {"recipe": "classic"},
}


def disable(model: LanguageModel) -> None:
    """Switch the mixing of tokens off, for good: attention writes nothing into the stream."""
    for module in model.modules():
        if isinstance(module, Attention | ClassicBlock):
            nn.init.zeros_(module.out.weight)
            module.out.weight.requires_grad_(False)
            if module.out.bias is not None:
                nn.init.zeros_(module.out.bias)
                module.out.bias.requires_grad_(False)


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T, V), row by row."""
    form = _classic if isinstance(model, Classic) else _modern
    return torch.stack([form(model, row) for row in tokens])  # type: ignore[arg-type]


def _norm(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()


def _attend(q: list[Tensor], k: list[Tensor], v: list[Tensor]) -> list[Tensor]:
    """One head: lists over positions of vectors (d,); position t averages over 0..t."""
    out = []
    for t in range(len(q)):
        score = torch.stack([q[t] @ k[s] / math.sqrt(len(q[t])) for s in range(t + 1)])
        weight = score.exp() / score.exp().sum()
        out.append(sum((weight[s] * v[s] for s in range(t + 1)), torch.zeros_like(v[0])))
    return out


def _rotate(x: Tensor, position: int, base: float, fraction: float) -> Tensor:
    """The pairs (i, i + d/2) turned as complex numbers by position * base^(-i / rotated)."""
    half = len(x) // 2
    rotated = round(half * fraction)
    pair = torch.complex(x[:half], x[half:])
    angles = [position * base ** (-i / rotated) for i in range(rotated)]
    angle = torch.tensor(angles + [0.0] * (half - rotated), dtype=x.dtype)
    pair = pair * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((pair.real, pair.imag))


def _modern(model: Skeleton, row: Tensor) -> Tensor:
    config = model.config
    heads, width = config.heads, config.width // config.heads
    table = model.embedding.token.weight
    stream = [table[token] for token in row]
    if model.embedding.pair is not None:
        before = torch.cat((torch.tensor([-1]), row[:-1]))
        for t, (a, b) in enumerate(zip(before.tolist(), row.tolist(), strict=True)):
            number = (a + 1) * config.vocab_size + b
            if (config.vocab_size + 1) * config.vocab_size > config.bigrams:
                number = (number * 2_654_435_761 % 2**31) // 8
            stream[t] = stream[t] + model.embedding.pair.weight[number % config.bigrams]
    stream = [_norm(x) for x in stream]
    for block in model._blocks():
        inputs = [_norm(x) for x in stream]
        if block.conv is not None:
            mixed = []
            for t in range(len(inputs)):
                taps = range(min(config.conv, t + 1))
                x = sum((block.conv.weight[k] * inputs[t - k] for k in taps), torch.zeros(()))
                mixed.append(x / (1 + (-x).exp()))
            inputs = mixed
        mixer = block.mixer
        assert isinstance(mixer, Attention)
        assert isinstance(block.mlp, MLP)
        q_all, k_all, v_all = mixer.qkv.weight.chunk(3)
        heard: list[list[Tensor]] = []
        for h in range(heads):
            at = slice(h * width, (h + 1) * width)
            turn = (config.rope_base, config.rope_fraction)
            q = [_rotate(_norm(q_all[at] @ x), t, *turn) for t, x in enumerate(inputs)]
            k = [_rotate(_norm(k_all[at] @ x), t, *turn) for t, x in enumerate(inputs)]
            heard.append(_attend(q, k, [v_all[at] @ x for x in inputs]))
        for t in range(len(stream)):
            stream[t] = stream[t] + mixer.out.weight @ torch.cat([h[t] for h in heard])
            hidden = (block.mlp.up.weight @ _norm(stream[t])).clamp_min(0) ** 2
            stream[t] = stream[t] + block.mlp.down.weight @ hidden
    out = torch.stack([model.head.weight @ _norm(x) for x in stream])
    return config.soft_cap * torch.tanh(out / config.soft_cap) if config.soft_cap else out


def _layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.pow(2).mean() + norm.eps).sqrt() * norm.weight + norm.bias


def _classic(model: Classic, row: Tensor) -> Tensor:
    width = model.config.width // model.config.heads
    stream = [model.token.weight[b] + model.position.weight[t] for t, b in enumerate(row)]
    for block in model.blocks:
        assert isinstance(block, ClassicBlock)
        qkv = [block.qkv.weight @ _layer_norm(x, block.norm1) + block.qkv.bias for x in stream]
        heard = []
        for h in range(model.config.heads):
            q, k, v = (
                [x.chunk(3)[part][h * width : (h + 1) * width] for x in qkv] for part in range(3)
            )
            heard.append(_attend(q, k, v))
        for t in range(len(stream)):
            joined = torch.cat([h[t] for h in heard])
            stream[t] = stream[t] + block.out.weight @ joined + block.out.bias
            u = block.up.weight @ _layer_norm(stream[t], block.norm2) + block.up.bias
            gelu = 0.5 * u * (1 + torch.erf(u / math.sqrt(2)))
            stream[t] = stream[t] + block.down.weight @ gelu + block.down.bias
    return torch.stack([model.token.weight @ _layer_norm(x, model.norm) for x in stream])
