"""Guessing ahead with the first layers changes nothing but the time: tokens, states and draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from holo_cli.errors import UsageError
from holo_cli.inference.generation.engine import Decoding, Engine
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.registry import build_model, config_class

VOCAB, LAYERS = 29, 4
FORMS: list[dict[str, Any]] = [
    {},
    {
        "dendrites": 2,
        "conv": 4,
        "value_residual": True,
        "value_embedding": True,
        "bigrams": 31,
        "suffix": True,
    },
    {"canon": "AB", "sparsity": "kwta"},
    {"adapters": 4, "language_tokens": (3, 7), "sparsity": "dense"},
]


def make_engine(name: str = "brain-v1", end: int | None = None, **given: Any) -> Engine:
    """In float64: there rounding does not decide between tokens."""
    shape = {"vocab_size": VOCAB, "layers": LAYERS, "heads": 2, "width": 16, "context": 24}
    torch.manual_seed(0)
    small = {"columns": 8, "mlp_ratio": 4.0, "activity": 0.25} if name == "brain-v1" else {}
    model = build_model(name, config_class(name)(**{**shape, **small, **given}))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
        for block in list(model.children())[1][2:]:  # small later layers: some guesses are right
            for p in block.parameters():
                p *= 0.5
    return Engine(model.double().eval(), end=end, banned=[5])


def texts(engine: Engine, config: SamplingConfig) -> tuple[list[int], Decoding]:
    decoding = engine.generate([1, 2, 3, 4], config)
    for _ in decoding:
        pass
    return decoding.new_tokens(0), decoding


@pytest.mark.parametrize("given", FORMS)
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_the_text_is_that_of_decoding_without_guesses(
    given: dict[str, Any], temperature: float
) -> None:
    """Past the context too, where the window moves; with rules that look at the text so far."""
    engine = make_engine(**given)
    accepted = 0
    for seed in range(2):
        plain = SamplingConfig(
            max_new_tokens=26, temperature=temperature, seed=seed, repetition_penalty=1.3, top_k=12
        )
        wanted, _ = texts(engine, plain)
        for layers, tokens in ((1, 1), (2, 5)):
            found, decoding = texts(
                engine, replace(plain, draft_layers=layers, draft_tokens=tokens)
            )
            assert found == wanted
            assert decoding.drafted is not None
            assert decoding.drafted.accepted <= decoding.drafted.guessed
            accepted += decoding.drafted.accepted
    assert accepted > 10, "no guess was ever right: nothing was tested"


@pytest.mark.parametrize("given", FORMS)
def test_the_state_is_that_of_the_tokens_read(given: dict[str, Any]) -> None:
    """At every token, in the middle of a round too; what goes on from it disturbs nobody."""
    engine = make_engine(**given)
    plain = SamplingConfig(max_new_tokens=9, temperature=0.7, seed=4)
    one = engine.generate([1, 2, 3, 4], plain)
    two = engine.generate([1, 2, 3, 4], replace(plain, draft_layers=2, draft_tokens=5))
    following = torch.tensor([[9, 8]])
    for a, b in zip(one, two, strict=True):
        assert a == b
        with torch.inference_mode():
            wanted, after = engine.model.step(following, one.prefix().state)
            found, state = engine.model.step(following, two.prefix().state)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
        assert state.position == after.position
        for x, y in zip(state.tensors(), after.tensors(), strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-9)


def test_the_end_is_found_and_not_read() -> None:
    for end in range(0, VOCAB, 4):
        engine = make_engine(end=end)
        plain = SamplingConfig(max_new_tokens=12, temperature=0.9, seed=1)
        wanted, decoding = texts(engine, plain)
        found, drafted = texts(engine, replace(plain, draft_layers=2))
        assert (found, drafted.finish) == (wanted, decoding.finish)


def test_what_cannot_draft_says_so() -> None:
    config = SamplingConfig(draft_layers=2)
    with pytest.raises(UsageError, match="cannot guess tokens"):
        make_engine("vanilla").generate([1], config)
    engine = make_engine()
    with pytest.raises(UsageError, match="less than the model's 4 layers"):
        engine.generate([1], replace(config, draft_layers=4))
    with pytest.raises(UsageError, match="one text at a time, not 3"):
        engine.generate([1], replace(config, num_samples=3))
    engine.model.exit_threshold = 0.5  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"the exit threshold 0\.5 skips some"):
        engine.generate([1], config)
    for wrong in ({"draft_layers": -1}, {"draft_tokens": 0}, {"draft_tokens": 65}):
        with pytest.raises(UsageError, match="must be a whole number"):
            SamplingConfig(**wrong)
