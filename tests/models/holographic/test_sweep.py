"""The hand-written passes over the plates: values and gradients of the plain form, at any shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli.models.holographic import sweep as sweep_module
from holo_cli.models.holographic.block import CHUNK
from holo_cli.models.holographic.config import Config
from holo_cli.models.holographic.memory import Memory
from holo_cli.models.holographic.phasors import Pair, phasor
from holo_cli.models.holographic.spectra import spectrum, unit
from holo_cli.models.holographic.sweep import parts, sweep
from holo_cli.models.holographic.waves import Spectra, Waves

SMALL: dict[str, Any] = {"vocab_size": 29, "layers": 1, "heads": 2, "width": 16, "plates": 2}
BINDINGS: list[dict[str, Any]] = [
    {},
    {"plates": 1},
    {"plates": 3, "rope_fraction": 0.5},
    {"binding": "hrr"},
    {"binding": "hrr", "binding_shape": "2d", "width": 24},
]


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def make(**overrides: Any) -> Memory:
    memory = Memory(Config(**{**SMALL, **overrides})).double()
    memory.finish_initialisation()
    for seed, p in enumerate(memory.parameters()):
        p.data += 0.4 * randn(*p.shape, seed=seed)
    return memory


def inputs(memory: Memory, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    config = memory.config
    x, v = randn(rows, length, config.width), randn(rows, length, config.heads, config.head_width)
    state = randn(*memory.init_state(rows).shape, seed=2)
    if config.binding == "hrr":  # only spectra of real heads are ever there
        _, k = memory.binding.keys(randn(rows, 1, config.width, seed=3))
        state = torch.stack((k.re[:, :, 0], k.im[:, :, 0]), dim=2).detach()
    return x.requires_grad_(), v.requires_grad_(), state.requires_grad_()


@pytest.mark.parametrize("overrides", BINDINGS, ids=str)
@pytest.mark.parametrize(
    ("rows", "length", "room"),
    [
        (2, 1, 1 << 16),
        (2, 63, 1 << 16),
        (1, 200, 1 << 16),  # three chunks in one block, and a rest
        (3, 2 * CHUNK, 1),  # a block for each chunk of each row
        (3, 150, 1 << 11),
    ],
)
def test_values_and_gradients_are_those_of_the_plain_form(
    overrides: dict[str, Any], rows: int, length: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "CACHED", room)
    memory = make(**overrides)
    given = (*inputs(memory, rows, length), *memory.parameters())
    found = []
    for form in (memory._run, memory.plain):
        y, after = form(*given[:3])
        loss = (y * randn(*y.shape, seed=4)).sum() + (after * randn(*after.shape, seed=5)).sum()
        found.append((y, after, *torch.autograd.grad(loss, given)))
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("overrides", [{}, {"binding": "hrr"}], ids=str)
def test_gradcheck(overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holo_cli.models.holographic.block.CHUNK", 4)
    monkeypatch.setattr(sweep_module, "CHUNK", 4)
    monkeypatch.setattr(sweep_module, "CACHED", 64)
    memory = make(width=4, heads=1, **overrides)
    front = memory.binding.front
    code = randn(2, 2, 1, front.numbers, 1, 11)
    v, state = randn(1, 4, 1, 11, seed=1), randn(1, 1, 2, 2, front.channels, seed=2)
    log_a, b = -randn(1, 1, 11, seed=3).exp(), randn(1, 1, 11, seed=4).sigmoid()
    given = [t.requires_grad_() for t in (code, v, log_a, b, state)]
    assert torch.autograd.gradcheck(lambda *t: sweep(*t, front), given)


def test_forgetting_at_once_and_never() -> None:
    """Decays whose cumulative products are 0, and inputs that do not come in."""
    memory = make()
    front = memory.binding.front
    code, v = randn(2, 2, 2, front.numbers, 1, 100), randn(2, 8, 1, 100, seed=1)
    log_a = torch.full((2, 1, 100), -1e4, dtype=torch.float64)
    b = torch.ones_like(log_a)
    b[:, :, 50:] = 0.0
    given = [t.requires_grad_() for t in (code, v, log_a, b)]
    y, after = sweep(*given, None, front)
    grads = torch.autograd.grad(y.square().sum() + after.square().sum(), given)
    assert y[:, 52:].abs().max() < 1e-3  # nothing is left, but eps keeps the norm finite
    assert all(g.isfinite().all() for g in (y, *grads))


@pytest.mark.parametrize("length", [130, 1000])
def test_half_precision_inputs_are_computed_in_full(length: int) -> None:
    memory = make(half_life_min=2.0, half_life_max=2000.0)
    x, v, _ = inputs(memory, 2, length)
    wide = memory.plain(x, v, None)[0]
    memory = memory.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = memory(x.float(), v.bfloat16())
    assert y.dtype == torch.bfloat16
    # bfloat16 phases are off by some hundredths; sums over positions must add nothing to that
    error = (y - wide).square().mean(dim=(0, 2, 3)).sqrt()
    assert error[-50:].mean() < 2 * error[:50].mean() + 0.02
    assert error.mean() < 0.1


def test_gradients_of_decays_do_not_drift_with_the_length() -> None:
    """They are differences of sums: added up over all positions, rounding would pile up."""
    memory = make(half_life_min=4.0, half_life_max=4.0)
    x, v, _ = inputs(memory, 1, 2000)
    loss_weight = randn(1, 2000, 2, 8, seed=7)
    (exact,) = torch.autograd.grad((memory(x, v) * loss_weight).sum(), memory.gates_bias)
    single = memory.float()
    y = single(x.float(), v.float())
    (got,) = torch.autograd.grad((y * loss_weight.float()).sum(), single.gates_bias)
    torch.testing.assert_close(got.double(), exact, rtol=2e-4, atol=2e-4 * exact.abs().max().item())


def test_what_is_kept_for_the_backward_pass_is_not_the_plates() -> None:
    """Of 4 plates over 2,048 positions only those at block starts."""
    memory = make(plates=4, width=32).float()
    x, v = torch.randn(1, 2048, 32), torch.randn(1, 2048, 2, 16)
    kept = 0

    def keep(t: Tensor) -> Tensor:
        nonlocal kept
        kept += t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        memory(x, v)
    plates = 2048 * memory.state_numbers()
    phases = plates  # of queries and keys: R C / 2 each
    assert kept < phases + 8 * x.numel()


def test_parts_cover_everything_once_and_in_order() -> None:
    for rows, length, most in ((1, 1, 1), (5, 333, 1), (5, 333, 3000), (2, 1000, 10**6)):
        seen = torch.zeros(rows, length)
        for group in parts(rows, length, 10, most):
            position = 0
            for part in group:
                assert part.positions.start == position
                position = part.positions.stop
                seen[part.rows, part.positions] += 1
                assert 10 * part.chunks * part.length * (part.rows.stop - part.rows.start) <= max(
                    most, 10 * CHUNK
                )
            assert position == length
        assert (seen == 1).all()


@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 3, 4)])
def test_constant_matrices_are_the_fft(shape: tuple[int, ...]) -> None:
    bins = (*shape[:-1], shape[-1] // 2 + 1)
    front = Spectra(1, shape, bins, (0.0,) * torch.Size(bins).numel())
    x = randn(front.numbers, 5)
    into, back = front.matrices(x)
    torch.testing.assert_close(into @ x, torch.cat(spectrum(x.T, shape), dim=1).T)
    torch.testing.assert_close(back @ (into @ x), x)


def test_the_gradient_of_spectral_lines_below_the_floor_is_right() -> None:
    """Lines that are not blown up to magnitude 1 change in magnitude as well as in phase."""
    shape, bins = (6,), (4,)
    front = Spectra(1, shape, bins, (0.3, 0.0, 0.7, 0.0))
    raw = torch.zeros(1, 6, 2, dtype=torch.float64)
    raw[0, :, 1] = randn(6)
    raw[0, 0, 0] = 1e-4  # all of its lines are below
    raw.requires_grad_()
    angles = front.angles(0, 2, raw)
    small, whole = (Pair(*randn(2, 1, 4, 2, seed=s)) for s in (1, 2))
    wave = unit(spectrum(raw.mT, shape))
    turned = Pair(wave.re.mT, wave.im.mT).times(phasor(angles))
    bound = turned.times(small)
    (expected,) = torch.autograd.grad(
        (bound.re * whole.re).sum() + (bound.im * whole.im).sum(), raw
    )
    out = torch.empty_like(raw)
    with torch.no_grad():
        waves = front.waves(raw.detach().clone(), angles, torch.empty_like(raw))
        assert isinstance(waves, Waves)
        assert waves.scale is not None
        assert (waves.scale[..., 0] >= 999).all()
        front.pull(out, waves, angles, small, waves.pair.conj_times(whole), whole)
    torch.testing.assert_close(out, expected)
