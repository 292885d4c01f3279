"""vanilla's formulas, one position and one head at a time (see `models/oracle.py`).

The recipes classic and llama are not on the backbone and are written out whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.models.base import LanguageModel
from holo_cli.models.oracle import (
    Inputs,
    Vectors,
    attend,
    backbone_logits,
    convolved,
    joined,
    layer_norm,
    norm,
    past,
    rotate,
    silu,
    softplus,
)
from holo_cli.models.vanilla.attention import Attention
from holo_cli.models.vanilla.classic import Classic, ClassicBlock
from holo_cli.models.vanilla.llama import Llama, LlamaBlock

CASES: dict[str, dict[str, Any]] = {
    "modern": {},
    "modern-options": {"conv": 4, "bigrams": 61, "tied": False, "rope_fraction": 0.5},
    "modern-switches": {
        "canon": "ABCD",
        "value_residual": True,
        "value_embedding": True,
        "query_gain": False,
        "soft_cap": 0,
        "value_mass": True,
    },
    "modern-suffix": {"suffix": True, "end_token": 5, "soft_cap": 0},
    "classic": {"recipe": "classic"},
    "llama": {"recipe": "llama"},
    "llama-options": {
        "recipe": "llama",
        "kv_heads": 1,
        "tied": False,
        "qkv_bias": True,
        "norm_eps": 0.01,
    },
}


def heads(
    mixer: Attention, inputs: Inputs, weight: Tensor | None = None
) -> Iterator[tuple[Vectors, Vectors, Vectors]]:
    """Queries, keys and values of each head, (d,) at each position; `weight` instead of qkv's."""
    weight = mixer.qkv.weight if weight is None else weight
    made = convolved(mixer.canon, [weight @ x for x in inputs])
    q_all, k_all, v_all = zip(*(x.chunk(3) for x in made), strict=True)
    v_all = tuple(inputs.values(list(v_all)))
    width = inputs.config.width // mixer.heads
    for h in range(mixer.heads):
        at = slice(h * width, (h + 1) * width)
        q = [inputs.rotate(norm(x[at]), t) for t, x in enumerate(q_all)]
        k = [inputs.rotate(norm(x[at]), t) for t, x in enumerate(k_all)]
        if mixer.gain is not None:
            q = [1.5 * (4 * mixer.gain.log_gain[h]).exp() * x for x in q]
        v = [x[at] for x in v_all]
        if mixer.mass is not None:
            v = [
                (softplus(mixer.mass.weight[h] @ x) + 1e-4) * one
                for x, one in zip(inputs, v, strict=True)
            ]
        yield q, k, v


def mix(mixer: Attention, inputs: Inputs) -> Vectors:
    found = [attend(q, k, v, past) for q, k, v in heads(mixer, inputs)]
    return [mixer.out.weight @ y for y in joined(found)]


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T, V), of any recipe."""
    if isinstance(model, Classic):
        return torch.stack([_classic(model, row) for row in tokens])
    if isinstance(model, Llama):
        return torch.stack([_llama(model, row) for row in tokens])
    return backbone_logits(SimpleNamespace(mix=mix), model, tokens)


def _classic(model: Classic, tokens: Tensor) -> Tensor:
    width = model.config.width // model.config.heads
    stream = [model.token.weight[b] + model.position.weight[t] for t, b in enumerate(tokens)]
    for block in model.blocks:
        assert isinstance(block, ClassicBlock)
        qkv = [block.qkv.weight @ layer_norm(x, block.norm1) + block.qkv.bias for x in stream]
        found = []
        for h in range(model.config.heads):
            at = slice(h * width, (h + 1) * width)
            q, k, v = ([x.chunk(3)[part][at] for x in qkv] for part in range(3))
            found.append(attend(q, k, v, past))
        for t, y in enumerate(joined(found)):
            x = stream[t] + block.out.weight @ y + block.out.bias
            u = block.up.weight @ layer_norm(x, block.norm2) + block.up.bias
            if model.config.gelu == "tanh":
                gelu = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
            else:
                gelu = 0.5 * u * (1 + torch.erf(u / math.sqrt(2)))
            stream[t] = x + block.down.weight @ gelu + block.down.bias
    return torch.stack([model.token.weight @ layer_norm(x, model.norm) for x in stream])


def _llama(model: Llama, tokens: Tensor) -> Tensor:
    config = model.config
    width = config.width // config.heads
    rates = [config.rope_base ** (-2 * i / width) for i in range(width // 2)]
    group = config.heads // (config.kv_heads or config.heads)
    stream = [model.token.weight[token] for token in tokens]
    for block in model.blocks:
        assert isinstance(block, LlamaBlock)
        read = [_gained(x, block.norm1, config.norm_eps) for x in stream]
        q_all, k_all, v_all = (
            [m.weight @ n + (0 if m.bias is None else m.bias) for n in read]
            for m in (block.q, block.k, block.v)
        )
        found = []
        for h in range(config.heads):
            own = slice(h * width, (h + 1) * width)
            shared = slice(h // group * width, (h // group + 1) * width)
            q = [rotate(x[own], t, rates) for t, x in enumerate(q_all)]
            k = [rotate(x[shared], t, rates) for t, x in enumerate(k_all)]
            found.append(attend(q, k, [v[shared] for v in v_all], past))
        for t, y in enumerate(joined(found)):
            x = stream[t] + block.out.weight @ y
            n = _gained(x, block.norm2, config.norm_eps)
            hidden = silu(block.gate.weight @ n) * (block.up.weight @ n)
            stream[t] = x + block.down.weight @ hidden
    final = [_gained(x, model.norm, config.norm_eps) for x in stream]
    return torch.stack([model.head.weight @ x for x in final])


def _gained(x: Tensor, module: nn.RMSNorm, eps: float) -> Tensor:
    return x / (x.pow(2).mean() + eps).sqrt() * module.weight
