"""What is true of sliding-window attention only."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from holo_cli import registry
from holo_cli.models.base import LanguageModel
from holo_cli.models.sliding_window import blocks


def build(**overrides: Any) -> LanguageModel:
    torch.manual_seed(0)
    shape = {"vocab_size": 17, "layers": 1, "heads": 2, "width": 16, "context": 64}
    config = registry.config_class("sliding-window")(**(shape | overrides))
    model = registry.build_model("sliding-window", config).double().eval()
    for p in model.parameters():  # nothing stays at the zeros of initialisation
        torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.parametrize(
    ("length", "window", "sinks"),
    [(70, 1, 0), (70, 1, 3), (33, 12, 2), (64, 32, 4), (150, 33, 0), (90, 40, 50), (300, 257, 1)],
)
def test_blocks_equal_the_masked_form_in_values_and_gradients(
    length: int, window: int, sinks: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(2, 2, length, 6, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(3)
    ]
    weight = torch.randn(2, 2, length, 6, dtype=torch.float64, generator=generator)
    results = []
    for form in (blocks.window_attention, blocks.masked_attention):
        y = form(*inputs, window, sinks)
        results.append((y, *torch.autograd.grad((y * weight).sum(), inputs)))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-12)


def test_a_token_in_the_window_or_a_sink_is_seen_and_no_other() -> None:
    model = build(window=8, sinks=2)  # one layer: nothing is passed on
    tokens = torch.randint(0, 17, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        last = model(tokens)[0, -1]
        for at in range(39):
            changed = tokens.clone()
            changed[0, at] = (changed[0, at] + 1) % 17
            seen = bool((model(changed)[0, -1] - last).abs().max() > 1e-12)
            assert seen == (at < 2 or at > 39 - 8), at


def test_a_window_as_long_as_the_text_is_full_attention() -> None:
    tokens = torch.randint(0, 17, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        full = build(window=64, sinks=0)(tokens)
        torch.testing.assert_close(build(window=36, sinks=4)(tokens), full)
        assert (build(window=35, sinks=4)(tokens) - full).abs().max() > 1e-6


def test_work_and_memory_grow_with_the_length_and_not_with_its_square() -> None:
    sizes = []
    for length in (1024, 4096):
        q = torch.randn(1, 1, length, 4, requires_grad=True)
        kept: list[int] = []

        def save(t: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(save, lambda t: t):
            blocks.window_attention(q, q, q, 64, 4)
        sizes.append(sum(kept))
    assert sizes[1] <= 4.2 * sizes[0]
    assert sizes[0] < 1024 * 1024  # less than one full matrix of scores


def test_the_decoding_state_stops_growing() -> None:
    model = build(window=8, sinks=2)
    assert model.state_bytes(9) == model.state_bytes(60) > model.state_bytes(8)
    tokens = torch.randint(0, 17, (1, 60), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, state = model.step(tokens[:, :50], model.init_state(1))
        assert state.nbytes() == model.state_bytes(50)
        parts = []
        for t in range(50, 60):
            part, state = model.step(tokens[:, t : t + 1], state)
            parts.append(part)
        assert state.nbytes() == model.state_bytes(60)
        torch.testing.assert_close(torch.cat(parts, 1), model(tokens)[:, 50:])


def test_the_page_shows_the_weights_that_are_used() -> None:
    from holo_cli.models.sliding_window.views import attention

    model = build(window=8, sinks=2, layers=2)
    tokens = torch.randint(0, 17, (30,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        shown = attention(model, tokens)
    assert len(shown.layers) == len(shown.names) == 2
    for weights in shown.layers:
        assert weights.shape == (2, 30, 30)
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        assert (weights[:, 29, 2:22] == 0).all()
        assert (weights[:, 29, [0, 1, 22, 29]] > 0).all()


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="window"):
        build(window=0)
