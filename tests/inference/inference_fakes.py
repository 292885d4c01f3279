"""Small models that keep the contract, and a tokenizer of bytes: what decoding is tested with.

`Chain` (next token from the last two) has no context limit; `Attentive` (one attention layer with
learned positions and a key-value state, float64) has one, and depends on every token in it;
`Scripted` says a given text whatever it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.config.model_schema import ModelConfig
from holo_cli.data.tokenizers.base import Tokenizer, append_specials
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.layers.head import Head
from holo_cli.models.base import Description, Hidden, LanguageModel, State


class ByteTokenizer(Tokenizer):
    """Id i is byte i: every Hangul syllable is three tokens. Specials follow."""

    kind = "bytes"
    ordinary = 256

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.specials = append_specials(256, names)

    def with_specials(self, names: Iterable[str]) -> ByteTokenizer:
        return ByteTokenizer([*self.specials, *names])

    def _encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def _bytes(self, token: int) -> bytes:
        return bytes([token])

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "specials": self.specials}


class Fake(LanguageModel):
    """What the fakes share: no costs to describe, and counters of what was computed."""

    limit: int | None = None
    tokens_read = 0

    @property
    def context_limit(self) -> int | None:
        return self.limit

    def hidden(self, tokens: Tensor) -> Hidden:
        return Hidden(self.step_hidden(tokens, self.init_state(tokens.shape[0]))[0], {})

    def state_bytes(self, length: int) -> int:
        raise NotImplementedError

    def describe(self) -> Description:
        raise NotImplementedError


@dataclass(frozen=True)
class LastTokens(State):
    position: int
    last: Tensor  # (B,)

    def select(self, rows: Tensor) -> State:
        return LastTokens(self.position, self.last[rows])

    def tensors(self) -> Iterator[Tensor]:
        yield self.last


class Chain(Fake):
    """x_t is a row of a random table chosen by tokens t-1 and t."""

    def __init__(self, vocab: int = 259, seed: int = 0, sharpness: float = 3.0) -> None:
        super().__init__(ModelConfig(vocab_size=vocab, width=8, heads=1))
        make = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(1009, 8, generator=make))
        weight = nn.Parameter(torch.randn(vocab, 8, generator=make) * sharpness)
        self.head = Head(weight, 0.0)

    def init_state(self, batch: int = 1) -> State:
        return LastTokens(0, torch.zeros(batch, dtype=torch.long))

    def step_hidden(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        assert isinstance(state, LastTokens)
        self.tokens_read += tokens.shape[1]
        before = torch.cat([state.last[:, None], tokens[:, :-1]], dim=1)
        x = self.table[(before * 31 + tokens * 7) % 1009]
        return x, LastTokens(state.position + tokens.shape[1], tokens[:, -1])


@dataclass(frozen=True)
class KeysValues(State):
    position: int
    keys: Tensor  # (B, L, C)
    values: Tensor

    def select(self, rows: Tensor) -> State:
        return KeysValues(self.position, self.keys[rows], self.values[rows])

    def tensors(self) -> Iterator[Tensor]:
        yield from (self.keys, self.values)


class Attentive(Fake):
    """Embedding plus position, one causal attention, in float64; nothing works beyond `limit`."""

    def __init__(self, vocab: int = 259, limit: int = 16, seed: int = 0) -> None:
        super().__init__(ModelConfig(vocab_size=vocab, width=12, heads=1, context=limit))
        make = torch.Generator().manual_seed(seed)

        def matrix(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=make, dtype=torch.float64))

        self.limit = limit
        self.embed, self.place = matrix(vocab, 12), matrix(limit, 12)
        self.query, self.key, self.value = matrix(12, 12), matrix(12, 12), matrix(12, 12)
        self.head = Head(matrix(vocab, 12), 0.0)

    def init_state(self, batch: int = 1) -> State:
        empty = torch.zeros(batch, 0, 12, dtype=torch.float64)
        return KeysValues(0, empty, empty)

    def step_hidden(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        assert isinstance(state, KeysValues)
        start, length = state.position, tokens.shape[1]
        self.tokens_read += length
        x = self.embed[tokens] + self.place[torch.arange(start, start + length)]
        keys = torch.cat([state.keys, x @ self.key], dim=1)
        values = torch.cat([state.values, x @ self.value], dim=1)
        scores = (x @ self.query) @ keys.transpose(1, 2) / 12
        seen = torch.ones(length, start + length, dtype=torch.bool).tril(start)
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        return x + weights @ values, KeysValues(start + length, keys, values)


class Scripted(Fake):
    """After `prompt` tokens it says the script, token by token, then `after` for ever."""

    def __init__(self, script: Sequence[int], prompt: int, vocab: int = 259, after: int = 46):
        super().__init__(ModelConfig(vocab_size=vocab, width=vocab, heads=1))
        self.script, self.prompt, self.after = list(script), prompt, after
        self.head = Head(nn.Parameter(torch.eye(vocab)), 0.0)

    def init_state(self, batch: int = 1) -> State:
        return LastTokens(0, torch.zeros(batch, dtype=torch.long))

    def step_hidden(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        length = tokens.shape[1]
        said = [self._say(state.position + i + 1 - self.prompt) for i in range(length)]
        x = nn.functional.one_hot(torch.tensor(said), self.config.vocab_size).float() * 50
        x = x.expand(tokens.shape[0], -1, -1)
        return x, LastTokens(state.position + length, tokens[:, -1])

    def _say(self, place: int) -> int:
        return self.script[place] if 0 <= place < len(self.script) else self.after


def make_loaded(
    model: LanguageModel, tokenizer: Tokenizer | None = None, **data: Any
) -> LoadedModel:
    """A `LoadedModel` around a fake, with a header that has only what inference reads."""
    facts = {"documents": 0, "languages": {}, "markers": False, "chat": None} | data
    header = SimpleNamespace(
        model="fake", run="run", step=7, data=SimpleNamespace(**facts), config={}
    )
    return LoadedModel(model, tokenizer or ByteTokenizer(), header)  # type: ignore[arg-type]
