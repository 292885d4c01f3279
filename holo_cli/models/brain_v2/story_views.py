"""What there is to see on brain-v2's pages, in one sentence each, computed from the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holo_cli.models.figures import named
from holo_cli.models.views import See
from holo_cli.wording import counted

if TYPE_CHECKING:
    from torch import Tensor


def taught(
    name: str, before: Tensor, after: Tensor, end: Tensor, beta: Tensor, *, alone: bool
) -> See:
    """Cosines before a token is written, after it and at the end, and its write gate, (T,) each.

    `alone`: no other block has a memory.
    """
    order = beta.argsort(descending=True).tolist()
    which = "the only block with a memory" if alone else "which learns the most from one example"

    def see(labels: Sequence[str]) -> str:
        return (
            f"{name}, {which}, writes {named(labels, order)} most strongly: a token's own key "
            f"gives its value back with a cosine of {float(before.mean()):.2f} before it is "
            f"written, {float(after.mean()):.2f} just after and {float(end.mean()):.2f} at the end."
        )

    return see


def selected_tokens(name: str, margin: Tensor, chosen: Tensor) -> See:
    """Scores above the threshold (T,), and the positions that are selected."""
    order = chosen[margin[chosen].argsort(descending=True)].tolist()

    def see(labels: Sequence[str]) -> str:
        if not order:
            return f"In {name} no token of this text is selected, so attention does nothing."
        return (
            f"In {name} attention selects {counted(len(order), 'token')} of {len(margin)}, first "
            f"of all {named(labels, order)}; the others take no part."
        )

    return see


def pondered(name: str, mean: Tensor) -> See:
    """Mean steps of each token, (T,)."""
    order = mean.argsort(descending=True).tolist()

    def see(labels: Sequence[str]) -> str:
        return (
            f"Tokens differ the most in {name}, which takes {float(mean.mean()):.2f} "
            f"steps on average: {named(labels, order)} ponder longest, "
            f"{named(labels, order[::-1])} shortest."
        )

    return see
