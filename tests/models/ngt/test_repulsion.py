"""Repulsion between tokens of a sequence, on a sample of pairs."""

from __future__ import annotations

import pytest
import torch

from holo_cli.models.ngt.model import Model
from holo_cli.models.ngt.repulsion import pair_positions, repulsion
from tests.models.ngt.particles import D, H, config


def test_repulsion_falls_as_points_move_apart() -> None:
    torch.manual_seed(0)
    z, m = torch.randn(2, 15, H, D), torch.rand(2, 15, H)
    losses = [repulsion(scale * z, m, 64).item() for scale in (0.0, 0.1, 0.5, 1.0, 3.0)]
    assert losses == sorted(losses, reverse=True)
    assert -0.01 < losses[0] <= 0
    z.requires_grad_()
    (grad,) = torch.autograd.grad(repulsion(z, m, 64), z)
    assert repulsion(z - 0.5 * grad, m, 64) < repulsion(z, m, 64)


def test_the_gradient_of_repulsion_is_bounded_and_alive_at_collapse() -> None:
    torch.manual_seed(0)
    m = torch.rand(2, 15, H)
    direction = torch.randn(2, 15, H, D)
    norms = []
    for scale in (1e2, 1.0, 0.1, 0.05):
        z = (1 + scale * direction).requires_grad_()
        (grad,) = torch.autograd.grad(repulsion(z, m, 64), z)
        # all points together, mean over heads: at most 2 / sigma (each pair moves two points)
        assert grad.norm(dim=-1).sum() <= 2 / D**0.5 + 1e-5
        norms.append(grad.norm().item())
    assert norms[-1] > 0.5 * norms[1]
    z = torch.ones(2, 15, H, D, requires_grad=True)  # all at one point, exactly
    (grad,) = torch.autograd.grad(repulsion(z, m, 64), z)
    assert grad.isfinite().all()


def test_heavy_pairs_repel_more_and_masses_are_not_moved_by_it() -> None:
    torch.manual_seed(0)
    z = torch.randn(1, 6, 1, D)
    z[0, 4] = z[0, 5]  # the pair that is nearest
    light, heavy = torch.ones(1, 6, 1), torch.ones(1, 6, 1)
    heavy[0, 4:] = 10.0
    assert repulsion(z, heavy, 500) > repulsion(z, light, 500)
    heavy.requires_grad_()
    z.requires_grad_()
    repulsion(z, heavy, 500).backward()
    assert heavy.grad is None


def test_pairs_cover_the_past_evenly() -> None:
    later, earlier = pair_positions(9, 3600, torch.device("cpu"))
    assert (earlier < later).all()
    assert earlier.min() == 0
    counts = torch.bincount(later * 9 + earlier, minlength=81).view(9, 9)
    assert (counts.triu() == 0).all()
    each = counts[torch.ones(9, 9).tril(-1).bool()].double()  # of 36 pairs
    assert each.min() > 0.5 * each.mean()
    assert each.max() < 1.6 * each.mean()


def test_repulsion_is_absent_when_off_and_spread_by_its_interval() -> None:
    tokens = torch.randint(0, 29, (2, 24), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    assert Model(config()).hidden(tokens).aux == {}
    found = {}
    for interval in (1, 4):
        torch.manual_seed(0)
        made = config(lambda_repulsion=0.5, repulsion_interval=interval, repulsion_pairs=4000)
        model = Model(made)
        loss = model.hidden(tokens).aux["repulsion"]
        loss.backward()
        assert model.blocks[0].mixer.move.weight.grad.abs().sum() > 0
        found[interval] = loss.item()
        assert model.hidden(tokens[:, :1]).aux == {}  # no past, no pairs
    # a quarter of the weight, over a quarter of the pairs: nearly a quarter of the loss
    assert found[4] == pytest.approx(found[1] / 4, rel=0.05)


def test_repulsion_spreads_the_coordinates_of_a_model() -> None:
    spreads = []
    for strength in (0.0, 1.0):
        torch.manual_seed(0)
        model = Model(config(lambda_repulsion=strength))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(15):
            tokens = torch.randint(0, 29, (4, 24))
            hidden = model.hidden(tokens)
            (sum(hidden.aux.values(), torch.zeros(())) + 0 * hidden.x.sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
        spreads.append(model.measures(tokens)["layer2/repulsion"])
    assert spreads[1] < spreads[0] - 0.05
