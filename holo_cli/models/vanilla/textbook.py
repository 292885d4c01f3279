"""What the recipes beside the backbone share: blocks one after another, and a cache for each.

`classic.py` and `llama.py` are the architectures of others, written as their papers have them, so
that weights can be exchanged. Legend: B rows, S positions of a step, C width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from holo_cli.layers.cache import KVCache
from holo_cli.layers.positions import Positions
from holo_cli.models.base import Description, Hidden, LanguageModel, State
from holo_cli.models.vanilla.config import Config


@dataclass(frozen=True)
class TextbookState(State):
    """Keys and values of every block, (B, H, L, d) each."""

    position: Positions
    caches: tuple[KVCache, ...]


class Textbook(LanguageModel):
    """A subclass has `blocks`, each with a last matrix `out` of its attention and called as
    block(x, start, cache) -> (x, cache), a final `norm`, and `embed`."""

    config: Config
    blocks: nn.ModuleList
    norm: nn.Module

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

    @abstractmethod
    def embed(self, tokens: Tensor, start: Positions) -> Tensor:
        """Tokens (B, S) at positions start.. -> the residual stream (B, S, C)."""

    def hidden(self, tokens: Tensor) -> Hidden:
        x = self.embed(tokens, 0)
        for block in self.blocks:
            if self.grad_checkpoint and torch.is_grad_enabled():
                x, _ = checkpoint(block, x, 0, use_reentrant=False)
            else:
                x, _ = block(x, 0)
        return Hidden(self.norm(x), {})

    @property
    def mixed_lengths(self) -> bool:
        return True

    def init_state(self, batch: int = 1) -> TextbookState:
        return TextbookState(0, tuple(KVCache() for _ in self.blocks))

    def step_hidden(self, tokens: Tensor, state: State) -> tuple[Tensor, TextbookState]:
        assert isinstance(state, TextbookState)
        x = self.embed(tokens, state.position)
        caches: list[KVCache] = []
        for block, cache in zip(self.blocks, state.caches, strict=True):
            x, cache = block(x, state.position, cache)
            caches.append(cache)
        position = state.position + tokens.shape[1]
        return self.norm(x), replace(state, position=position, caches=tuple(caches))

    def cached_width(self) -> int:
        """Numbers that a token's keys have in one layer, and its values."""
        return self.config.width

    def state_bytes(self, length: int) -> int:
        size = self.head.weight.element_size()
        return 2 * length * self.cached_width() * self.config.layers * size

    def disable(self) -> None:
        for block in self.blocks:
            assert isinstance(block.out, nn.Module)
            for parameter in block.out.parameters():
                nn.init.zeros_(parameter)
                parameter.requires_grad_(False)

    def described(self, tables: Iterable[Tensor]) -> Description:
        """FLOPs: two per weight a token is multiplied by, and attention. `tables` are read a row at
        a time and multiply nothing."""
        config = self.config
        tables = list(tables)
        total = sum(p.numel() for p in self.parameters())
        matrices = total - sum(table.numel() for table in tables)
        forward = 2.0 * matrices
        past = 4.0 * config.width * config.layers
        return Description(
            parameters=total,
            active_parameters=matrices + config.width * len(tables),
            train_flops_per_token=3 * (forward + past * (config.context + 1) / 2),
            decode_flops_per_token=forward + past * config.context,
            state_bytes=self.state_bytes(config.context),
        )
