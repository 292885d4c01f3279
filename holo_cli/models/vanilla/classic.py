"""The textbook GPT, the baseline of most published comparisons.

Pre-LayerNorm blocks with biases, learned positions, GELU, tied head, dropout, normal
initialisation of std 0.02 with residual projections scaled by 1/sqrt(2 layers) (Radford et al.
2019). Legend: B rows, T positions, S positions of a step, C width, H heads, d = C / H.
"""

from __future__ import annotations

from torch import Tensor, nn

from holo_cli.errors import UsageError
from holo_cli.layers.cache import KVCache
from holo_cli.layers.causal import causal_attention
from holo_cli.layers.head import Head
from holo_cli.layers.positions import Positions, following, most
from holo_cli.models.base import Description
from holo_cli.models.vanilla.config import Config
from holo_cli.models.vanilla.textbook import Textbook
from holo_cli.wording import counted


class ClassicBlock(nn.Module):
    """x + attention(LayerNorm(x)), then x + mlp(LayerNorm(x)); every linear layer has a bias."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, hidden = config.width, round(config.mlp_ratio * config.width)
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.drop, self.tanh = config.dropout, config.gelu == "tanh"

    def project(self, x: Tensor, start: Positions) -> tuple[Tensor, Tensor, Tensor]:
        """The stream (B, S, C), which has its positions -> queries, keys, values (B, H, S, d)."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(
        self, x: Tensor, start: Positions, cache: KVCache | None = None
    ) -> tuple[Tensor, KVCache | None]:
        """(B, S, C) after `cache` (None: nothing before, nothing kept) -> the same, the cache."""
        q, k, v = self.project(x, start)
        if cache is not None:
            cache = cache.append(k, v)
            k, v = cache.views()
        seen = None if cache is None else cache.seen()
        y = causal_attention(q, k, v, seen=seen).transpose(1, 2).flatten(2)
        x = x + nn.functional.dropout(self.out(y), self.drop, self.training)
        approximate = "tanh" if self.tanh else "none"
        y = self.down(nn.functional.gelu(self.up(self.norm2(x)), approximate=approximate))
        return x + nn.functional.dropout(y, self.drop, self.training), cache


class Classic(Textbook):
    """GPT-2 style model of at most `context` positions."""

    norm: nn.LayerNorm

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(ClassicBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = Head(self.token.weight, cap=0.0)
        self.initialise()

    def embed(self, tokens: Tensor, start: Positions) -> Tensor:
        end = most(start) + tokens.shape[1]
        if end > self.config.context:
            raise UsageError(
                f"The classic recipe has learned {counted(self.config.context, 'position')} and "
                "was given "
                f"{end}.",
                next_step="Shorten the text, or train with a longer --context.",
            )
        at = following(start, tokens.shape[1], tokens.device)
        x: Tensor = self.token(tokens) + self.position(at)
        return nn.functional.dropout(x, self.config.dropout, self.training)

    def describe(self) -> Description:
        return self.described([self.position.weight])  # the tied token table is a matrix too
