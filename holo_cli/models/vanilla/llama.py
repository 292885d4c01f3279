"""The block of Llama (Touvron et al. 2023), which Mistral and Qwen2 share: `recipe = "llama"`.

    x = E[token]
    q, k, v = W_q n, W_k n, W_v n     n = norm(x) g       biases here with `qkv_bias` (Qwen2)
    x = x + W_o softmax(rope(q) rope(k)^T / sqrt(d)) v
    x = x + W_down (silu(W_gate n) * W_up n)              n = norm(x) g, another gain
    logits = W (norm(x) g)                                W = E with `tied`

`kv_heads` heads of keys and values are read by heads / kv_heads queries each (Ainslie et al. 2023).
Legend: B rows, T positions, S positions of a step, C width, H heads, d = C / H, K = `kv_heads`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.cache import KVCache
from holo_cli.layers.causal import causal_attention
from holo_cli.layers.head import Head
from holo_cli.layers.positions import Positions
from holo_cli.layers.rope import Rope
from holo_cli.models.base import Description
from holo_cli.models.vanilla.config import Config
from holo_cli.models.vanilla.textbook import Textbook


class LlamaBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), both norms with a gain."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, hidden = config.width, round(config.mlp_ratio * config.width)
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        head_width = width // self.heads
        self.norm1 = nn.RMSNorm(width, config.norm_eps)
        self.q = nn.Linear(width, width, bias=config.qkv_bias)
        self.k = nn.Linear(width, self.kv_heads * head_width, bias=config.qkv_bias)
        self.v = nn.Linear(width, self.kv_heads * head_width, bias=config.qkv_bias)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.RMSNorm(width, config.norm_eps)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.rope = Rope(head_width, config.rope_base, 1.0)
        self.drop = config.dropout

    def project(self, x: Tensor, start: Positions) -> tuple[Tensor, Tensor, Tensor]:
        """The stream (B, S, C) at positions start.. -> q (B, H, S, d), k and v (B, K, S, d)."""
        n = self.norm1(x)
        q = self.rope(self.q(n).unflatten(2, (self.heads, -1)), start)
        k = self.rope(self.k(n).unflatten(2, (self.kv_heads, -1)), start)
        v = self.v(n).unflatten(2, (self.kv_heads, -1))
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def repeated(self, x: Tensor) -> Tensor:
        """(B, K, L, d) -> (B, H, L, d): for each query its head of keys or values."""
        groups = self.heads // self.kv_heads
        return x if groups == 1 else x.repeat_interleave(groups, dim=1)

    def forward(
        self, x: Tensor, start: Positions, cache: KVCache | None = None
    ) -> tuple[Tensor, KVCache | None]:
        """(B, S, C) at positions start.. after `cache` (None: nothing before, nothing kept)."""
        q, k, v = self.project(x, start)
        seen = None
        if cache is not None:
            cache = cache.append(k, v)
            k, v = cache.views()
            seen = cache.seen()
        y = causal_attention(q, self.repeated(k), self.repeated(v), seen=seen)
        y = self.out(y.transpose(1, 2).flatten(2))
        x = x + nn.functional.dropout(y, self.drop, self.training)
        n = self.norm2(x)
        y = self.down(nn.functional.silu(self.gate(n)) * self.up(n))
        return x + nn.functional.dropout(y, self.drop, self.training), cache


class Llama(Textbook):
    """A model of these blocks. Positions beyond `context` are computed, though never trained."""

    norm: nn.RMSNorm

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(LlamaBlock(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, config.norm_eps)
        weight = self.token.weight
        if not config.tied:
            weight = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.head = Head(weight, cap=0.0)
        self.initialise()

    def embed(self, tokens: Tensor, start: Positions) -> Tensor:
        x: Tensor = self.token(tokens)
        return nn.functional.dropout(x, self.config.dropout, self.training)

    def cached_width(self) -> int:
        return self.config.width // self.config.heads * (self.config.kv_heads or self.config.heads)

    def describe(self) -> Description:
        # an untied table is read a row at a time, a tied one is the head's matrix too
        return self.described([] if self.config.tied else [self.token.weight])
