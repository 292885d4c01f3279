"""docs/theory.md, section 8: k winners, and what divisive normalisation bounds."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch

from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.inhibition import TINY, Inhibition
from holo_cli.models.brain_v1.kwta import KWTA


def kwta(**given: object) -> KWTA:
    torch.manual_seed(0)
    shape = {"vocab_size": 29, "layers": 1, "heads": 2, "width": 64, "mlp_ratio": 30.0}
    config = Config.model_validate({**shape, "sparsity": "kwta", **given})
    return KWTA(config, 0).double().eval()


def gaussian(rows: int, width: int) -> torch.Tensor:
    make = torch.Generator().manual_seed(0)
    return torch.randn(rows, width, dtype=torch.float64, generator=make)


@pytest.mark.parametrize("activity", [0.05, 0.25, 0.8])
def test_as_many_units_fire_as_win_and_are_above_zero(activity: float) -> None:
    part = kwta(activity=activity)
    x = gaussian(50, 64)
    with torch.no_grad():
        sent, could = part.unit_outputs(x)
        above = (part.up(x) > 0).sum(1)
    k = round(activity * part.units)
    assert part.k == k
    assert could.sum(1).unique().tolist() == [k]
    assert torch.equal((sent > 0).sum(1), above.clamp_max(k))


@pytest.mark.parametrize("activity", [0.02, 0.05, 0.2])
def test_few_winners_hold_most_of_the_energy_of_gaussian_units(activity: float) -> None:
    part, dense = kwta(activity=activity), kwta(sparsity="dense")
    dense.load_state_dict({k: v for k, v in part.state_dict().items() if "bias" not in k})
    x = gaussian(100, 64)
    with torch.no_grad():
        kept = part.unit_outputs(x)[0].square().sum() / dense.unit_outputs(x)[0].square().sum()
    normal = NormalDist()
    z = normal.inv_cdf(1 - activity)
    law = (normal.pdf(z) * (z**3 + 3 * z) + 3 * (1 - normal.cdf(z))) / 1.5
    assert kept.item() == pytest.approx(law, abs=0.02)


def inhibition(columns: int = 12) -> Inhibition:
    part = Inhibition(columns).double()
    with torch.no_grad():
        part.raw.add_(gaussian(columns, columns))
    return part


def test_the_factor_of_inhibition_is_bounded_and_what_a_column_sends_is_not() -> None:
    part = inhibition()
    own = part.weights().diagonal()
    bound = (1 / own).clamp_min(1).sqrt()
    with torch.no_grad():
        for scale in (1e-9, 1.0, 1e9):
            energy = scale * gaussian(40, 12).square()
            factor = part(energy)
            assert bool((factor <= bound + 1e-9).all())
            # of the energy sent, at most a / w: linear in the input's, and no ceiling
            assert bool((energy * factor.square() <= (energy + TINY) * bound.square()).all())
        loud = 1e9 * gaussian(40, 12).square()
        sent, twice = loud * part(loud).square(), 2 * loud * part(2 * loud).square()
    torch.testing.assert_close(twice, 2 * sent, rtol=1e-5, atol=0.0)


def test_the_response_to_contrast_is_bounded_in_sum() -> None:
    """sum_c w_cc f_c^2 <= number of columns; with all weights equal w it is at most 1 / w."""
    part = Inhibition(12).double()
    with torch.no_grad():
        part.raw.fill_(math.log(math.expm1(0.5)))
        for scale in (1.0, 1e6):
            factor = part(scale * gaussian(40, 12).square() + TINY)
            # + TINY of each column's own
            assert bool((factor.square().sum(1) <= (1 + 1e-3) / 0.5).all())


def test_more_energy_elsewhere_never_raises_a_factor() -> None:
    part = inhibition()
    energy = gaussian(40, 12).square()
    louder = energy.clone()
    louder[:, 5] += 3.0
    with torch.no_grad():
        before, after = part(energy), part(louder)
    others = [c for c in range(12) if c != 5]
    assert bool((after[:, others] < before[:, others]).all())
