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
from holo_cli.layers.conv import ShortConv
from holo_cli.layers.mlp import MLP
from holo_cli.models.backbone import Backbone
from holo_cli.models.base import LanguageModel
from holo_cli.models.vanilla.classic import Classic, ClassicBlock

# Config overrides on top of the suite's small shapes: every path of the model once.
CASES: dict[str, dict[str, Any]] = {
    "modern": {},
    "modern-options": {"conv": 4, "bigrams": 61, "tied": False, "rope_fraction": 0.5},
    "modern-switches": {
        "canon": "ABCD",
        "value_residual": True,
        "value_embedding": True,
        "query_gain": False,
        "soft_cap": 0,
    },
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


def _modern(model: Backbone, row: Tensor) -> Tensor:
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
    first: list[Tensor] = []  # values of the first layer, (C,) each
    for block in model._blocks():
        inputs = [_norm(x) for x in stream]
        if block.conv is not None:
            inputs = [x / (1 + (-x).exp()) for x in _convolved(block.conv, inputs)]
        inputs = _convolved(block.canon_a, inputs)
        mixer, mlp = block.mixer, block.mlp
        assert isinstance(mixer, Attention)
        assert isinstance(mlp, MLP)
        made = _convolved(mixer.canon, [mixer.qkv.weight @ x for x in inputs])
        q_all, k_all, values = zip(*(x.chunk(3) for x in made), strict=True)
        first = first or list(values)
        mixed = list(values)
        if block.residual_gain is not None:
            mixed = [v + block.residual_gain * f for v, f in zip(mixed, first, strict=True)]
        if block.embedding_gain is not None and model.values is not None:
            own = [model.values.weight[token] for token in row]
            mixed = [v + block.embedding_gain * e for v, e in zip(mixed, own, strict=True)]
        heard: list[list[Tensor]] = []
        turn = (config.rope_base, config.rope_fraction)
        for h in range(heads):
            at = slice(h * width, (h + 1) * width)
            q = [_rotate(_norm(x[at]), t, *turn) for t, x in enumerate(q_all)]
            k = [_rotate(_norm(x[at]), t, *turn) for t, x in enumerate(k_all)]
            if mixer.gain is not None:
                q = [1.5 * (4 * mixer.gain.log_gain[h]).exp() * x for x in q]
            heard.append(_attend(q, k, [v[at] for v in mixed]))
        for t in range(len(stream)):
            stream[t] = stream[t] + mixer.out.weight @ torch.cat([h[t] for h in heard])
        inputs = _convolved(block.canon_c, [_norm(x) for x in stream])
        hidden = _convolved(mlp.canon, [mlp.up.weight @ x for x in inputs])
        for t in range(len(stream)):
            stream[t] = stream[t] + mlp.down.weight @ hidden[t].clamp_min(0) ** 2
    out = torch.stack([model.head.weight @ _norm(x) for x in stream])
    return config.soft_cap * torch.tanh(out / config.soft_cap) if config.soft_cap else out


def _convolved(conv: ShortConv | None, inputs: list[Tensor]) -> list[Tensor]:
    """At each position the weighted sum of the last inputs."""
    if conv is None:
        return inputs
    out = []
    for t in range(len(inputs)):
        taps = range(min(conv.taps, t + 1))
        out.append(sum((conv.weight[k] * inputs[t - k] for k in taps), torch.zeros(())))
    return out


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
