"""A suffix memory proposes from what has left the context and from other texts, on every path."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from holo_cli.inference.generation.engine import NOTHING_RECALLED, Engine, Recalled
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.layers import suffix
from holo_cli.models.vanilla.config import Config
from holo_cli.models.vanilla.model import Modern
from tests.inference.generation.test_engine import tokens_of

VOCAB, END = 64, 63
OPEN = 50.0  # of the gate: what is proposed is written
GREEDY = SamplingConfig(max_new_tokens=6, temperature=0)
LONG = SamplingConfig(max_new_tokens=60, temperature=0)
TEXT = (20, 21, 22, 23, 24, 25, 26, 27, 28, 29)


def model(**given: object) -> Modern:
    torch.manual_seed(0)
    keys = {"vocab_size": VOCAB, "layers": 1, "heads": 2, "width": 32, "context": 16}
    made = Modern(
        Config.model_validate({**keys, "suffix": True, "soft_cap": 0, "end_token": END, **given})
    )
    for p in made.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    if made.suffix is not None:
        made.suffix.initialise()
        made.suffix.bias.data.fill_(OPEN)
    return made.eval()


def text_of(engine: Engine, prompt: Sequence[int], *texts: tuple[int, ...]) -> list[int]:
    decoding = engine.generate(list(prompt), GREEDY, texts=texts)
    for _ in decoding:
        pass
    return decoding.new_tokens(0)


def test_other_texts_are_proposed_from() -> None:
    engine = Engine(model(), end=END)
    assert text_of(engine, [1, 22, 23], TEXT) == [24, 25, 26, 27, 28, 29]
    assert text_of(engine, [END, 1, 22, 23], TEXT) == [24, 25, 26, 27, 28, 29]
    assert text_of(engine, [1, 22, 23])[0] != 24
    # the longer match decides between two
    other = (40, 23, 41)
    assert text_of(engine, [22, 23], TEXT, other)[0] == 24
    assert text_of(engine, [40, 23], TEXT, other)[0] == 41
    without = Engine(model(suffix=False), end=END)
    assert text_of(without, [1, 22, 23], TEXT) == text_of(without, [1, 22, 23])


def test_what_left_the_context_is_proposed_from() -> None:
    engine = Engine(model(), end=END)
    filler = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    prompt = [20, 21, 22, *filler, 20, 21]
    assert len(prompt) > 16
    assert text_of(engine, prompt)[0] == 22
    # nothing is matched across the end of a document
    assert text_of(engine, [20, 21, 22, *filler[:5], END, *filler[5:], 20, 21])[0] != 22


def gate(made: Modern) -> Modern:
    """With a gate that only leans towards what is proposed, so that all else counts as well."""
    assert made.suffix is not None
    made.suffix.bias.data.fill_(0.3)
    return made


@pytest.mark.parametrize("rows", [1, 3])
def test_decoding_equals_reading_everything_again(rows: int) -> None:
    made = gate(model())
    engine = Engine(made, end=END)
    config = SamplingConfig(max_new_tokens=40, seed=3, num_samples=rows)
    decoding = engine.generate([1, 22, 23], config, texts=[TEXT])
    for _ in decoding:
        for row, ids in enumerate(decoding.ids):
            if not decoding.finish[row] and len(ids) > decoding._position:
                again = engine.prefill(ids[: decoding._position], texts=[TEXT])
                place = decoding._batch.index(row)
                torch.testing.assert_close(decoding._logits[place], again.logits[0])


def test_compiled_steps_write_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(suffix, "LEAST_ROOM", 16)  # so that another graph is needed on the way
    made = gate(model())
    plain = Engine(made, end=END)
    compiled = Engine(made, end=END, compile_steps=True, backend="eager")
    for texts in ([], [TEXT]):
        for prompt in ([1, 22, 23], list(range(20))):
            wanted = plain.generate(prompt, LONG, texts=texts)
            found = compiled.generate(prompt, LONG, texts=texts)
            for _ in zip(wanted, found, strict=True):
                torch.testing.assert_close(found._logits, wanted._logits)
            assert found.ids == wanted.ids
    rooms = {recalled for _, _, recalled in compiled._steps}
    assert rooms >= {0, 16, 32}


def test_a_prefix_is_continued_only_where_the_same_is_recalled() -> None:
    engine = Engine(model(), end=END)
    cache = engine.prefill([1, 22, 23], texts=[TEXT])
    assert cache.recalled == Recalled((TEXT,))
    longer = [1, 22, 23, 5]

    def read(texts: Sequence[tuple[int, ...]]) -> Tensor:
        return engine.prefill(longer, [cache], texts).logits

    torch.testing.assert_close(read([TEXT]), engine.prefill(longer, texts=[TEXT]).logits)
    assert torch.equal(read([]), engine.prefill(longer).logits)
    assert not torch.equal(read([]), read([TEXT]))
    assert engine.prefill([1]).recalled == NOTHING_RECALLED
    decoding = engine.generate(list(range(10)), LONG)
    for _ in decoding:
        pass
    left = decoding.prefix()
    # what left the context is part of the state
    assert left.recalled.past == tuple(decoding.ids[0][: decoding._position - len(left.ids)])
    assert tokens_of(engine, decoding.ids[0], GREEDY)
    again = engine.prefill(decoding.ids[0][: decoding._position])
    torch.testing.assert_close(left.logits, again.logits)
