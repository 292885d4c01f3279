"""Features of the path that values take through time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.models.holographic import reference
from holo_cli.models.holographic.topology import init_topology, lagged_cosines, topology
from tests.models.holographic.parts import randn


def features(v: Tensor, window: int = 6) -> Tensor:
    got: Tensor = topology(v, init_topology(v.shape[0], v.shape[2], v.shape[3], window, v))[0]
    return got


def test_topology_is_the_plain_loop_and_goes_on_from_a_state() -> None:
    v = randn(2, 40, 3, 5)
    whole = features(v)
    for row in range(2):
        for h in range(3):
            plain = reference.topology_features(list(v[row, :, h]), 6)
            torch.testing.assert_close(whole[row, :, h], torch.stack(plain))
    past = init_topology(2, 3, 5, 6, v)
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
