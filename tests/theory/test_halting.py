"""docs/theory.md, section 7: the halting distribution of pondering."""

from __future__ import annotations

import math

import pytest
import torch

from holo_cli.models.brain_v2.ponder import Ponder
from tests.models.brain_v2.parts import awake, config


def ponder(most: int, prior: float, rest: float) -> Ponder:
    torch.manual_seed(0)
    part = Ponder(config(ponder=most, ponder_prior=prior, ponder_rest=rest)).double()
    part.finish_initialisation()
    return part


def constant(most: int, prior: float, halt: float, rest: float = 0.0) -> Ponder:
    """Halts with probability `halt` at every step of every token."""
    part = ponder(most, prior, rest)
    with torch.no_grad():
        part.halt_bias.fill_(math.log(halt / (1 - halt)))
    return part


def tokens(count: int = 30) -> torch.Tensor:
    return torch.randn(count, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rest", [0.0, 0.2])
def test_the_probabilities_of_halting_sum_to_one(rest: float) -> None:
    """With an MLP that moves every step by the same vector, the output counts the mean step."""
    part = ponder(6, 0.4, rest)
    awake(part)
    step = torch.ones(16, dtype=torch.float64)

    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return step.expand_as(x), {}

    part.mlp = Constant()  # type: ignore[assignment]
    with torch.no_grad():
        part.halt.weight.normal_(std=0.8)
        result = part.ponder(tokens())
    assert result.steps.unique().numel() > 1 or rest == 0
    # sum_n p_n (z_n - z_0) = sum_n n p_n; a missing share of probability would lower one of them
    torch.testing.assert_close(result.out, result.mean[:, None] * step)
    assert bool((result.mean >= 1).all())
    assert bool((result.mean <= result.steps).all())


@pytest.mark.parametrize(("most", "halt"), [(1, 0.3), (5, 0.3), (16, 0.7)])
def test_expected_steps_of_a_constant_rate(most: int, halt: float) -> None:
    found = constant(most, 0.5, halt).ponder(tokens()).mean
    expected = (1 - (1 - halt) ** most) / halt
    torch.testing.assert_close(found, torch.full_like(found, expected))


@pytest.mark.parametrize(("most", "halt", "prior"), [(2, 0.3, 0.5), (9, 0.2, 0.6), (9, 0.5, 0.5)])
def test_divergence_from_the_geometric_prior(most: int, halt: float, prior: float) -> None:
    found = constant(most, prior, halt).ponder(tokens()).divergence
    once = halt * math.log(halt / prior) + (1 - halt) * math.log((1 - halt) / (1 - prior))
    expected = once * (1 - (1 - halt) ** (most - 1)) / halt
    torch.testing.assert_close(found, torch.full_like(found, expected))


def test_the_rest_sets_the_steps_taken_and_loses_no_probability() -> None:
    for rest in (0.3, 0.1, 0.03):
        part = constant(16, 0.4, 0.4, rest)
        result = part.ponder(tokens())
        taken = math.ceil(math.log(rest) / math.log(0.6))
        assert result.steps.unique().tolist() == [taken] == [part.expected_steps()]
        expected = (1 - 0.6**taken) / 0.4  # the same as with at most that many steps
        torch.testing.assert_close(result.mean, torch.full_like(result.mean, expected))
        torch.testing.assert_close(result.divergence, torch.zeros_like(result.mean))
