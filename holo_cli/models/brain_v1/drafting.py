"""Drafting: the first layers read tokens alone, the others verify all of them in one pass.

Self-speculation (LayerSkip, Elhoushi et al. 2024, arXiv 2404.16710): the first layers and the
shared head guess the next tokens, one by one; the remaining layers then read all of these positions
at once, starting from what the first layers computed, and give the whole model's predictions. The
state after any of the tokens is available, so that wrong guesses are taken back.

Legend: B rows (one while drafting), S tokens of the draft, C width, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from holo_cli.layers.conv import ShortConv
from holo_cli.layers.interfaces import ConvWindows, Extras, ValueStream
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.suffix import SuffixState
from holo_cli.models.brain_v1.attention import AttentionState
from holo_cli.models.brain_v1.block import BrainBlock, Side
from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.state import BrainState

Seen = tuple[Tensor, ...]  # the windows of a block's convolutions


class RecordedWindows(ConvWindows):
    """Keeps the inputs of a whole step: the state after any of its tokens can be restored."""

    def __init__(self, before: Seen) -> None:
        super().__init__(before)
        self.inputs: list[Tensor] = []  # of each convolution, (B, K - 1 + S, C)

    def step(self, conv: ShortConv, x: Tensor) -> Tensor:
        window = next(self._before)
        self.inputs.append(torch.cat((window.to(x.dtype), x), dim=1))
        y, after = conv.step(x, window)
        self.after.append(after)
        return y


@dataclass(frozen=True)
class LayerPass:
    """What a layer read in one pass over the draft."""

    before: AttentionState
    after: AttentionState
    read: Tensor  # (B, S, C), the mixer's inputs
    inputs: list[Tensor]  # of each convolution, (B, K - 1 + S, C)

    def cut(self, count: int, *, reclaim: bool) -> tuple[AttentionState, Seen]:
        """The layer's state and windows after the first `count` of the tokens."""
        length = self.before.past.length + count
        total = self.before.total
        if total.shape[1]:
            total = total + self.read[:, :count].to(total.dtype).sum(1)
        steps = self.read.shape[1]
        windows = tuple(x[:, count : count + x.shape[1] - steps] for x in self.inputs)
        return AttentionState(self.after.past.cut(length, reclaim=reclaim), total), windows


class Drafts(Protocol):
    """What a draft needs of the model, of which it runs the blocks itself."""

    config: Config
    embedding: Any  # tokens (B, T) and the last token before them -> (B, T, C)

    def brain_blocks(self) -> list[BrainBlock]: ...

    def value_stream(self, tokens: Tensor, like: Tensor) -> ValueStream | None: ...

    def languages_at(self, tokens: Tensor, before: Tensor | None) -> Tensor | None: ...

    def remembered(
        self, x: Tensor, tokens: Tensor, before: SuffixState | None
    ) -> tuple[Tensor, SuffixState | None]: ...

    def advanced(
        self, state: Any, tokens: Tensor, mixers: Sequence[Any], windows: Sequence[Any]
    ) -> BrainState: ...


class LayerDraft:
    """Tokens read after a state by the first `layers` layers, and then by the others."""

    def __init__(self, model: Drafts, state: BrainState, layers: int) -> None:
        self._model, self._start, self._layers = model, state, layers
        self._tokens: list[Tensor] = []
        self._streams: list[Tensor] = []  # after the first layers
        self._firsts: list[Tensor] = []  # the first layer's values
        # after no token, one, two, ...: of each of the first layers
        self._below: list[tuple[list[AttentionState], list[Seen]]] = [
            (list(state.mixers[:layers]), list(state.windows[:layers]))
        ]
        self._above: list[LayerPass] = []
        self._language = state.language
        self._suffixes = [state.suffix]  # after no token, one, two, ...

    def read(self, token: Tensor) -> Tensor:
        """(B, 1) next token -> the hidden state (B, 1, C) of the first layers' own prediction."""
        model = self._model
        last = self._tokens[-1][:, -1] if self._tokens else self._start.last
        x = rms_norm(model.embedding(token, last))
        stream = model.value_stream(token, x)
        languages = model.languages_at(token, self._language)
        if languages is not None:
            self._language = languages[:, -1]
        mixers, windows = list(self._below[-1][0]), list(self._below[-1][1])
        for n, block in enumerate(model.brain_blocks()[: self._layers]):
            x, _, mixers[n], windows[n] = block.step(
                x, mixers[n], windows[n], stream, Side(languages)
            )
        self._below.append((mixers, windows))
        self._tokens.append(token)
        self._streams.append(x)
        if stream is not None and stream.first is not None:
            self._firsts.append(stream.first)
        x, suffix = model.remembered(rms_norm(x), token, self._suffixes[-1])
        self._suffixes.append(suffix)
        return x

    def verify(self) -> Tensor:
        """The whole model's hidden states at the tokens read, (B, S, C); once, after the last."""
        model, tokens = self._model, torch.cat(self._tokens, dim=1)
        x = torch.cat(self._streams, dim=1)
        stream = model.value_stream(tokens, x)
        if stream is not None and self._firsts:
            stream.first = torch.cat(self._firsts, dim=1)
        side = Side(model.languages_at(tokens, self._start.language))
        self._above = []
        for n in range(self._layers, model.config.layers):
            mixer, windows = self._start.mixers[n], self._start.windows[n]
            x, passed = _through(model.brain_blocks()[n], x, mixer, windows, stream, side)
            self._above.append(passed)
        return model.remembered(rms_norm(x), tokens, self._start.suffix)[0]

    def state_after(self, count: int, *, reclaim: bool) -> BrainState:
        """The model's state after the first `count` >= 1 of the tokens, all layers passed.

        `reclaim`: what is read after it writes over the tokens after it without a copy; the draft
        and the states after more of its tokens are not to be used again.
        """
        mixers, windows = list(self._below[count][0]), list(self._below[count][1])
        longest = self._below[-1][0]
        for n, mixer in enumerate(mixers):
            past = longest[n].past.cut(mixer.past.length, reclaim=reclaim)
            mixers[n] = replace(mixer, past=past)
        for passed in self._above:
            mixer, seen = passed.cut(count, reclaim=reclaim)
            mixers.append(mixer)
            windows.append(seen)
        tokens = torch.cat(self._tokens[:count], dim=1)
        after = self._model.advanced(self._start, tokens, mixers, windows)
        passed_layers = self._start.passed + self._model.config.layers * count
        return replace(after, passed=passed_layers, suffix=self._suffixes[count])


def _through(
    block: BrainBlock,
    x: Tensor,
    state: AttentionState,
    windows: Seen,
    stream: ValueStream | None,
    side: Side,
) -> tuple[Tensor, LayerPass]:
    """A block's step over x (B, S, C), with what is needed to take back its last tokens."""
    seen = RecordedWindows(windows)
    extras = Extras(seen, stream, block.residual_gain, block.embedding_gain, side)
    u = block.read(x, seen)
    y, after = block.mixer.step(u, state, extras)
    x, _ = block.feed(x + y, seen)
    return block.adapt(x, side), LayerPass(state, after, u, seen.inputs)
