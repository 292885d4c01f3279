"""What is true of the holographic model only; the contract suite holds for it as for all.

Most tests here would pass no fake: a memory that does not superpose misses the capacity law, a
convolution without padding leaks the future, a gate that is not used cannot change what is chosen.
"""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from holo_cli import registry
from holo_cli.errors import UsageError
from holo_cli.models.holographic import reference, views
from holo_cli.models.holographic.binding import Phasor, Reduced
from holo_cli.models.holographic.classic import Classic, per_token
from holo_cli.models.holographic.config import Config, factors
from holo_cli.models.holographic.experts import Experts
from holo_cli.models.holographic.fftconv import FFTConv, causal_convolution, smooth
from holo_cli.models.holographic.memory import Memory, read, store
from holo_cli.models.holographic.mixer import LEAST, MOST, Blend, Holographic
from holo_cli.models.holographic.model import Model
from holo_cli.models.holographic.phasors import Pair, phasor, turns
from holo_cli.models.holographic.scan import CHUNK, decayed_sum
from holo_cli.models.holographic.spectra import spectral_rates, spectrum, unit
from holo_cli.models.holographic.topology import lagged_cosines, no_past, topology
from holo_cli.models.views import Weights
from holo_cli.visualize.tokens import with_tokens

SMALL: dict[str, Any] = {"vocab_size": 29, "layers": 2, "heads": 2, "width": 16, "context": 64}


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def config(**overrides: Any) -> Config:
    return Config(**{**SMALL, **overrides})


def awake(part: torch.nn.Module) -> Any:
    """A part in float64 whose every parameter is random."""
    part = part.double()
    for seed, p in enumerate(part.parameters()):
        p.data = randn(*p.shape, seed=seed) / max(p.shape[-1], 1) ** 0.5 if p.ndim else p.data + 0.3
    return part


# -- the recurrence -------------------------------------------------------------------------------


def one_by_one(log_a: Tensor, x: Tensor, state: Tensor) -> Tensor:
    y = []
    for t in range(x.shape[1]):
        state = log_a[:, t, None].exp() * state + x[:, t]
        y.append(state)
    return torch.stack(y, 1)


@pytest.mark.parametrize("length", [1, 63, CHUNK, CHUNK + 1, 200, CHUNK * CHUNK + 70])
def test_chunks_and_chunks_of_chunks_are_the_recurrence(length: int) -> None:
    log_a = -randn(2, length).exp() * 0.1
    x, state = randn(2, length, 3, seed=1), randn(2, 3, seed=2)
    expected = one_by_one(log_a, x, state)
    torch.testing.assert_close(decayed_sum(log_a, x, state), expected, rtol=1e-10, atol=1e-10)
    fresh = one_by_one(log_a, x, torch.zeros_like(state))
    torch.testing.assert_close(decayed_sum(log_a, x), fresh, rtol=1e-10, atol=1e-10)


def test_the_recurrence_has_the_right_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holo_cli.models.holographic.scan.CHUNK", 4)  # three levels
    log_a = (-randn(1, 19).exp() * 0.1).requires_grad_()
    x, state = randn(1, 19, 2, seed=1).requires_grad_(), randn(1, 2, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(decayed_sum, (log_a, x, state))


def test_instant_forgetting_gives_no_nan_and_forgets() -> None:
    """Cumulative products of such decays are 0 after a token: dividing by them would be NaN."""
    log_a = torch.full((1, 130), -1e4).requires_grad_()
    x = torch.randn(1, 130, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = decayed_sum(log_a, x)
    torch.testing.assert_close(y, x)
    y.sum().backward()
    assert log_a.grad is not None
    assert x.grad is not None
    assert log_a.grad.isfinite().all()
    torch.testing.assert_close(x.grad, torch.ones_like(x))


def test_a_long_half_life_is_kept_in_float32() -> None:
    length = 8192
    log_a = torch.full((1, length), -math.log(2) / 4096)
    x = torch.zeros(1, length, 1)
    x[0, 0] = 1.0
    y = decayed_sum(log_a, x)[0, :, 0]
    assert y[4096].item() == pytest.approx(0.5, rel=1e-4)
    assert y[8191].item() == pytest.approx(0.25, rel=1e-3)


# -- the memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("plates", [1, 4, 16])
def test_capacity_follows_the_law_of_interference(plates: int) -> None:
    """N values under random phases come back with cosine 1 / sqrt(1 + (N - 1) / R)."""
    items, channels = 16, 4096
    generator = torch.Generator().manual_seed(plates)
    shape = (1, 1, items, plates, channels)
    k = phasor(torch.rand(shape, generator=generator) * 2 * math.pi)
    v = Pair(*torch.randn(2, 1, 1, items, channels, generator=generator))
    held = store(k, v, torch.zeros(1, 1, items))[:, :, -1:].expand(-1, -1, items, -1, -1, -1)
    back = read(k, held)
    cosine = F.cosine_similarity(torch.cat(back, -1), torch.cat(v, -1), dim=-1).mean().item()
    assert cosine == pytest.approx(1 / math.sqrt(1 + (items - 1) / plates), abs=0.01)
    # what was stored is superposed, not kept apart: the state does not grow with the items
    assert held.shape[3:] == (plates, 2, channels)


def test_one_item_comes_back_whole_and_a_wrong_key_reads_noise() -> None:
    k = phasor(randn(1, 1, 1, 4, 512) * 10)
    wrong = phasor(randn(1, 1, 1, 4, 512, seed=1) * 10)
    v = Pair(randn(1, 1, 1, 512, seed=2), randn(1, 1, 1, 512, seed=3))
    held = store(k, v, torch.zeros(1, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(torch.stack(read(k, held)), torch.stack(v))
    noise = torch.cat(read(wrong, held), -1)
    assert F.cosine_similarity(noise, torch.cat(v, -1), dim=-1).abs().item() < 0.15


@pytest.mark.parametrize("binding", ["phasor", "hrr"])
@pytest.mark.parametrize("length", [64, 128, 256, 512])
def test_the_first_token_still_counts_at_the_end(binding: str, length: int) -> None:
    memory = Memory(config(heads=4, width=32, binding=binding))
    torch.nn.init.normal_(memory.binding.code.weight)
    memory.finish_initialisation()
    x, v = torch.randn(2, 1, length, 32, generator=torch.Generator().manual_seed(0))
    v = v.view(1, length, 4, 8).clone().requires_grad_()
    said = (memory(x, v)[0, -1] * torch.randn(4, 8)).sum(1)  # answers are of one length
    influence = torch.stack(
        [torch.autograd.grad(said[h], v, retain_graph=True)[0][0, 0].norm() for h in range(4)]
    )
    per_recent = torch.autograd.grad(said[3], v)[0][0, -1].norm()
    # the head of half-life 4096 has lost little; the one of half-life 4 has lost everything
    assert influence[3] > 0.05 * per_recent
    assert influence[0] < 1e-3 * influence[3]


def test_half_lives_are_spread_over_the_heads_from_short_to_long() -> None:
    memory = Memory(config(heads=4, width=32, half_life_min=4, half_life_max=4000)).double()
    memory.finish_initialisation()
    log_a, b = memory.dial(randn(1, 5, 32))
    lives = -math.log(2) / log_a[0]
    expected = torch.tensor([4.0, 40.0, 400.0, 4000.0], dtype=torch.float64)
    torch.testing.assert_close(lives, expected[:, None].expand(4, 5))
    torch.testing.assert_close(b, torch.full_like(b, 0.5))


def test_decay_and_input_gate_depend_on_the_token() -> None:
    memory = awake(Memory(config()))
    log_a, b = memory.dial(randn(1, 9, 16))
    assert (log_a < 0).all()
    assert ((b > 0) & (b < 1)).all()
    assert log_a.std(2).min() > 1e-3
    assert b.std(2).min() > 1e-3


def test_every_plate_has_phases_of_its_own_and_they_count() -> None:
    one, four = (awake(Memory(config(plates=r))) for r in (1, 4))
    q, k = four.binding.keys(randn(1, 6, 16))
    assert q.re.shape == (1, 2, 6, 4, 4)
    for r in range(1, 4):
        assert (k.re[:, :, :, r] - k.re[:, :, :, 0]).abs().max() > 0.1
    assert four.state_numbers() == 4 * one.state_numbers()


@pytest.mark.parametrize("binding", ["phasor", "hrr"])
def test_only_distance_in_positions_matters(binding: str) -> None:
    """Turning queries and keys alike leaves the angle between them to their distance."""
    memory = awake(Memory(config(binding=binding)))
    q, k = memory.binding.keys(randn(1, 1, 16).expand(1, 12, 16))  # the same token everywhere
    assert (k.re[:, :, 0] - k.re[:, :, 5]).abs().max() > 0.1
    seen = [Pair(*(part[:, :, t] for part in q)) for t in range(12)]
    far = [seen[t].conj_times(Pair(*(part[:, :, t - 4] for part in k))) for t in range(4, 12)]
    for pair in far[1:]:
        torch.testing.assert_close(torch.stack(pair), torch.stack(far[0]))


def test_far_positions_are_turned_exactly() -> None:
    rate = 0.123456789
    angle = turns((rate,), 10**7, 1, torch.float32, torch.device("cpu")).item()
    assert angle == pytest.approx(
        math.remainder(rate * 10**7, 2 * math.pi) % (2 * math.pi), abs=1e-5
    )


def test_no_tensor_of_training_is_quadratic_in_the_length() -> None:
    """Of everything that the forward pass of a layer makes, saved for the backward or not."""
    from torch.utils._python_dispatch import TorchDispatchMode

    length, largest = 4096, 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else (out,):
                largest = max(largest, t.numel() if isinstance(t, Tensor) else 0)
            return out

    for overrides in ({}, {"binding": "hrr"}, {"mixer": "fftconv"}, {"topology": True}):
        largest = 0
        mixer = Holographic(config(**overrides))
        mixer.finish_initialisation()
        x = torch.randn(1, length, 16, generator=torch.Generator().manual_seed(0))
        with Watch():
            mixer(x)[0].sum().backward()
        assert 0 < largest <= length * 512, overrides  # length^2 is 8 times that


# -- hrr ------------------------------------------------------------------------------------------


def test_hrr_binds_by_circular_convolution() -> None:
    k, v = randn(8), randn(8, seed=1)
    bound = [sum(k[j] * v[(n - j) % 8] for j in range(8)) for n in range(8)]
    product = spectrum(k, (8,)).times(spectrum(v, (8,)))
    got = torch.fft.irfft(torch.complex(*product), norm="ortho") * math.sqrt(8)
    torch.testing.assert_close(got, torch.stack(bound))


def test_hrr_keys_have_unit_magnitude_whatever_their_length() -> None:
    memory = awake(Memory(config(binding="hrr")))
    x, v = randn(1, 7, 16), randn(1, 7, 2, 8, seed=1)
    q, k = memory.binding.keys(x)
    for pair in (q, k):
        torch.testing.assert_close(pair.re**2 + pair.im**2, torch.ones_like(pair.re))
    before = memory(x, v)
    memory.binding.code.weight.data *= 10
    torch.testing.assert_close(memory(x, v), before)


def test_without_the_projection_the_transform_is_absorbed_in_the_weights() -> None:
    """F(W x) = (F W) x: one more linear map. Projected, it is no linear map at all."""
    weight, x, other = randn(8, 16), randn(16, seed=1), randn(16, seed=2)
    absorbed = torch.complex(*spectrum(weight.T, (8,))).T  # the columns transformed
    plain = torch.complex(*spectrum(weight @ x, (8,)))
    torch.testing.assert_close(absorbed @ x.to(absorbed.dtype), plain)

    def projected(t: Tensor) -> Tensor:
        return torch.complex(*unit(spectrum(weight @ t, (8,))))

    assert (projected(x + other) - projected(x) - projected(other)).abs().max() > 0.1


def test_a_vanishing_spectral_line_gives_finite_gradients() -> None:
    z = torch.zeros(3, requires_grad=True)
    pair = unit(Pair(z, z))
    (pair.re.sum() + pair.im.sum()).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize(("kind", "shape"), [("1d", (32,)), ("2d", (4, 8)), ("3d", (2, 4, 4))])
def test_shapes_of_binding_differ_and_turned_spectra_stay_those_of_real_signals(
    kind: str, shape: tuple[int, ...]
) -> None:
    made = config(width=64, binding="hrr", binding_shape=kind)
    assert made.shape == shape
    binding = Reduced(made)
    z = spectrum(randn(32), shape)
    angle = 5.0 * torch.tensor(binding.front.rates[: binding.channels], dtype=torch.float64)
    turned = torch.complex(*z.times(phasor(angle))).view(binding.bins)
    axes = tuple(range(len(shape)))
    signal = torch.fft.irfftn(turned, s=shape, dim=axes, norm="ortho")
    again = torch.fft.rfftn(signal, dim=axes, norm="ortho")
    torch.testing.assert_close(again, turned)  # nothing was lost: it was a real signal's
    assert sum(r != 0 for r in binding.front.rates) >= len(binding.front.rates) // 3


def test_spectral_rates_are_odd() -> None:
    shape = (4, 6)
    bins = [(i, j) for i in range(4) for j in range(4)]
    found = spectral_rates(shape, 3, 1.0)
    for plate in range(3):
        rate = dict(zip(bins, found[16 * plate :], strict=False))
        for k in bins:
            mirror = tuple(-i % n for i, n in zip(k, shape, strict=True))
            if mirror in rate:
                assert rate[k] == -rate[mirror]
    turning = [abs(r) for r in found if r]
    assert len(set(turning)) == 3 * 10  # plates, pairs of mirror images


def test_plates_turn_at_different_rates_so_that_distance_shows_in_magnitude() -> None:
    """With one rate a channel hears every distance equally loud."""
    loud = {}
    for plates in (1, 4):
        binding = Phasor(config(plates=plates, width=64))
        rate = torch.tensor(binding.front.rates, dtype=torch.float64).view(plates, -1)
        distance = torch.arange(200)[:, None, None]
        kernel = torch.polar(torch.ones(1, dtype=torch.float64), distance * rate).mean(1).abs()
        loud[plates] = kernel.std(0).min().item()
    assert loud[1] < 1e-9
    assert loud[4] > 0.1


# -- the long filter ------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 7, 64, 301])
def test_the_fft_is_the_causal_convolution(length: int) -> None:
    u, h = randn(2, 3, length), randn(3, length, seed=1)
    direct = torch.stack(
        [sum(h[:, t - s] * u[..., s] for s in range(t + 1)) for t in range(length)], dim=-1
    )
    torch.testing.assert_close(causal_convolution(u, h), direct)


def test_ffts_are_of_smooth_lengths_that_hold_all_of_a_convolution() -> None:
    for length in range(1, 400):
        padded = smooth(2 * length - 1)
        assert 2 * length - 1 <= padded
        assert 2**20 * 3**12 * 5**8 % padded == 0


def test_without_padding_the_future_wraps_in_and_the_causality_check_sees_it() -> None:
    def wrapped(u: Tensor, h: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(u) * torch.fft.rfft(h), n=u.shape[-1])

    h = randn(3, 32, seed=1)
    leaks = {}
    for form in (causal_convolution, wrapped):
        u = randn(1, 3, 32).requires_grad_()
        (grad,) = torch.autograd.grad(form(u, h)[..., 7].square().sum(), u)
        leaks[form] = (grad[..., 8:].abs().max() / grad.abs().max()).item()
    assert leaks[causal_convolution] < 1e-13  # rounding of the transform, no more
    assert leaks[wrapped] > 1e-2


@pytest.mark.parametrize("pieces", [[1] * 90, [90], [40, 1, 1, 48], [5, 45, 40]])
def test_the_modes_step_by_step_are_the_convolution(pieces: list[int]) -> None:
    conv = FFTConv(config(mixer="fftconv", fft_modes=6)).double()
    torch.nn.init.normal_(conv.code.weight)
    conv.finish_initialisation()
    x, v = randn(2, 90, 16), randn(2, 90, 2, 8, seed=1)
    state, position, out = conv.init_state(2), 0, []
    for piece in pieces:
        at = slice(position, position + piece)
        y, state = conv.step(x[:, at], v[:, at], state)
        out.append(y)
        position += piece
    torch.testing.assert_close(torch.cat(out, 1), conv(x, v), rtol=1e-9, atol=1e-9)


def test_filters_start_finite_and_reach_far() -> None:
    conv = FFTConv(config(mixer="fftconv"))
    conv.finish_initialisation()
    size = conv.filter(4096).abs().amax((0, 1))
    assert size.isfinite().all()
    assert size[2000:].max() > 1e-3 * size[0]


# -- classic --------------------------------------------------------------------------------------


def test_the_older_formula_mixes_no_tokens() -> None:
    q, k, v = randn(3, 1, 12, 8).unbind(0)
    changed = v.clone()
    changed[:, 3] += 1
    difference = (per_token(q, k, changed) - per_token(q, k, v)).abs().amax(-1)[0]
    assert difference[3] > 0.1
    assert difference[:3].max() == 0
    assert difference[4:].max() == 0


def test_classic_starts_as_it_did_and_without_attention_nothing_is_mixed() -> None:
    part = Classic(config(mixer="classic"))
    part.finish_initialisation()
    assert torch.sigmoid(part.share).item() == pytest.approx(0.525, abs=1e-3)
    part = awake(part)
    part.share.data.fill_(100.0)  # all formula, no attention
    x = randn(1, 9, 16)
    changed = x.clone()
    changed[:, 2] += 1
    difference = (part(changed)[0] - part(x)[0]).abs().amax(-1)[0]
    assert difference[2] > 1e-3
    assert difference[3:].max() < 1e-12


# -- blend ----------------------------------------------------------------------------------------


def test_the_blend_stays_between_its_bounds_and_never_goes_deaf() -> None:
    blend = Blend(config(blend=True)).double()
    blend.finish_initialisation()
    first = blend.gate(randn(1, 4, 16))
    torch.testing.assert_close(first, torch.full_like(first, 0.05 + 0.85 / (1 + math.exp(2))))
    torch.nn.init.normal_(blend.share.weight)
    x = (20 * randn(1, 200, 16)).requires_grad_()
    gate = blend.gate(x)
    assert gate.min() >= LEAST
    assert gate.max() <= MOST
    assert gate.max() - gate.min() > 0.8  # per token, the whole range
    small = blend.gate(randn(1, 50, 16))
    small.sum().backward()
    assert blend.share.weight.grad is not None
    assert (blend.share.weight.grad != 0).all()


def test_a_blend_is_the_two_norms_in_the_gate_s_proportion() -> None:
    mixer = awake(Holographic(config(blend=True)))
    x = randn(1, 11, 16)
    outs = {}
    for bias in (-50.0, 50.0, 0.0):
        mixer.blend.share.weight.data.zero_()
        mixer.blend.share_bias.data.fill_(bias)
        outs[bias] = mixer(x)[0]
    # 0.05, 0.9 and 0.475 of the memory: on one line, since norms and gate stay as they are
    middle = torch.lerp(outs[-50.0], outs[50.0], (0.475 - LEAST) / (MOST - LEAST))
    torch.testing.assert_close(outs[0.0], middle)


@pytest.mark.parametrize(
    ("overrides", "limit", "grows"),
    [
        ({}, None, False),
        ({"mixer": "fftconv"}, None, False),
        ({"topology": True}, None, False),
        ({"blend": True}, 64, True),
        ({"attention_every": 2}, 64, True),
        ({"mixer": "classic"}, 64, True),
    ],
)
def test_only_attention_limits_the_context(
    overrides: dict[str, Any], limit: int | None, grows: bool
) -> None:
    model = Model(config(**overrides))
    assert model.context_limit == limit
    assert (model.state_bytes(64) > model.state_bytes(1)) == grows


def test_it_decodes_past_its_context_in_constant_memory() -> None:
    torch.manual_seed(0)
    model = Model(config()).eval()
    tokens = torch.randint(0, 29, (1, 300), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(tokens)
        _, state = model.step(tokens[:, :250], model.init_state(1))
        size = state.nbytes()
        rest, state = model.step(tokens[:, 250:], state)
    torch.testing.assert_close(rest, whole[:, 250:], rtol=1e-4, atol=1e-4)
    assert state.nbytes() == size


# -- category experts -----------------------------------------------------------------------------


def make_experts(**overrides: Any) -> Experts:
    part: Experts = awake(Experts(config(**overrides)))
    return part


@pytest.mark.parametrize(("experts", "top"), [(3, 1), (4, 2), (5, 5)])
def test_sorting_tokens_is_the_loop_over_experts(experts: int, top: int) -> None:
    part = make_experts(experts=experts, experts_top_k=top)
    x = randn(2, 21, 16)
    expected = torch.stack(
        [torch.stack([reference._feed(part, token) for token in row]) for row in x]
    )
    torch.testing.assert_close(part(x)[0], expected)


def test_an_expert_without_tokens_is_no_trouble() -> None:
    part = make_experts(experts=3)
    assert part.bias is not None
    part.bias.data = torch.tensor([0.0, 0.0, -9.0], dtype=torch.float64)
    out, aux = part(randn(1, 8, 16))
    assert part.route(randn(8, 16))[1].max() < 2
    (out.sum() + aux["balance"]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())


def test_the_gate_of_the_one_expert_chosen_teaches_the_router() -> None:
    """Renormalised, a single gate would be 1 and the router would get no gradient."""
    part = make_experts(balance=0.0)
    part(randn(1, 8, 16))[0].square().sum().backward()
    assert part.category.weight.grad is not None
    assert part.category.weight.grad.abs().max() > 1e-4


def test_the_balance_loss_is_least_at_balance_and_moves_the_router_there() -> None:
    part = make_experts(experts=3, balance=1.0)
    even = torch.full((9, 3), 1 / 3, dtype=torch.float64)
    chosen = torch.arange(9)[:, None] % 3
    least = part._unbalance(even, chosen).item()
    assert least == pytest.approx(1.0)
    for shift in (0.2, 0.6):
        uneven = even + shift * torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64)
        lopsided = torch.where(torch.arange(9)[:, None] < 9 * (1 / 3 + shift), 0, chosen)
        assert part._unbalance(uneven, lopsided).item() > least
    # by its gradient alone the router evens out what it gives
    torch.nn.init.zeros_(part.bias)  # type: ignore[arg-type]
    x = randn(1, 600, 16) + 3.0 * randn(16, seed=5)
    optimizer = torch.optim.SGD([part.category.weight], lr=0.05)

    def largest() -> float:
        affinity, _ = part.route(x[0])
        return affinity.mean(0).max().item()

    before = largest()
    for _ in range(200):
        optimizer.zero_grad()
        part(x)[1]["balance"].backward()
        optimizer.step()
    assert before > 0.6
    assert largest() < 0.4


def test_the_bias_changes_who_is_chosen_and_no_gate() -> None:
    part = make_experts(experts=3)
    x = randn(40, 16)
    affinity, chosen = part.route(x)
    assert part.bias is not None
    part.bias.data = torch.tensor([0.0, 3.0, 0.0], dtype=torch.float64)
    pushed, moved = part.route(x)
    assert torch.equal(pushed, affinity)
    assert not torch.equal(moved, chosen)
    assert (moved == 1).all()


def test_the_bias_alone_balances_and_costs_nothing() -> None:
    part = make_experts(experts=3, balance=0.01)
    assert part.bias is not None
    torch.nn.init.zeros_(part.bias)
    x = randn(1, 600, 16) + 0.6 * randn(16, seed=5)

    def shares() -> Tensor:
        return torch.bincount(part.route(x[0])[1].flatten(), minlength=3) / 600

    before = shares()
    value = part(x)[1]["balance"]
    affinity, chosen = part.route(x[0])
    given = torch.bincount(chosen.flatten(), minlength=3) / 600
    torch.testing.assert_close(value, 0.01 * 3 * (given * affinity.mean(0)).sum())
    optimizer = torch.optim.Adam([part.bias], lr=0.003)
    for _ in range(300):
        optimizer.zero_grad()
        part(x)[1]["balance"].backward()
        optimizer.step()
    assert before.max() > 0.45
    assert shares().max() < 0.36


def test_a_token_pays_for_the_experts_it_meets() -> None:
    one, three = Model(config(experts=1)), Model(config(experts=3))
    mlp = 2 * 2 * 16 * 64  # both layers
    assert three.describe().parameters - one.describe().parameters == 2 * mlp + 2 * (3 * 16 + 3)
    grown = three.describe().active_parameters - one.describe().active_parameters
    assert grown == 2 * (3 * 16 + 3)


# -- topology -------------------------------------------------------------------------------------


def features(v: Tensor, window: int = 6) -> Tensor:
    got: Tensor = topology(v, no_past(v.shape[0], v.shape[2], v.shape[3], window, v))[0]
    return got


def test_topology_is_the_plain_loop_and_goes_on_from_a_state() -> None:
    v = randn(2, 40, 3, 5)
    whole = features(v)
    for row in range(2):
        for h in range(3):
            plain = reference._topology(list(v[row, :, h]), 6)
            torch.testing.assert_close(whole[row, :, h], torch.stack(plain))
    past = no_past(2, 3, 5, 6, v)
    parts = []
    for piece in v.split([1, 1, 3, 11, 24], dim=1):
        part, past = topology(piece, past)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_topology_is_strictly_causal() -> None:
    v = randn(1, 30, 2, 5).requires_grad_()
    (grad,) = torch.autograd.grad(features(v)[0, 12].square().sum(), v)
    assert (grad[0, 13:] == 0).all()
    assert grad[0, 0].abs().max() > 0
    changed = v.detach().clone()
    changed[:, 13:] = randn(1, 17, 2, 5, seed=9)
    assert torch.equal(features(changed)[:, :13], features(v.detach())[:, :13])


def test_topology_means_what_its_names_say() -> None:
    same = torch.ones(1, 20, 1, 4, dtype=torch.float64)
    density, spread, connectivity, clustering = features(same)[0, -1, 0].tolist()
    assert density == pytest.approx(1, abs=1e-4)
    assert spread == pytest.approx(0, abs=1e-4)
    assert connectivity > 0.99
    assert clustering == pytest.approx(1, abs=1e-4)
    apart = torch.eye(20, dtype=torch.float64)[None, :, None]
    density, spread, connectivity, clustering = features(apart)[0, -1, 0].tolist()
    assert density == pytest.approx(0, abs=1e-6)
    assert spread == pytest.approx(0.95, abs=1e-4)
    assert connectivity < 0.01
    assert clustering == pytest.approx(0, abs=1e-6)
    # a newcomer among friends of each other: alone, but they cluster
    crowd = torch.tensor([1.0, 0.0]).double().expand(9, 2)
    newcomer = torch.tensor([[0.0, 1.0]]).double()
    last = features(torch.cat((crowd, newcomer))[None, :, None])[0, -1, 0]
    assert last[0].abs() < 1e-6
    assert last[3] > 0.99


def test_lagged_cosines_are_a_band_and_no_square() -> None:
    z = F.normalize(randn(1, 1, 50, 4), dim=-1)
    band = lagged_cosines(z, 8)
    assert band.shape == (1, 1, 50, 8)
    square = z[0, 0] @ z[0, 0].T
    for j in range(1, 9):
        torch.testing.assert_close(band[0, 0, j:, j - 1], square.diagonal(-j))
        assert (band[0, 0, :j, j - 1] == 0).all()


# -- config, presets, pages -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"plates": 0}, "greater than or equal to 1"),
        ({"mixer": "hologram"}, "'memory', 'fftconv' or 'classic'"),
        ({"binding": "xor"}, "'phasor' or 'hrr'"),
        ({"binding_shape": "2d"}, "is for model.binding hrr"),
        ({"binding": "hrr", "width": 4}, "is 2"),
        ({"binding": "hrr", "binding_shape": "2d", "width": 8}, "is 4"),
        ({"binding": "hrr", "binding_shape": "3d", "width": 16}, "is 8"),
        ({"binding": "hrr", "binding_shape": "3d", "width": 20}, "is 10"),
        ({"half_life_min": 10, "half_life_max": 5}, "must be at least model.half_life_min"),
        ({"half_life_min": 0}, "greater than 0"),
        ({"experts": 2, "experts_top_k": 3}, "must be at most model.experts"),
        ({"attention_every": 1}, "must be 0, or from 2 to"),
        ({"attention_every": 3}, "must be 0, or from 2 to"),
        ({"mixer": "classic", "blend": True}, "must be false"),
        ({"fft_modes": 0}, "greater than or equal to 1"),
        ({"balance": -1}, "greater than or equal to 0"),
        ({"binding_shap": "2d"}, "Extra inputs"),
    ],
)
def test_wrong_values_are_named(overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**overrides)
    assert len(caught.value.errors()) == 1
    assert says in str(caught.value)


def test_factors_are_as_equal_as_can_be() -> None:
    for number, count, expected in [
        (64, 1, (64,)),
        (64, 2, (8, 8)),
        (64, 3, (4, 4, 4)),
        (24, 3, (2, 3, 4)),
        (14, 2, (2, 7)),
        (14, 3, ()),
        (2, 2, ()),
    ]:
        assert factors(number, count) == expected


@pytest.mark.parametrize(
    ("preset", "vocabulary", "parameters", "active"),
    [
        ("tiny", 65, 1_849_004, 800_428),
        ("25m", 8192, 29_425_792, 29_425_792),
        ("227m", 32_000, 230_083_908, 116_837_700),
    ],
)
def test_presets_have_the_size_they_say(
    preset: str, vocabulary: int, parameters: int, active: int
) -> None:
    with registry.preset_path("holographic", preset).open("rb") as file:
        given = tomllib.load(file)["model"]
    with torch.device("meta"):
        model = Model(Config(vocab_size=vocabulary, **given))
    assert all(p.device.type == "meta" for p in model.parameters())
    described = model.describe()
    assert (described.parameters, described.active_parameters) == (parameters, active)


def test_muon_gets_each_plate_as_a_matrix_and_no_dial() -> None:
    model = Model(config(plates=3, experts=4, blend=True, topology=True))
    matrices = model.matrices()
    splits = {name.partition(".")[2]: getattr(p, "splits", 1) for name, p in matrices.items()}
    block = {name.partition(".")[2]: n for name, n in splits.items()}
    assert block == {
        "mixer.value.weight": 1,
        "mixer.gate.weight": 1,
        "mixer.out.weight": 1,
        "mixer.memory.binding.code.weight": 6,
        "mixer.blend.qk.weight": 2,
        "mlp.up.weight": 4,
        "mlp.down.weight": 4,
    }


def test_measures_tell_what_the_mechanism_does() -> None:
    torch.manual_seed(0)
    model = Model(config(blend=True)).eval()
    tokens = torch.randint(0, 29, (1, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.measures(tokens)
    assert found["half_life"] == pytest.approx(math.sqrt(4 * 4096), rel=1e-3)
    assert found["memory_share"] == pytest.approx(0.05 + 0.85 / (1 + math.exp(2)), abs=1e-4)
    assert 0 <= found["smallest_category"] <= 1 / 3 <= found["largest_category"] <= 1


@pytest.mark.parametrize("label", list(reference.CASES))
def test_pages_are_plain_values_or_say_why_not(label: str) -> None:
    import json

    torch.manual_seed(0)
    model = Model(config(**reference.CASES[label])).eval()
    tokens = torch.randint(0, 29, (20,), generator=torch.Generator().manual_seed(0))
    for page in views.PAGES:
        absent = {
            "interference": model.config.mixer == "classic",
            "experts": model.config.experts == 1,
        }
        with torch.inference_mode():
            if absent[page]:
                with pytest.raises(UsageError):
                    getattr(views, page)(model, tokens)
                continue
            pictures = getattr(views, page)(model, tokens)
        for picture in pictures:
            if isinstance(picture, Weights):
                for layer in picture.layers:
                    assert layer.triu(1).abs().max() == 0
                    torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer[..., 0]))
                continue
            picture = with_tokens(picture, [f"<{t}>" for t in range(20)])
            assert json.dumps(dict(picture.variants), allow_nan=False)
            assert picture.variants
            for table in picture.tables:
                assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_page_of_phases_shows_what_is_in_phase() -> None:
    """A token asked for with its own key agrees with itself fully, and the future is left out."""
    memory = awake(Memory(config(plates=2)))
    _, k = memory.binding.keys(randn(1, 9, 16))
    for heat in views.agreement(k, k):
        torch.testing.assert_close(heat.diagonal(), torch.ones(9, dtype=torch.float64))
        assert heat[2, 3:].isnan().all()
        assert heat.nan_to_num().abs().max() <= 1 + 1e-12


def test_loudness_is_the_share_of_what_is_read() -> None:
    """With one channel and one value the answer is the sum that loudness tells the shares of."""
    from holo_cli.models.holographic.views import loudness

    memory = awake(Memory(config(heads=1, width=16, plates=3)))
    x = randn(1, 7, 16)
    q, k = memory.binding.keys(x)
    log_a, b = memory.dial(x)
    loud = loudness(q, k, log_a, b)[0]
    for t, s in ((6, 6), (6, 2), (3, 0)):
        table = (q.re[0, 0, t] - 1j * q.im[0, 0, t]) * (k.re[0, 0, s] + 1j * k.im[0, 0, s])
        size = table.mean(0).abs().mean() * b[0, 0, s] * log_a[0, 0, s + 1 : t + 1].sum().exp()
        own = ((q.re[0, 0, t] - 1j * q.im[0, 0, t]) * (k.re[0, 0, t] + 1j * k.im[0, 0, t])).mean(0)
        own = own.abs().mean() * b[0, 0, t]
        torch.testing.assert_close(loud[t, s] / loud[t, t], size / own)
