"""Decoding through torch.compile writes the same text, for any rows, window and seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from holo_cli.errors import UsageError
from holo_cli.inference.generation import compiled_step
from holo_cli.inference.generation.compiled_step import CompiledStep, room_for
from holo_cli.inference.generation.engine import Engine
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.models.base import LanguageModel
from tests.inference.generation.test_engine import END, tokens_of, vanilla
from tests.inference.inference_fakes import Attentive, Chain


@pytest.fixture(autouse=True)
def forget() -> None:
    torch._dynamo.reset()


def engines(model: LanguageModel, **options: Any) -> tuple[Engine, Engine]:
    """One as it is, and one that is compiled, without generating code."""
    return Engine(model, **options), Engine(model, compile_steps=True, backend="eager", **options)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 5, "num_samples": 3}], ids=len)
def test_the_text_is_the_same_beyond_the_context(options: dict[str, Any]) -> None:
    plain, compiled = engines(vanilla(), end=END)
    config = SamplingConfig(max_new_tokens=40, **options)
    for prompt in ([7], list(range(20))):
        assert tokens_of(compiled, prompt, config) == tokens_of(plain, prompt, config)
    assert len(compiled._steps) == 1
    assert compiled.compile_seconds > 0
    assert plain.compile_seconds == 0


def test_rows_that_end_leave_the_others_alone() -> None:
    model = vanilla()
    config = SamplingConfig(max_new_tokens=30, seed=2, num_samples=5, top_k=40)
    end = tokens_of(Engine(model), [9], config)[1][12]  # of which one row at least ends
    plain, compiled = engines(model, end=end)
    found = tokens_of(compiled, [9], config)
    assert found == tokens_of(plain, [9], config)
    assert len({len(row) for row in found}) > 1


def test_what_was_read_goes_on_as_a_prefix() -> None:
    plain, compiled = engines(vanilla())
    decoding = compiled.generate([1, 2], SamplingConfig(max_new_tokens=25, seed=1))
    for _ in decoding:
        pass
    longer = [*decoding.ids[0], 7, 8]
    torch.testing.assert_close(
        plain.prefill(longer, [decoding.prefix()]).logits, plain.prefill(longer).logits
    )


def test_two_decodings_in_turn_share_the_buffers() -> None:
    plain, compiled = engines(vanilla(32))
    configs = [SamplingConfig(max_new_tokens=20, seed=seed) for seed in (1, 2)]
    expected = [tokens_of(plain, [3, seed], config)[0] for seed, config in enumerate(configs)]
    both = [compiled.generate([3, seed], config) for seed, config in enumerate(configs)]
    for _ in range(20):
        for decoding in both:
            next(decoding)
    assert [decoding.new_tokens(0) for decoding in both] == expected
    assert len(compiled._steps) == 1


def test_another_engine_is_no_other_form_of_the_same_code() -> None:
    with torch._dynamo.config.patch(recompile_limit=1):
        for context in (16, 24, 32):
            plain, compiled = engines(vanilla(context))
            config = SamplingConfig(max_new_tokens=4, temperature=0)
            assert tokens_of(compiled, [1], config) == tokens_of(plain, [1], config)


def test_room_where_the_context_has_no_limit() -> None:
    assert [room_for(Chain(), n) for n in (3, 256, 257, 5000)] == [256, 256, 512, 8192]
    assert room_for(Attentive(limit=16), 5000) == 16


class Growing(Chain):
    """Says that it can, and keeps every token."""

    mixed_lengths = True

    def step_hidden(self, tokens: torch.Tensor, state: Any) -> Any:
        x, after = super().step_hidden(tokens, state)
        return x, type(after)(after.position, torch.cat([after.last, after.last]))


def test_what_cannot_be_compiled_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(model: LanguageModel, **options: Any) -> str:
        engine = engines(model)[1]
        with pytest.raises(UsageError) as caught:
            engine.generate([1, 2], SamplingConfig(**options))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "its steps differ from position to position" in said(Chain())
    assert "its decoding state grows from token to token" in said(Growing())
    assert "--draft-layers 1 cannot be combined with --compile" in said(vanilla(), draft_layers=1)

    def no_compiler(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler\nand more lines")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **_: real(f, backend=no_compiler))
    assert "cannot make a graph of this model's decoding here" in said(vanilla())


def test_where_there_is_no_backend_given_it_is_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def compile_(function: Any, **options: Any) -> Any:
        seen.update(options)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    model = vanilla()
    engine = Engine(model)
    state = engine.prefill([1]).state
    CompiledStep(model, state, 16, lambda: engine.mode(single=True))
    assert seen == {"backend": "inductor", "fullgraph": True, "dynamic": False}
    assert compiled_step.BACKEND == "inductor"
