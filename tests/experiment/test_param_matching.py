"""Equal sizes: found within the tolerance, for every model there is, or refused by name."""

from __future__ import annotations

import pytest

from holo_cli import registry
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.errors import UsageError
from holo_cli.experiment.param_matching import count_parameters, match_size

SHAPE = {"model.layers": 2, "model.heads": 2, "model.width": 64, "model.context": 32}


def small(model: str, **changes: object) -> Resolved:
    return resolve(model, flags=SHAPE | {"model.vocab_size": 100} | changes, env={})


@pytest.mark.parametrize("model", registry.model_names())
@pytest.mark.parametrize("target", [250_000, 600_000])
def test_every_model_meets_a_size(model: str, target: int) -> None:
    found = match_size(small(model), 100, target)
    assert abs(count_parameters(found, 100, "parameters") - target) <= 0.02 * target
    # the width does most of it: the MLP keeps about its share
    assert found.model.mlp_ratio == pytest.approx(small(model).model.mlp_ratio, rel=0.35)
    assert found.model.layers == 2
    assert found.model.heads == 2


def test_what_fits_is_left_alone() -> None:
    config = small("vanilla")
    assert match_size(config, 100, count_parameters(config, 100, "parameters")) is config


def test_active_parameters_are_another_size() -> None:
    config = small("holographic", **{"model.experts": 4})
    found = match_size(config, 100, 80_000, "active")
    assert abs(count_parameters(found, 100, "active") - 80_000) <= 1600
    assert count_parameters(found, 100, "parameters") > 100_000


def test_only_what_may_vary_varies() -> None:
    found = match_size(small("vanilla"), 100, 150_000, vary=("model.mlp_ratio",))
    assert found.model.width == 64
    assert found.model.mlp_ratio > 4
    assert found.provenance["model.mlp_ratio"] == "matched"


def test_a_size_that_cannot_be_met_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"vanilla cannot have 1,000 parameters .* nearest") as e:
        match_size(small("vanilla"), 100, 1000)
    assert e.value.next_step
    with pytest.raises(UsageError, match=r"not by model\.layers"):
        match_size(small("vanilla"), 100, 150_000, vary=("model.layers",))
