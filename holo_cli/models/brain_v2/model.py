"""brain-v2: a state space, an episodic memory that learns from one example, attention among
selected tokens, and more steps for harder tokens.

The modern backbone with `mixer.py` in each block, which by default is one of `ssm.py`,
`episodic.py`, `ssm.py`, `attention.py` in turn; with `layout=added` `ssm.py` is everywhere and the
others are added. With `ponder` above 1 the MLP is that of `ponder.py`.
Mathematics: `docs/models/brain-v2.md`. Without attention the decoding state is constant and the
past has no limit; with it a fourth of the layers keep keys and values of a tenth of the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from holo_cli.layers.interfaces import FeedForward
from holo_cli.layers.norm import rms_norm
from holo_cli.models.backbone import Backbone, BackboneState
from holo_cli.models.brain_v1.adapters import token_languages
from holo_cli.models.brain_v2 import decoding
from holo_cli.models.brain_v2.attention import SelectiveAttention
from holo_cli.models.brain_v2.calibration import Tally, calibrate_shifts, watching
from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.episodic import EpisodicMemory
from holo_cli.models.brain_v2.mixer import BrainMixer
from holo_cli.models.brain_v2.ponder import Ponder
from holo_cli.models.brain_v2.ssm import StateSpace
from holo_cli.models.views import watched


@dataclass(frozen=True)
class LanguageState(BackboneState):
    """With the language slot of each row's last token, (B,) int64."""

    slot: Tensor


class Model(Backbone):
    """The modern backbone with the mixers and the MLP of this folder."""

    config: Config
    quick_steps = True  # False: every step as `Backbone` makes it

    def make_mixer(self, layer: int) -> BrainMixer:
        return BrainMixer(self.config, layer)

    def make_mlp(self, layer: int) -> FeedForward:
        return Ponder(self.config) if self.config.ponder > 1 else super().make_mlp(layer)

    @property
    def context_limit(self) -> int | None:
        """None without attention: states fade, and nothing is ever full."""
        config = self.config
        attention = any(config.has_attention(layer) for layer in range(config.layers))
        return config.context if attention else None

    @property
    def has_memory(self) -> bool:
        return any(isinstance(m, EpisodicMemory) for m in self.modules())

    # -- languages --------------------------------------------------------------------------------

    def side_stream(self, tokens: Tensor, x: Tensor, state: BackboneState | None) -> Tensor | None:
        return self.slots(tokens, state)

    def slots(self, tokens: Tensor, state: BackboneState | None = None) -> Tensor | None:
        """The language slot of each of (B, S) tokens: 0 before the first marker, then 1 + the
        number of the last one; None where the config has no markers."""
        if not self.config.language_tokens:
            return None
        markers = torch.tensor(self.config.language_tokens, dtype=torch.int64, device=tokens.device)
        if isinstance(state, LanguageState):
            before = state.slot - 1
        else:
            before = torch.full_like(tokens[:, 0], -1)
        return token_languages(tokens, markers, before) + 1

    def init_state(self, batch: int = 1) -> BackboneState:
        plain = super().init_state(batch)
        if not self.config.language_tokens:
            return plain
        none = torch.zeros(batch, dtype=torch.int64, device=self.device)
        return LanguageState(**vars(plain), slot=none)

    def step_stream(self, tokens: Tensor, state: BackboneState) -> tuple[Tensor, BackboneState]:
        if self.quick_steps and decoding.fits(self, tokens, state):
            x = rms_norm(self.embedding(tokens, state.last))
            return decoding.step_hidden(self, tokens, state, x, self.slots(tokens, state))
        return super().step_stream(tokens, state)

    def advanced(
        self,
        state: BackboneState,
        tokens: Tensor,
        mixers: Sequence[Any],
        windows: Sequence[tuple[Tensor, ...]],
    ) -> BackboneState:
        after = super().advanced(state, tokens, mixers, windows)
        slots = self.slots(tokens, state)
        if slots is None:
            return after
        assert isinstance(after, LanguageState)
        return replace(after, slot=slots[:, -1])

    def state_bytes(self, length: int) -> int:
        return super().state_bytes(length) + (8 if self.config.language_tokens else 0)

    # -- selection --------------------------------------------------------------------------------

    def attentions(self) -> list[tuple[int, SelectiveAttention]]:
        """(layer, part), layers counted from 1, first to last."""
        return [
            (layer, part)
            for layer, block in enumerate(self.layers(), 1)
            for part in block.modules()
            if isinstance(part, SelectiveAttention)
        ]

    def calibrate(self, tokens: Tensor) -> None:
        """Set the thresholds of evaluation by held-out text, (B, T) int64."""
        parts = [part for _, part in self.attentions()]
        calibrate_shifts(parts, lambda: self.hidden(tokens), self.slots(tokens))

    @contextmanager
    def counting(self) -> Iterator[dict[str, float]]:
        """Of the forward passes within, the share of tokens that each attention selected, by layer
        (`selected_4`) and by layer and language (`selected_4/ko`)."""
        found: dict[str, float] = {}
        tallies = [(layer, Tally(part)) for layer, part in self.attentions()]
        with watching(tally for _, tally in tallies):
            yield found
        for layer, tally in tallies:
            found |= tally.shares(f"selected_{layer}", self.config.languages)

    # -- what it is -------------------------------------------------------------------------------

    def measures(self, tokens: Tensor) -> dict[str, float]:
        """Half-lives of states and memories in tokens (geometric means), the share of tokens each
        attention selects, and the steps that tokens ponder; attention and pondering by layer."""
        kinds = (StateSpace, EpisodicMemory, SelectiveAttention, Ponder)
        named = [
            (layer, part)
            for layer, block in enumerate(self.layers(), 1)
            for part in block.modules()
            if isinstance(part, kinds)
        ]
        with watched(part for _, part in named) as calls:
            self.hidden(tokens)
        # a hook fires as a part returns, in the order of `named`: ssm, memory, attention, MLP
        found: dict[str, float] = {}
        states, memories = [], []
        for (layer, part), (u, _) in zip(named, calls, strict=True):
            if isinstance(part, StateSpace):
                states.append(part.rates(u).clamp_min(1e-9).log().mean())
            elif isinstance(part, EpisodicMemory):
                memories.append((-part.gates(u)[0]).clamp_min(1e-9).log().mean())
            elif isinstance(part, SelectiveAttention):
                chosen = part.selected(u, self.slots(tokens))
                found[f"selected_{layer}"] = chosen.flat.numel() / tokens.numel()
            else:
                found[f"steps_{layer}"] = part.ponder(u.flatten(0, 1)).steps.float().mean().item()
        for name, rates in (("state_half_life", states), ("memory_half_life", memories)):
            if rates:
                found[name] = math.log(2) / torch.stack(rates).mean().exp().item()
        return found
