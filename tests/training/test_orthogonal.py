"""Both forms of orthogonalisation against the singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.orthogonal import polynomials
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.training.optim import Muon
from holo_cli.training.orthogonal import (
    BLOCK,
    THREE_STEPS,
    orthogonalise,
    polar_factor,
    symmetric_product,
)


def gains(x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """What became of each singular value of x, and the largest part of y in other directions."""
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    inner = u.mT @ y.to(x.dtype) @ vt.mT
    own = inner.diagonal(dim1=1, dim2=2)
    return own, float((inner - torch.diag_embed(own)).abs().max())


@pytest.mark.parametrize("steps", [3, 5])
@pytest.mark.parametrize("columns", [12, 20, 40])  # from 24 on three steps take another path
def test_directions_stay_and_singular_values_become_level(steps: int, columns: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 12, columns, dtype=torch.float64)
    own, off = gains(x, orthogonalise(x, steps, torch.float64))
    assert off < 1e-8
    assert own.max() < 1.25
    assert own.min() > (0.3 if columns == 12 else 0.6)  # a square one has some near zero


def test_three_steps_reach_a_hundredth_of_the_largest() -> None:
    torch.manual_seed(0)
    values = torch.logspace(0, -1.8, 16, dtype=torch.float64)
    for columns in (16, 64):
        u = torch.linalg.qr(torch.randn(2, 16, 16, dtype=torch.float64))[0]
        v = torch.linalg.qr(torch.randn(2, columns, 16, dtype=torch.float64))[0]
        x = (u * values) @ v.mT
        own, _ = gains(x, orthogonalise(7.0 * x, 3, torch.float64))
        assert own.min() > 0.6
        assert own.max() < 1.16


@pytest.mark.parametrize("columns", [32, 128])
def test_bfloat16_stays_near_the_polar_factor(columns: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 32, columns) * torch.logspace(0, -1, 32)[:, None]
    y = orthogonalise(x, 3, torch.bfloat16).float()
    assert torch.cosine_similarity(y.flatten(1), polar_factor(x).flatten(1)).min() > 0.95


@pytest.mark.parametrize("rows", [2 * BLOCK, 3 * BLOCK, 3 * BLOCK + 17])
def test_symmetric_products_in_blocks_are_the_whole_products(rows: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, rows, rows + 40) / (rows + 40) ** 0.5
    gram = symmetric_product(x, x.mT)
    torch.testing.assert_close(gram, x @ x.mT, rtol=1e-5, atol=1e-5)
    poly = 2 * gram + gram @ gram
    product = symmetric_product(poly, gram)
    torch.testing.assert_close(product, poly @ gram, rtol=1e-4, atol=1e-4)
    if rows >= 3 * BLOCK:  # above the diagonal blocks everything is a copy
        assert torch.equal(product[:, :BLOCK, BLOCK:], product[:, BLOCK:, :BLOCK].mT)


@pytest.mark.parametrize("columns", [3 * BLOCK, 6 * BLOCK])
def test_large_matrices_come_out_as_in_double_precision(columns: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3 * BLOCK, columns)
    exact = orthogonalise(x, 3, torch.float64)
    torch.testing.assert_close(orthogonalise(x, 3).double(), exact, rtol=0, atol=1e-5)


def test_nothing_and_one_direction() -> None:
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 9), 3), torch.zeros(1, 4, 9))
    one = torch.outer(torch.ones(4), torch.ones(9)).unsqueeze(0)
    y = orthogonalise(one, 3)
    assert torch.linalg.matrix_norm(y, 2).item() == pytest.approx(0.9, abs=0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [8, 32])
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e-16, 1e-15, 1e-14, 1e-12, 1e-9, 1e-6, 1e20])
def test_no_size_of_a_gradient_is_too_small_or_too_large(
    size: float, columns: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    one = torch.randn(3, 8, 1) * torch.randn(3, 1, columns)  # of rank 1: nothing else to measure by
    y = orthogonalise(size * torch.cat((one, torch.randn(3, 8, columns))), 3, dtype)
    assert y.isfinite().all()
    assert torch.linalg.matrix_norm(y.float(), 2).max() < 1.3
    mixed = torch.cat((size * torch.randn(1, 8, columns), torch.randn(1, 8, columns)))
    assert orthogonalise(mixed, 3, dtype)[1].norm() > 1


def test_the_polynomials_are_the_computed_ones() -> None:
    for stored, computed in zip(THREE_STEPS, polynomials(), strict=True):
        assert stored == pytest.approx(computed, abs=1e-5)


def test_heads_are_matrices_of_their_own() -> None:
    torch.manual_seed(0)
    fused = nn.Parameter(torch.randn(24, 8))
    fused.splits, fused.heads = 3, 2  # type: ignore[attr-defined]
    parts = [nn.Parameter(part.clone()) for part in fused.detach().chunk(6)]
    fused.grad = torch.randn(24, 8)
    for part, grad in zip(parts, fused.grad.chunk(6), strict=True):
        part.grad = grad.clone()
    whole = nn.Parameter(fused.detach().clone())
    whole.grad = fused.grad.clone()
    Muon([fused], lr=0.1, steps=3, by_head=True).step()
    Muon(parts, lr=0.1, steps=3).step()
    Muon([whole], lr=0.1, steps=3).step()
    torch.testing.assert_close(fused.detach(), torch.cat([p.detach() for p in parts]))
    assert not torch.allclose(fused.detach(), whole.detach(), atol=1e-3)


def test_a_run_stored_before_goes_on_as_it_began() -> None:
    run = resolve("vanilla")
    assert (run.training.muon_steps, run.training.muon_heads) == (3, True)
    stored = run.to_dict()
    for key in ("muon_steps", "muon_heads"):
        del stored["config"]["training"][key]
    back = Resolved.from_dict(stored).training
    assert (back.muon_steps, back.muon_heads) == (5, False)
