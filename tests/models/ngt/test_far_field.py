"""Far blocks as bodies: the fast form against the dense one, and what is exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from holo_cli.models.ngt import far_field
from holo_cli.models.ngt.blocks import FarBlocks
from holo_cli.models.ngt.far_field import bodies
from holo_cli.models.ngt.kernels import Gravity
from holo_cli.models.ngt.mixer import GravityMixer
from holo_cli.models.ngt.model import Model
from tests.models.ngt.particles import B, E, H, config, kernel_of, particles

LENGTH = 43  # not a multiple of any block here


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_field, "QUERIES", 9)


def gravity(**given: Any) -> Gravity:
    kernel = kernel_of("gravity", **given)
    assert isinstance(kernel, Gravity)
    return kernel


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("queries", [LENGTH, 12, 1])
@pytest.mark.parametrize(
    ("power", "block", "exact"), [(8.0, 4, 2), (3.0, 5, 0), (2.0, 7, 1), (8.0, 20, 0)]
)
def test_tiles_give_the_values_and_gradients_of_dense_weights(
    power: float, block: int, exact: int, queries: int
) -> None:
    kernel, far = gravity(power=power), FarBlocks(block, exact)
    q, k, m, v = particles(LENGTH)
    last = q[:, :, -queries:]
    leaves = [q, k, m, v, *kernel.parameters()]
    expected = (far.weights(kernel, q, k, m) @ v)[:, :, -queries:]
    y = far.attention(kernel, last, k, m, v)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn(B, H, queries, E, dtype=torch.float64)
    wanted = torch.autograd.grad((expected * weight).sum(), leaves)
    got = torch.autograd.grad((y * weight).sum(), leaves)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_gradients_are_the_differences_of_values() -> None:
    """The custom backward pass by itself; choices do not change under so small a step."""
    torch.manual_seed(0)
    kernel, far = gravity(), FarBlocks(2, 0)
    given = [torch.randn(1, H, 7, size, dtype=torch.float64) for size in (2, 2, 1, 1)]
    given[2] = given[2].exp()

    def attend(q: Tensor, k: Tensor, m: Tensor, v: Tensor) -> Tensor:
        return far.attention(kernel, q, k, m, v)

    assert torch.autograd.gradcheck(attend, [x.requires_grad_() for x in given])


def test_a_body_has_the_mass_and_mean_value_of_its_tokens() -> None:
    _, k, m, v = (x.detach() for x in particles(9))
    got = bodies(k, m, v, 4)
    for number in range(2):
        span = slice(4 * number, 4 * number + 4)
        mass, points = m[:, :, span], k[:, :, span]
        whole = mass.sum(2)
        centre = (mass * points).sum(2) / whole
        torch.testing.assert_close(got.mass[:, :, number], whole)
        torch.testing.assert_close(got.points[:, :, number, :-1], centre)
        torch.testing.assert_close(got.values[:, :, number], (mass * v[:, :, span]).sum(2) / whole)
        # half-way between the centroid and the mean squared distance
        spread = (mass * (points - centre[:, :, None]).square()).sum((2, 3)) / whole[..., 0]
        squared = centre.square().sum(-1) + 0.5 * spread
        torch.testing.assert_close(got.points[:, :, number, -1], squared)


def test_all_blocks_exact_is_the_exact_form() -> None:
    """Through the tiles too: one body too few to be needed is opened for every query."""
    kernel = gravity()
    q, k, m, v = (x.detach() for x in particles(LENGTH))
    expected = kernel.attention(q, k, m, v)
    exact = FarBlocks(4, 9)
    assert not exact.needed(LENGTH)
    assert torch.equal(exact.attention(kernel, q, k, m, v), expected)
    torch.testing.assert_close(FarBlocks(4, 8).attention(kernel, q, k, m, v)[:, :, :40],
                               expected[:, :, :40])  # fmt: skip


def test_more_exact_blocks_are_nearer_to_the_exact_form() -> None:
    kernel = gravity()
    q, k, m, v = (x.detach() for x in particles(LENGTH))
    expected = kernel.attention(q, k, m, v)
    errors = [
        (FarBlocks(4, n).attention(kernel, q, k, m, v) - expected).abs().mean().item()
        for n in (0, 2, 4, 6)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 3 * errors[-1]


def test_one_query_equals_the_tiles() -> None:
    kernel, far = gravity(), FarBlocks(4, 2)
    q, k, m, v = (x.detach() for x in particles(LENGTH))
    expected = far.attention(kernel, q, k, m, v)
    state = far.init_state()
    with torch.no_grad():
        for t in range(LENGTH):
            at = slice(t, t + 1)
            state = far.append(state, k[:, :, at], m[:, :, at].log(), v[:, :, at])
            got = far.attend(kernel, q[:, :, at], state)
            torch.testing.assert_close(got, expected[:, :, at])
    assert state.bodies.length == LENGTH // 4


def test_in_float32_and_bfloat16_it_is_the_same_function() -> None:
    kernel, far = gravity().float(), FarBlocks(4, 1)
    q, k, m, v = (x.detach().float() for x in particles(LENGTH))
    expected = far.weights(kernel, q, k, m) @ v
    torch.testing.assert_close(far.attention(kernel, q, k, m, v), expected, rtol=1e-3, atol=1e-4)
    low = far.attention(kernel, q, k, m, v.bfloat16())
    assert low.dtype == torch.bfloat16
    assert (low.float() - expected).abs().mean() < 0.01 * expected.abs().mean()


def test_memory_is_linear_in_the_length() -> None:
    from tests.models.ngt.test_gravity_attention import Largest

    largest = {}
    for length in (512, 1024):
        given = {"far_field": "blocks", "far_block": 32, "exact_blocks": 1}
        model = Model(config(**given, layers=1, context=length)).train()
        with Largest() as seen:
            model.hidden(torch.zeros(1, length, dtype=torch.int64)).x.sum().backward()
        largest[length] = seen.elements
    assert largest[1024] <= 2.1 * largest[512]


def test_the_weights_of_pictures_are_those_of_the_layer() -> None:
    torch.manual_seed(0)
    model = Model(config(far_field="blocks", far_block=4, exact_blocks=1)).double().eval()
    mixer = model.blocks[0].mixer
    assert isinstance(mixer, GravityMixer)
    x = torch.randn(1, 30, 16, dtype=torch.float64)
    z = model.initial_coordinates(x)
    p = mixer.particles(x, z, mixer.masses(x), 0)
    w = mixer.weights(p)
    torch.testing.assert_close(w.sum(-1), torch.ones_like(w[..., 0]))
    assert (w.triu(1) == 0).all()
    torch.testing.assert_close(w @ p.v, mixer._attend(p, p.k, p.m, None, p.v))


@pytest.mark.parametrize(
    "given",
    [{"kernel": "gaussian"}, {"radius_mode": "hard"}, {"learn_power": True}],
)
def test_other_kernels_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"model.far_field = blocks needs"):
        config(far_field="blocks", **given)


@pytest.mark.parametrize("given", [{"far_block": 1}, {"exact_blocks": -1}, {"far_field": "some"}])
def test_values_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**given)
