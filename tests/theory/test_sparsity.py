"""docs/theory.md, section 8: k winners."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch

from holo_cli.models.brain_v1.config import Config
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
