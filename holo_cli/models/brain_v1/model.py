"""brain-v1: attention whose heads have dendrites, and an MLP of which 5 % fires at once.

The modern backbone with a sparse feed-forward half (`columns.py`, `kwta.py`) and three options:
early exit of easy tokens (`exits.py`), an adapter per language (`adapters.py`), and growth in depth
during training (`growth.py`).

Legend: B rows, T positions, S positions of a step, C width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from holo_cli.layers.interfaces import Aux, FeedForward
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.precision import wide
from holo_cli.models.backbone import Backbone, BackboneState
from holo_cli.models.base import Description, Hidden, State
from holo_cli.models.brain_v1.adapters import token_languages
from holo_cli.models.brain_v1.attention import BrainAttention
from holo_cli.models.brain_v1.block import BrainBlock, Side, brain_blocks
from holo_cli.models.brain_v1.columns import Columns
from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.diagnostics import feeding, kept_weight
from holo_cli.models.brain_v1.drafting import LayerDraft
from holo_cli.models.brain_v1.exit_gates import ExitGates
from holo_cli.models.brain_v1.exits import (
    confidence,
    exit_layers,
    exit_loss,
    exit_weight,
    keep_probability,
    may_exit_after,
)
from holo_cli.models.brain_v1.growth import deeper_model
from holo_cli.models.brain_v1.kwta import KWTA
from holo_cli.models.brain_v1.state import BrainState


class Model(Backbone):
    """The modern backbone with sparse columns.

    `exit_threshold` is initially the config's and may be set at any time: evaluation and decoding
    use early exit where it is at most 1, training never does.
    """

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.exit_threshold = config.exit_threshold
        self.exit_gates: ExitGates | None = None
        if config.exit_confidence == "learned":
            self.exit_gates = ExitGates(len(exit_layers(config)), config.width)

    def make_mixer(self, layer: int) -> BrainAttention:
        return BrainAttention(self.config)

    def make_mlp(self, layer: int) -> FeedForward:
        form = KWTA if self.config.sparsity in ("kwta", "dense") else Columns
        return form(self.config, layer)

    def make_block(self, layer: int) -> BrainBlock:
        keep = keep_probability(self.config, layer)
        return BrainBlock(self.config, self.make_mixer(layer), self.make_mlp(layer), keep)

    def brain_blocks(self) -> list[BrainBlock]:
        return brain_blocks(self)

    # -- growth -----------------------------------------------------------------------------------

    def grown(self, layers: int) -> tuple[Model, dict[str, str | None]]:
        return deeper_model(self, layers, self.config.growth_how)

    # -- training ---------------------------------------------------------------------------------

    def side_stream(self, tokens: Tensor, x: Tensor, state: BackboneState | None) -> Side:
        before = state.language if isinstance(state, BrainState) else None
        languages, exits = self.languages_at(tokens, before), exit_layers(self.config)
        if state is not None or not (self.training and self.config.exit_loss and exits):
            return Side(languages)
        drawn = torch.randint(len(exits), (1,))
        if torch.compiler.is_compiling():
            return Side(languages, -1, drawn.to(x.device), [])
        return Side(languages, exits[int(drawn)], None, [])

    def layer_losses(self, layer: int, x: Tensor, tokens: Tensor, side: Side) -> Aux:
        """The loss of an earlier layer's own prediction, where this is the layer drawn; after the
        last layer that of the drawn layer's gate."""
        exits, config = exit_layers(self.config), self.config
        if side.drawn is not None:
            return self._losses_of_drawn(side.drawn, layer, x, tokens, side.kept)
        if layer == side.exit_layer:
            if self.exit_gates is not None:
                side.kept.append(x)
            weight = config.exit_loss * exit_weight(exits, layer, config.exit_weights)
            return {"exit": weight * exit_loss(x, tokens, self.head)}
        if self.exit_gates is None or layer + 1 < config.layers or side.exit_layer < 0:
            return {}
        number = exits.index(side.exit_layer)
        return {"exit_gate": self.exit_gates.loss(number, side.kept[0], x, self.head)}

    def _losses_of_drawn(
        self, number: Tensor, layer: int, x: Tensor, tokens: Tensor, kept: list[Tensor]
    ) -> Aux:
        """The same after the last layer, for the exit `number` (1,) of those `kept`."""
        exits, config = exit_layers(self.config), self.config
        if layer in exits:
            kept.append(x)
        if layer + 1 < config.layers:
            return {}
        drawn = torch.stack(kept).index_select(0, number)[0]
        each = [config.exit_loss * exit_weight(exits, e, config.exit_weights) for e in exits]
        weight = torch.tensor(each, dtype=wide(x.dtype), device=x.device).index_select(0, number)[0]
        losses = {"exit": weight * exit_loss(drawn, tokens, self.head)}
        if self.exit_gates is not None:
            losses["exit_gate"] = self.exit_gates.loss(number, drawn, x, self.head)
        return losses

    def stream(self, tokens: Tensor) -> Hidden:
        if self._exits_enabled():
            return Hidden(rms_norm(self.with_exits(tokens)[0]), {})
        return super().stream(tokens)

    # -- early exit -------------------------------------------------------------------------------

    def _exits_enabled(self) -> bool:
        return not self.training and self.exit_threshold <= 1

    def _until_confident(
        self, x: Tensor, through: Callable[[int, Tensor, bool], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """x (B, S, C) through the layers until each token is sure -> x, layers passed (B, S).

        `through(layer, x, left)` gives the stream after a layer; `left` says that all tokens have
        left, and what it gives then is not looked at.
        """
        left = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        passed = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device)
        everyone = False
        for layer in range(self.config.layers):
            y = through(layer, x, everyone)
            if everyone:
                continue
            x = torch.where(left[..., None], x, y)
            passed = passed + ~left
            if may_exit_after(self.config, layer):
                left = left | self._is_sure(layer, x, ~left)
                everyone = bool(left.all())
        return x, passed

    @torch.no_grad()
    def _is_sure(self, layer: int, x: Tensor, asked: Tensor) -> Tensor:
        """Which of the tokens asked, (B, S) bool, are confident enough after a layer with the
        stream x (B, S, C)."""
        sure = torch.zeros_like(asked)
        sure[asked] = self.confidence_after(layer, x[asked]) >= self.exit_threshold
        return sure

    def confidence_after(self, layer: int, x: Tensor) -> Tensor:
        """How confident the stream x (..., C) is after a layer with an exit, (...) in [0, 1]."""
        if self.exit_gates is not None:
            return self.exit_gates.confidence(exit_layers(self.config).index(layer), x)
        return confidence(self.head(rms_norm(x)), self.config.exit_confidence)

    @torch.no_grad()
    def depths(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 -> the layers that each token passes at the present threshold, (B, T)."""
        return self.with_exits(tokens)[1]

    def with_exits(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The layers over whole sequences, as `_until_confident`."""
        x = self.embed(tokens)
        stream, side = self.value_stream(tokens, x), self.side_stream(tokens, x, None)
        blocks = self.brain_blocks()

        def through(layer: int, x: Tensor, everyone: bool) -> Tensor:
            y: Tensor = x if everyone else blocks[layer](x, stream, side)[0]
            return y

        return self._until_confident(x, through)

    # -- languages --------------------------------------------------------------------------------

    def languages_at(self, tokens: Tensor, before: Tensor | None) -> Tensor | None:
        """The language of each token, (B, T); `before`: (B,) of the row so far, None at a start."""
        if not self.config.adapters:
            return None
        if before is None:
            before = self._first_language(tokens.shape[0])
        markers = torch.tensor(self.config.language_tokens, dtype=torch.int64, device=tokens.device)
        if not len(markers):
            return before[:, None].expand(tokens.shape)
        return token_languages(tokens, markers, before)

    def _first_language(self, batch: int) -> Tensor:
        config = self.config
        number = config.languages.index(config.language) if config.adapters else 0
        return torch.full((batch,), number, dtype=torch.int64, device=self.device)

    # -- decoding ---------------------------------------------------------------------------------

    def step_obstacle(self) -> str | None:
        if self._exits_enabled():
            return (
                f"with an exit threshold of {self.exit_threshold:g} tokens differ in their layers"
            )
        return super().step_obstacle()

    def init_state(self, batch: int = 1) -> BrainState:
        plain = super().init_state(batch)
        nothing = torch.zeros(batch, dtype=torch.int64, device=self.device)
        return BrainState(**vars(plain), language=self._first_language(batch), passed=nothing)

    def step_stream(self, tokens: Tensor, state: BackboneState) -> tuple[Tensor, BrainState]:
        assert isinstance(state, BrainState)
        if not self._exits_enabled():
            x, after = super().step_stream(tokens, state)
            assert isinstance(after, BrainState)
            return x, replace(after, passed=state.passed + self.config.layers * tokens.shape[1])
        x = rms_norm(self.embedding(tokens, state.last))
        stream, side = self.value_stream(tokens, x), self.side_stream(tokens, x, state)
        blocks = self.brain_blocks()
        mixers, windows = list(state.mixers), list(state.windows)

        def through(layer: int, x: Tensor, left: bool) -> Tensor:
            block, mixer, seen = blocks[layer], mixers[layer], windows[layer]
            if left:
                mixers[layer], windows[layer] = block.append_to_cache(x, mixer, seen, stream)
            else:
                x, _, mixers[layer], windows[layer] = block.step(x, mixer, seen, stream, side)
            return x

        x, passed = self._until_confident(x, through)
        after = self.advanced(state, tokens, mixers, windows)
        return rms_norm(x), replace(after, passed=state.passed + passed.sum(1))

    def draft(self, state: State, layers: int) -> LayerDraft:
        """Reads ahead of `state` with the first `layers` layers, 1 .. L - 1; all others verify."""
        assert isinstance(state, BrainState)
        return LayerDraft(self, state, layers)

    def advanced(
        self,
        state: BackboneState,
        tokens: Tensor,
        mixers: Sequence[Any],
        windows: Sequence[tuple[Tensor, ...]],
    ) -> BrainState:
        after = super().advanced(state, tokens, mixers, windows)
        assert isinstance(after, BrainState)
        assert isinstance(state, BrainState)
        languages = self.languages_at(tokens, state.language)
        return after if languages is None else replace(after, language=languages[:, -1])

    def state_bytes(self, length: int) -> int:
        return super().state_bytes(length) + 16

    # -- what it is -------------------------------------------------------------------------------

    def describe(self) -> Description:
        config, described = self.config, super().describe()
        notes = {
            "activity": [
                round(config.active_units(n) / config.hidden, 4) for n in range(config.layers)
            ],
            "exit_threshold": self.exit_threshold,
        }
        return replace(described, notes=described.notes | notes)

    def measures(self, tokens: Tensor) -> dict[str, float]:
        """`fires`, the share of all hidden units that are not zero for a token. Of every layer:
        `sparsity_base`, the share of units that may not fire for a token, and
        `silent`, the share that does not; with a choice to balance, `largest_share`, how many times
        its even part the busiest column or unit gets. `mean_depth`: layers a token passes at the
        present threshold. `attention_kept`: what the weights that `attention_top` keeps add up to.
        """
        found: dict[str, float] = {}
        firing = []
        for layer, (part, x) in enumerate(feeding(self, tokens), start=1):
            sent, could = part.unit_outputs(x)
            firing.append((sent != 0).float().mean().item())
            found[f"layer{layer}/sparsity_base"] = 1 - could.float().mean().item()
            found[f"layer{layer}/silent"] = (sent == 0).float().mean().item()
            if not could.all():
                groups = could.unflatten(1, (part.columns, -1)).any(2).float().mean(0)
                found[f"layer{layer}/largest_share"] = (groups.max() / groups.mean()).item()
        if firing:
            found["fires"] = sum(firing) / len(firing)
        if self.config.attention_top < 1:
            found["attention_kept"] = kept_weight(self, tokens)
        found["mean_depth"] = self.depths(tokens).double().mean().item()
        return found
