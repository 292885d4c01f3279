"""What is true of Mamba-2 and Mamba-3 only."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli import registry
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.layers.norm import rms_norm
from holo_cli.models import oracle
from holo_cli.models.base import LanguageModel
from holo_cli.models.mamba import reference
from holo_cli.models.mamba.mixer import StateSpaceMixer
from holo_cli.training.loss import cross_entropy
from holo_cli.training.optim import Optimizer


def build(awake: bool = True, **overrides: Any) -> LanguageModel:
    torch.manual_seed(0)
    shape = {"vocab_size": 29, "layers": 1, "heads": 2, "width": 16, "context": 64}
    config = registry.config_class("mamba")(**(shape | {"state_size": 8} | overrides))
    model = registry.build_model("mamba", config)
    if awake:  # nothing stays at the zeros of initialisation
        with torch.no_grad():
            for p in model.parameters():
                p += 0.2 * torch.randn_like(p)
    return model


def random_tokens(rows: int, length: int) -> Tensor:
    return torch.randint(0, 29, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("inner_conv", [0, 3])
def test_several_chunks_equal_the_recurrence(version: int, inner_conv: int) -> None:
    model = build(version=version, inner_conv=inner_conv).double()
    tokens = random_tokens(1, 70)  # more than one chunk of the scan
    with torch.no_grad():
        expected = oracle.logits(reference, model, tokens)
        torch.testing.assert_close(model(tokens), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("version", [2, 3])
def test_long_pieces_continue_a_state(version: int) -> None:
    model = build(version=version, layers=2).double().eval()
    tokens = random_tokens(2, 200)
    with torch.no_grad():
        state, parts = model.init_state(2), []
        for piece in tokens.split([70, 1, 64, 1, 64], dim=1):
            part, state = model.step(piece, state)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, 1), model(tokens), rtol=1e-9, atol=1e-9)
    one = state.select(torch.tensor([0])).nbytes()
    assert one == model.state_bytes(200) == model.state_bytes(1)


def test_the_trapezoid_with_all_weight_on_the_present_is_eulers_rule() -> None:
    """share = 1: h_t = alpha_t h_{t-1} + dt_t B_t x_t, as Mamba-2 but for A, norm and bias."""
    mixer: Any = build(version=3, rope_fraction=0.0).layers()[0].mixer.double()
    config = mixer.config
    heads, size = config.heads, config.state_size
    make = torch.Generator().manual_seed(2)
    x = torch.randn(1, 90, heads, config.head_width, generator=make, dtype=torch.float64)
    bc = torch.randn(1, 90, 2 * size, generator=make, dtype=torch.float64)
    controls = torch.randn(1, 90, 3 * heads, generator=make, dtype=torch.float64)
    controls[..., 2 * heads :] = 40.0  # sigmoid of it is 1
    with torch.no_grad():
        y, _ = mixer.mix(x, bc, controls, None)
        dt = mixer.step_sizes(controls[..., :heads])
        alpha = (-dt * torch.nn.functional.softplus(controls[..., heads : 2 * heads])).exp()
        code = rms_norm(bc.view(1, 90, 2, 1, size)) * mixer.bc_gain.view(2, 1, size)
        b, c = (code + mixer.bc_bias.view(2, heads, size)).unbind(2)
        state = torch.zeros(1, heads, size, config.head_width, dtype=torch.float64)
        for t in range(90):
            new = b[:, t, :, :, None] * x[:, t, :, None] * dt[:, t, :, None, None]
            state = alpha[:, t, :, None, None] * state + new
            expected = (c[:, t, :, :, None] * state).sum(2) + mixer.skip[:, None] * x[:, t]
            torch.testing.assert_close(y[:, t], expected, rtol=1e-9, atol=1e-9)


def test_a_turning_state_counts_parity_for_any_length() -> None:
    """A pair that turns by pi at each 1 and never decays holds the parity of the ones, which no
    state with decays in [0, 1] can; everything is set by hand."""
    config = {"heads": 1, "width": 4, "expand": 1, "state_size": 2}
    mixer: Any = build(version=3, **config).layers()[0].mixer.double()
    bits = torch.randint(0, 2, (1, 150), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        mixer.bc_gain.zero_()
        mixer.bc_bias.copy_(torch.tensor([1.0, 0.0, 1.0, 0.0]))  # B and C point along one axis
        mixer.skip.zero_()
        mixer.dt_bias.fill_(math.log(math.e - 1))  # dt = 1
        controls = torch.zeros(1, 150, 4, dtype=torch.float64)
        controls[..., 1] = -40.0  # the smallest decay
        controls[..., 2] = 40.0  # all weight on the present
        controls[..., 3] = 40.0 * bits
        x = torch.zeros(1, 150, 1, 4, dtype=torch.float64)
        x[:, 0] = 1.0  # one write, at the start
        y, _ = mixer.mix(x, torch.zeros(1, 150, 4, dtype=torch.float64), controls, None)
    odd = (bits.cumsum(1) - bits[:, :1]) % 2  # ones after the write
    sign = torch.where(odd == 1, -1.0, 1.0).double()
    torch.testing.assert_close(y[..., 0, 0].sign(), sign)
    assert y[..., 0, 0].abs().min() > 0.9  # FLOOR times 150 steps is all that fades


@pytest.mark.parametrize("version", [2, 3])
def test_it_recalls_a_marked_token_beyond_its_convolution(version: int) -> None:
    """One token of a class of nine among two others is to be named 9 to 23 positions later: not by
    its place but by what it is, and out of reach of two convolutions of 4. The tokens there say
    nothing of it, so a model that does not look back stays at log 9."""
    model = build(awake=False, version=version, layers=2, state_size=16).train()
    optimizer = Optimizer(model, TrainingConfig(lr=0.02, adam_lr=0.01), fast_bf16=False)
    loss = torch.tensor(float("inf"))
    for step in range(300):  # some 30 to 90 are enough; how many depends on rounding
        optimizer.set_lr(min(1.0, (300 - step) / 100))
        make = torch.Generator().manual_seed(step)
        tokens = torch.randint(0, 2, (16, 24), generator=make)
        marked = torch.randint(20, 29, (16,), generator=make)
        tokens[torch.arange(16), torch.randint(0, 4, (16,), generator=make)] = marked
        target = marked[:, None].expand(-1, 24).clone()
        target[:, :12] = -100
        hidden, _ = model.hidden(tokens)
        loss = cross_entropy(hidden, model.head, target)
        loss.backward()
        optimizer.step()
        model.zero_grad()
        if loss < 0.6 * math.log(9):
            break
    assert loss < 0.6 * math.log(9)


@pytest.mark.parametrize("version", [2, 3])
def test_states_are_float32_under_autocast(version: int) -> None:
    mixer: Any = build(version=version, inner_conv=0).layers()[0].mixer
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        for length in (1, 5):
            u = torch.randn(2, length, 16, dtype=torch.bfloat16)
            y, state = mixer.step(u, mixer.init_state(2))
            assert y.dtype == torch.bfloat16
            assert {t.dtype for t in state.tensors()} == {torch.float32}


@pytest.mark.parametrize("version", [2, 3])
def test_extreme_steps_give_neither_nan_nor_infinity(version: int) -> None:
    mixer: Any = build(version=version).layers()[0].mixer
    assert isinstance(mixer, StateSpaceMixer)
    for scale in (-300.0, 300.0):
        with torch.no_grad():
            mixer.dt_bias.fill_(scale)
        y, _ = mixer(torch.randn(2, 150, 16))
        y.square().sum().backward()
        for name, p in mixer.named_parameters():
            assert p.grad is not None
            assert p.grad.isfinite().all(), name


def test_wrong_sizes_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"dt_min .* must be at most"):
        build(dt_min=0.2)
    with pytest.raises(ValueError, match="must be even"):
        build(state_size=7)
    with pytest.raises(ValueError, match="version"):
        build(version=1)
