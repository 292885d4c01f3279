"""docs/theory.md, section 4: the squared Lorentzian distance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from holo_cli.models.ngt.kernels import Lorentz
from holo_cli.models.ngt.model import Model
from tests.models.ngt.particles import config, kernel_of


def curved(beta: float) -> Lorentz:
    """The kernel `lorentz` with this beta in each of its 3 heads."""
    kernel = kernel_of("lorentz")
    assert isinstance(kernel, Lorentz)
    with torch.no_grad():
        kernel.log_beta.fill_(math.log(beta))
    return kernel


def two_clouds(coords: int = 4) -> tuple[Tensor, Tensor]:
    """(1, 3, 12, d) each, of norms from small to large."""
    make = torch.Generator().manual_seed(0)
    shape = (2, 1, 3, 12, coords)
    q, k = (
        torch.randn(shape, dtype=torch.float64, generator=make)
        * torch.linspace(0.1, 3, 12)[:, None]
    )
    return q, k


def squares(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """|q - k|^2 (..., S, L), |q|^2 (..., S, 1), |k|^2 (..., 1, L)."""
    flat = (q[..., :, None, :] - k[..., None, :, :]).square().sum(-1)
    return flat, q.square().sum(-1)[..., None], k.square().sum(-1)[..., None, :]


@pytest.mark.parametrize("beta", [0.01, 1.0, 50.0])
def test_it_is_the_flat_distance_less_the_difference_of_the_lifts(beta: float) -> None:
    q, k = two_clouds()
    flat, qq, kk = squares(q, k)
    with torch.no_grad():
        found = curved(beta).squared(q, k)
    lift = ((beta + qq).sqrt() - (beta + kk).sqrt()).square()
    torch.testing.assert_close(found, flat - lift)
    # the definition: -2 beta - 2 <q, k> with the lift as the negative coordinate
    inner = q @ k.mT - (beta + qq).sqrt() * (beta + kk).sqrt()
    torch.testing.assert_close(found, -2 * beta - 2 * inner)
    assert bool((found <= flat + 1e-12).all())
    assert bool((found >= flat - (qq.sqrt() - kk.sqrt()).square() - 1e-12).all())


def test_points_of_one_norm_see_no_curvature() -> None:
    q, k = (2 * z / z.norm(dim=-1, keepdim=True) for z in two_clouds())
    with torch.no_grad():
        torch.testing.assert_close(curved(0.3).squared(q, k), squares(q, k)[0])


def test_a_model_of_one_head_is_flat_whatever_its_beta() -> None:
    """The norm runs over all heads of a token together, so one head's points lie on a sphere."""
    tokens = torch.arange(24).view(2, 12)
    for heads, same in ((1, True), (2, False)):
        torch.manual_seed(0)
        model = Model(config(kernel="lorentz", heads=heads)).double()
        with torch.no_grad():
            for p in model.parameters():
                p += 0.1 * torch.randn_like(p)
            before = model(tokens)
            for name, p in model.named_parameters():
                if name.endswith("log_beta"):
                    p.fill_(math.log(0.01))
            after = model(tokens)
        assert torch.allclose(before, after, atol=1e-5) is same


def test_the_flat_limit_is_reached_at_the_rate_of_one_over_beta() -> None:
    q, k = two_clouds()
    flat, qq, kk = squares(q, k)
    limit = (qq - kk).square() / 4
    for beta in (1e4, 1e6):
        with torch.no_grad():
            gap = flat - curved(beta).squared(q, k)
        assert bool((gap * beta <= limit + 1e-6).all())
        torch.testing.assert_close(gap * beta, limit, rtol=0.01, atol=1e-6)


def test_the_square_is_no_metric_and_the_length_is_one() -> None:
    """Three points on a geodesic: through the middle the way is as long by `length`, shorter by
    the root of d_L^2."""
    kernel = curved(1.0)
    at = torch.zeros(1, 3, 3, 4, dtype=torch.float64)
    at[..., 0] = torch.sinh(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
    with torch.no_grad():
        squared = kernel.squared(at, at)
        way, root = kernel.length(squared)[0, 0], squared.sqrt()[0, 0]
    assert way[0, 1] + way[1, 2] == pytest.approx(way[0, 2].item(), abs=1e-9)
    assert way[0, 2].item() == pytest.approx(2.0, abs=1e-9)
    assert root[0, 1] + root[1, 2] < root[0, 2] - 0.2


def tree(depth: int, step: float) -> tuple[Tensor, Tensor]:
    """Sarkar's embedding of a tree of degree 3 in the hyperbolic plane of curvature -1: points
    (N, 2) and distances along the tree in edges (N, N)."""

    def turn(angle: float) -> Tensor:
        c, s = math.cos(angle), math.sin(angle)
        return torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)

    c, s = math.cosh(step), math.sinh(step)
    forward = torch.tensor([[c, s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
    frames, parents, level = [torch.eye(3, dtype=torch.float64)], [-1], [0]
    for generation in range(depth):
        angles = [0, 2 * math.pi / 3, -2 * math.pi / 3] if generation == 0 else None
        level_after = []
        for node in level:
            for angle in angles or [math.pi / 3, -math.pi / 3]:
                frames.append(frames[node] @ turn(angle) @ forward)
                parents.append(node)
                level_after.append(len(frames) - 1)
        level = level_after
    edges = torch.full((len(frames), len(frames)), math.inf, dtype=torch.float64)
    edges.fill_diagonal_(0)
    for node in range(1, len(frames)):
        edges[node, :node] = edges[:node, node] = edges[parents[node], :node] + 1
    return torch.stack([frame[1:, 0] for frame in frames]), edges


def test_a_tree_fits_the_hyperbolic_plane_and_no_flat_one() -> None:
    kernel, stretch = curved(1.0), []
    for step in (0.5, 1.0, 2.0, 3.0):
        points, edges = tree(5, step)
        z = points.expand(1, 3, -1, -1)
        with torch.no_grad():
            way = kernel.length(kernel.squared(z, z))[0, 0]
        ratio = way[edges > 0] / edges[edges > 0]
        stretch.append((ratio.max() / ratio.min()).item())
    assert stretch == sorted(stretch, reverse=True)
    assert stretch[-1] < 1.12
    # packing: disjoint balls of radius 1 around 3 * 2^(h - 1) leaves, all within D h of the root
    depth, leaves = 5, 3 * 2**4
    assert (leaves ** (1 / 2) - 1) / depth > stretch[-1]


def test_the_norm_bounds_the_radius_that_a_tree_can_use() -> None:
    torch.manual_seed(0)
    model = Model(config(kernel="lorentz", heads=2)).double()
    from holo_cli.models.ngt.diagnostics import gravity_mixers, snapshots

    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
        layers = snapshots(model, torch.arange(24).view(2, 12))
    for layer, mixer in zip(layers, gravity_mixers(model), strict=True):
        assert isinstance(mixer.kernel, Lorentz)
        norm = layer.particles.k.norm(dim=-1)
        assert norm.max().item() <= math.sqrt(mixer.heads * mixer.coords) * (1 + 1e-6)
