"""How a check fails: with a sentence that has the numbers."""

from __future__ import annotations

from torch import Tensor


class CheckFailed(Exception):
    """A model does not do what the contract asks; the message says where and by how much."""


def need(condition: object, message: str) -> None:
    """Raises CheckFailed unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def close(found: Tensor, wanted: Tensor, what: str, atol: float, rtol: float = 0.0) -> float:
    """The largest difference. Raises CheckFailed where one is above atol + rtol |wanted|."""
    need(
        found.shape == wanted.shape,
        f"{what}: shape {tuple(found.shape)}, not {tuple(wanted.shape)}",
    )
    difference = (found - wanted).abs()
    largest = difference.max().item() if difference.numel() else 0.0
    if not (difference <= atol + rtol * wanted.abs()).all():
        limit = f"{atol:g}" + (f" + {rtol:g} of the value" if rtol else "")
        raise CheckFailed(f"{what}: differs by {largest:.2g}, more than {limit}")
    return largest
