"""Unlikelihood against loops over positions and tokens, and its gradients against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from holo_cli.data.batches import IGNORE
from holo_cli.layers import cross_entropy as chunks
from holo_cli.layers.head import Head
from holo_cli.layers.unlikelihood import Unlikelihood, candidates
from holo_cli.training.loss import cross_entropy, penalized_loss

V, END = 11, 10


def slow_candidates(row: list[int], t: int, span: int, end: int | None) -> set[int]:
    """The words of the definition, one after the other."""
    text = row[: t + 1]
    if end in text:
        text = text[len(text) - text[::-1].index(end) :]
    spans = {tuple(text[i : i + span]) for i in range(len(text) - span + 1)}
    begun = tuple(text[len(text) - span + 1 :])
    if len(begun) < span - 1:
        return set()
    return {c for c in range(V) if (*begun, c) in spans}


def slow_loss(
    x: Tensor, head: Head, tokens: Tensor, target: Tensor, weight: float, span: int, end: int | None
) -> Tensor:
    total, scored = x.new_zeros(()), 0
    p = head(x).softmax(-1)
    for b, row in enumerate(tokens.tolist()):
        for t in range(len(row)):
            right = int(target[b, t])
            if right == IGNORE:
                continue
            scored += 1
            total = total - p[b, t, right].log()
            for c in slow_candidates(row, t, span, end) - {right}:
                total = total - weight * (1 - p[b, t, c]).log()
    return total / scored


def make() -> tuple[Tensor, Head, Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.randn(3, 14, 5, dtype=torch.float64, requires_grad=True)
    head = Head(nn.Parameter(torch.randn(V, 5, dtype=torch.float64)), 4.0)
    tokens = torch.randint(0, 4, (3, 14))  # few, so that spans do repeat
    tokens[1, 6] = tokens[2, 13] = tokens[2, 0] = END
    target = tokens.roll(-1, 1)
    target[0, 2] = target[2, 6] = IGNORE
    return x, head, tokens, target


@pytest.mark.parametrize("span", [1, 2, 3])
@pytest.mark.parametrize("end", [END, None])
def test_candidates(span: int, end: int | None) -> None:
    tokens = make()[2]
    found = candidates(tokens, V, slice(5, 40), span, end)
    for got, n in zip(found, range(5, 40), strict=True):
        row = tokens[n // 14].tolist()
        assert set(got.nonzero().flatten().tolist()) == slow_candidates(row, n % 14, span, end)


@pytest.mark.parametrize("span", [1, 3])
def test_values_and_gradients_equal_the_slow_form(
    span: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, head, tokens, target = make()
    right = slow_loss(x, head, tokens, target, 0.7, span, END)
    expected = torch.autograd.grad(right, (x, head.weight))
    plain = cross_entropy(x, head, target)
    monkeypatch.setitem(chunks.CHUNK, "cpu", 14)
    for rows in (1, 5, 1000):
        monkeypatch.setattr(chunks, "LEAST_ROWS", rows)
        loss = penalized_loss(x, head, target, Unlikelihood(tokens, target, 0.7, span, END))
        torch.testing.assert_close(loss.objective, right)
        torch.testing.assert_close(loss.cross_entropy, plain.detach())
        torch.testing.assert_close(loss.unlikelihood, (right - plain).detach() / 0.7)
        found = torch.autograd.grad(loss.objective, (x, head.weight))
        for got, want in zip(found, expected, strict=True):
            torch.testing.assert_close(got, want)


def test_gradcheck() -> None:
    x, head, tokens, target = make()
    penalty = Unlikelihood(tokens, target, 2.0, 1, END)

    def objective(x: Tensor, w: Tensor) -> Tensor:
        return penalized_loss(x, Head(w, 4.0), target, penalty).objective

    assert torch.autograd.gradcheck(objective, (x, head.weight))


@pytest.mark.parametrize("gap", [5.0, 18.0, 40.0, 300.0])
def test_a_certain_wrong_token_is_still_pushed_down(gap: float) -> None:
    """In float32 1 - p is 0 from a gap of 17 nats on; the loss grows with the gap all the same."""
    tokens, target = torch.tensor([[3]]), torch.tensor([[0]])
    logits = torch.zeros(1, V)
    logits[0, 3] = gap
    nats, grad = Unlikelihood(tokens, target, 1.0)(slice(0, 1), logits.log_softmax(1))
    exact = logits.double().requires_grad_()
    others = [k for k in range(V) if k != 3]
    right = exact.logsumexp(1) - exact[:, others].logsumexp(1)
    (want,) = torch.autograd.grad(right.sum(), exact)
    assert grad[0, 3] == pytest.approx(1.0, abs=0.1)
    if gap < 80:  # beyond, the other probabilities are smaller than float32 holds
        torch.testing.assert_close(grad.double(), want, rtol=1e-5, atol=1e-6)
        assert nats.item() == pytest.approx(right.item(), rel=1e-5)
    assert torch.isfinite(nats).all()
    assert torch.isfinite(grad).all()


def test_bfloat16_products_give_nearly_the_same() -> None:
    x, head, tokens, target = make()
    x, head = x.detach().float(), Head(nn.Parameter(head.weight.detach().float()), 4.0)
    penalty = Unlikelihood(tokens, target, 1.0, 1, END)
    exact = penalized_loss(x, head, target, penalty)
    low = penalized_loss(x.bfloat16(), head, target, penalty, torch.bfloat16)
    assert low.objective.dtype == torch.float32  # sums are wide
    torch.testing.assert_close(low.objective, exact.objective, rtol=0.02, atol=0.02)
