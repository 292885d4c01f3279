"""Pondering: tokens stop by themselves, stopping saves work, harder tokens take more steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.models.brain_v2.ponder import Ponder
from holo_cli.models.views import watched
from tests.models.brain_v2.parts import awake, config, model, tokens


def part(**given: object) -> Ponder:
    torch.manual_seed(0)
    made = Ponder(config(**{"ponder": 5, "ponder_rest": 0.1, **given}))
    made.finish_initialisation()
    awake(made)
    with torch.no_grad():
        made.halt.weight.normal_(std=0.8)
    return made.double()


def pondered_alone(ponder: Ponder, u: Tensor) -> tuple[Tensor, Tensor, int]:
    """One token (C,) by the formulas: what to add, the divergence, the steps."""
    z, left, out, steps = u, 1.0, torch.zeros_like(u), []
    for n in range(1, ponder.most + 1):
        z = z + ponder.mlp(F.rms_norm(z, (16,), eps=1e-6))[0]
        h = torch.sigmoid(ponder.halt(F.rms_norm(z, (16,), eps=1e-6)) + ponder.halt_bias)[0]
        p = left * h
        if n == ponder.most or left - p <= ponder.rest:
            p = left * torch.ones_like(h)
        steps.append(p)
        out = out + p * (z - u)
        left = left - p
        if left <= 0:
            break
    prior = [ponder.prior * (1 - ponder.prior) ** n for n in range(len(steps) - 1)]
    prior.append((1 - ponder.prior) ** (len(steps) - 1))
    divergence = sum(p * (p / q).log() for p, q in zip(steps, prior, strict=True))
    return out, torch.as_tensor(divergence), len(steps)


def test_a_batch_of_tokens_equals_each_token_alone() -> None:
    ponder = part()
    u = torch.randn(40, 16, dtype=torch.float64)
    result = ponder.ponder(u)
    assert result.steps.unique().numel() > 2  # they do differ
    for i in range(40):
        out, divergence, steps = pondered_alone(ponder, u[i])
        torch.testing.assert_close(result.out[i], out)
        torch.testing.assert_close(result.divergence[i], divergence)
        assert result.steps[i] == steps


def test_at_the_start_halting_is_its_prior() -> None:
    ponder = Ponder(config(ponder=16, ponder_prior=0.3, ponder_rest=0.0))
    ponder.finish_initialisation()
    result = ponder.ponder(torch.randn(10, 16))
    torch.testing.assert_close(result.divergence, torch.zeros(10), rtol=0, atol=1e-6)
    tail = sum(0.7**n for n in range(16))  # the mean of a geometric distribution cut at 16
    torch.testing.assert_close(result.mean, torch.full((10,), tail), rtol=1e-4, atol=0)


def test_the_divergence_is_zero_only_at_the_prior() -> None:
    """Or for a token that stops at once: its prior for ending then is 1, the tail included."""
    ponder = part()
    result = ponder.ponder(torch.randn(50, 16, dtype=torch.float64))
    assert (result.divergence[result.steps > 1] > 0).all()
    assert (result.divergence[result.steps == 1] == 0).all()


def test_stopped_tokens_leave_the_batch() -> None:
    """Rows that go through the MLP are the steps taken, not steps times tokens."""
    ponder = part()
    u = torch.randn(60, 16, dtype=torch.float64)
    with watched([ponder.mlp.up]) as calls:
        result = ponder.ponder(u)
    worked = [given.shape[0] for given, _ in calls]
    assert sum(worked) == result.steps.sum()
    assert worked == sorted(worked, reverse=True)
    assert worked[-1] < worked[0]


def test_decoding_stops_early() -> None:
    made = model(ponder=6, ponder_rest=0.2, attention_every=0)
    for block in made.layers():
        with torch.no_grad():
            block.mlp.halt_bias.fill_(5.0)  # sure after the first step
    with watched([b.mlp.mlp.up for b in made.layers()]) as calls, torch.no_grad():
        made.step(tokens(1, 1), made.init_state(1))
    assert len(calls) == 2  # one step in each of two layers


def test_one_step_is_enough_when_the_first_is_certain() -> None:
    ponder = part()
    with torch.no_grad():
        ponder.halt.weight.zero_()
        ponder.halt_bias.fill_(8.0)
    u = torch.randn(5, 16, dtype=torch.float64)
    result = ponder.ponder(u)
    assert result.steps.tolist() == [1] * 5
    torch.testing.assert_close(result.out, ponder.mlp(F.rms_norm(u, (16,), eps=1e-6))[0])


@pytest.mark.parametrize("rest", [0.0, 0.05, 0.3])
def test_expected_steps_are_those_at_the_prior(rest: float) -> None:
    ponder = Ponder(config(ponder=9, ponder_rest=rest, ponder_prior=0.4))
    ponder.finish_initialisation()
    steps = ponder.ponder(torch.randn(3, 16)).steps
    assert steps.tolist() == [ponder.expected_steps()] * 3


def test_steps_rise_with_difficulty() -> None:
    """A token is (value, k), the answer is the value turned k times by a fixed permutation: k = 0
    needs one step, and each step of a narrow MLP can turn it once more."""
    torch.manual_seed(0)
    values, turns, width = 24, 3, 32
    wheel = torch.randperm(values)
    answer = torch.arange(values).repeat(turns, 1)  # [k, value]
    for k in range(1, turns):
        answer[k] = wheel[answer[k - 1]]
    ponder = Ponder(
        config(
            width=width, mlp_ratio=0.5, ponder=5, ponder_prior=0.6, ponder_weight=0.01,
            ponder_rest=0.02,
        )
    )  # fmt: skip
    ponder.finish_initialisation()
    names, levels = torch.randn(values, width), torch.randn(turns, width)
    k = torch.arange(turns).repeat_interleave(values)
    value = torch.arange(values).repeat(turns)
    u = F.rms_norm(names[value] + levels[k], (width,))
    optimizer = torch.optim.AdamW(ponder.parameters(), lr=0.01)
    for _ in range(300):
        added, aux = ponder(u[None])
        loss = F.cross_entropy((u + added[0]) @ names.T / 2, answer[k, value])
        (loss + aux["ponder"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.1
    with torch.no_grad():
        result = ponder.ponder(u)
    for steps in (result.mean, result.steps.float()):
        by_turns = [steps[k == i].mean().item() for i in range(turns)]
        assert by_turns == sorted(by_turns)
        assert by_turns[-1] > 1.1 * by_turns[0]
