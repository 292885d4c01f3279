"""The textbook GPT, the baseline of most published comparisons.

Pre-LayerNorm blocks with biases, learned positions, GELU, tied head, dropout, normal
initialisation of std 0.02 with residual projections scaled by 1/sqrt(2 layers) (Radford et al.
2019). Legend: B rows, T positions, S positions of a step, C width, H heads, d = C / H.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from holo_cli.errors import UsageError
from holo_cli.layers.cache import KVCache
from holo_cli.layers.causal import causal_attention
from holo_cli.layers.head import Head
from holo_cli.layers.positions import Positions, following, most
from holo_cli.models.base import Description, Hidden, LanguageModel, State
from holo_cli.models.vanilla.config import Config
from holo_cli.wording import counted


@dataclass(frozen=True)
class ClassicState(State):
    """Keys and values of every block, (B, H, L, d) each."""

    position: int
    caches: tuple[KVCache, ...]


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

    def forward(self, x: Tensor, cache: KVCache | None = None) -> tuple[Tensor, KVCache | None]:
        """(B, S, C) after `cache` (None: nothing before, nothing kept) -> the same, the cache."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, S, d)
        if cache is not None:
            cache = cache.append(k, v)
            k, v = cache.views()
        seen = None if cache is None else cache.seen()
        y = causal_attention(q, k, v, seen=seen).transpose(1, 2).flatten(2)
        x = x + nn.functional.dropout(self.out(y), self.drop, self.training)
        approximate = "tanh" if self.tanh else "none"
        y = self.down(nn.functional.gelu(self.up(self.norm2(x)), approximate=approximate))
        return x + nn.functional.dropout(y, self.drop, self.training), cache


class Classic(LanguageModel):
    """GPT-2 style model of at most `context` positions."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.token = nn.Embedding(config.vocab_size, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(ClassicBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = Head(self.token.weight, cap=0.0)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Normal 0.02, zero biases, the projections back into the stream smaller by depth."""
        for name, p in self.named_parameters():
            if p.ndim == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                scale = (2 * self.config.layers) ** -0.5 if residual else 1.0
                nn.init.normal_(p, std=0.02 * scale)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def _embed(self, tokens: Tensor, start: Positions) -> Tensor:
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

    def hidden(self, tokens: Tensor) -> Hidden:
        x = self._embed(tokens, 0)
        for block in self.blocks:
            if self.grad_checkpoint and torch.is_grad_enabled():
                x, _ = checkpoint(block, x, use_reentrant=False)
            else:
                x, _ = block(x)
        return Hidden(self.norm(x), {})

    @property
    def mixed_lengths(self) -> bool:
        return True

    def init_state(self, batch: int = 1) -> ClassicState:
        return ClassicState(0, tuple(KVCache() for _ in self.blocks))

    def step_hidden(self, tokens: Tensor, state: State) -> tuple[Tensor, ClassicState]:
        assert isinstance(state, ClassicState)
        x = self._embed(tokens, state.position)
        caches: list[KVCache] = []
        for block, cache in zip(self.blocks, state.caches, strict=True):
            x, cache = block(x, cache)
            caches.append(cache)
        position = state.position + tokens.shape[1]
        return self.norm(x), replace(state, position=position, caches=tuple(caches))

    def state_bytes(self, length: int) -> int:
        size = self.head.weight.element_size()
        return 2 * length * self.config.width * self.config.layers * size

    def disable(self) -> None:
        for block in self.blocks:
            assert isinstance(block, ClassicBlock)
            for parameter in block.out.parameters():
                nn.init.zeros_(parameter)
                parameter.requires_grad_(False)

    def describe(self) -> Description:
        config = self.config
        total = sum(p.numel() for p in self.parameters())
        tables = self.position.weight.numel()  # one row of it is met; the tied token table is all
        used = total - tables + config.width
        forward = 2.0 * (total - tables)
        past = 4.0 * config.width * config.layers
        return Description(
            parameters=total,
            active_parameters=used,
            train_flops_per_token=3 * (forward + past * (config.context + 1) / 2),
            decode_flops_per_token=forward + past * config.context,
            state_bytes=self.state_bytes(config.context),
        )
