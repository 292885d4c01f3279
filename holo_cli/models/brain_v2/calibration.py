"""Thresholds of selection set on held-out text, and the share that they select counted.

For each language slot of an attention, the smallest part `p` of its tokens that must pass so that
`share` of them are selected (capacity turns some away) is found by a few corrections of p, and the
slot's theta becomes the (1 - p) quantile of its scores. Layers follow each other, since what one
selects changes the scores of the next. Legend: B rows, T positions, C width, L languages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from holo_cli.layers.interfaces import NOTHING, Extras
from holo_cli.models.brain_v2.attention import SelectiveAttention
from holo_cli.models.brain_v2.selection import Selected
from holo_cli.models.views import watched

LEAST = 256  # tokens of a language below which all the text together sets its threshold
ROUNDS = 8  # corrections of the share that must pass


@torch.no_grad()
def calibrate_shifts(
    parts: Sequence[SelectiveAttention], run: Callable[[], object], slots: Tensor | None
) -> None:
    """Set `shift` of the parts, first to last, by the text that `run` passes through the model.

    slots (B, T) int64, the language slot of each of its tokens; None: all are 0.
    """
    for part in parts:
        if part.shift is None or part.share >= 1:
            continue
        part.shift.zero_()
        with watched([part]) as calls:
            run()
        margin = part.margin(calls[0][0])  # (B, T)
        part.shift.copy_(shifts(margin, slots, part.share, len(part.shift)))


def shifts(margin: Tensor, slots: Tensor | None, share: float, count: int) -> Tensor:
    """The (count,) shifts of theta with which `share` of each slot's tokens are selected.

    margin (B, T): s - theta without a shift.
    """
    at = torch.zeros_like(margin, dtype=torch.int64) if slots is None else slots
    sizes = torch.bincount(at.flatten(), minlength=count)
    groups = [margin[at == n] if sizes[n] >= LEAST else margin.flatten() for n in range(count)]
    ordered = [group.sort(descending=True).values for group in groups]
    passing = torch.full((count,), share, dtype=torch.float64)
    best, least = torch.zeros(count, dtype=margin.dtype, device=margin.device), [2.0] * count
    for _ in range(ROUNDS):
        now = torch.stack([_quantile(o, p) for o, p in zip(ordered, passing.tolist(), strict=True)])
        taken = chosen(margin - now[at], share)
        for n in range(count):
            few = sizes[n] < LEAST
            got = (taken if few else taken[at == n]).double().mean().item()
            if abs(got - share) < least[n]:
                best[n], least[n] = now[n], abs(got - share)
            passing[n] = min(1.0, max(passing[n].item() * share / max(got, 1e-3), share / 4))
    return best


def chosen(margin: Tensor, share: float) -> Tensor:
    """(B, T) margins -> which tokens are selected, (B, T) bool."""
    taken = torch.zeros(margin.numel(), dtype=torch.bool, device=margin.device)
    taken[Selected.of(margin > 0, share).flat] = True
    return taken.view_as(margin)


def _quantile(ordered: Tensor, share: float) -> Tensor:
    """A value that `share` of the falling values are above: midway between two of them."""
    count = min(len(ordered) - 1, max(1, round(share * len(ordered))))
    return (ordered[count - 1] + ordered[count]) / 2


class Tally:
    """The tokens that an attention selected, and those it saw, by language slot."""

    def __init__(self, part: SelectiveAttention) -> None:
        self.part = part
        slots = 1 if part.shift is None else len(part.shift)
        self.seen = torch.zeros(slots, dtype=torch.int64, device=part.scorer.device)
        self.taken = torch.zeros_like(self.seen)

    def add(self, u: Tensor, slots: Tensor | None) -> None:
        """u (B, T, C), the part's input; slots (B, T) or None."""
        taken = chosen(self.part.margin(u, slots), self.part.share)
        at = torch.zeros_like(taken, dtype=torch.int64) if slots is None else slots
        self.seen += torch.bincount(at.flatten(), minlength=len(self.seen))
        self.taken += torch.bincount(at[taken], minlength=len(self.seen))

    def shares(self, name: str, languages: Sequence[str]) -> dict[str, float]:
        """The share selected of all tokens, and of each language that there was."""
        seen, taken = self.seen.tolist(), self.taken.tolist()
        if not sum(seen):
            return {}
        found = {name: sum(taken) / sum(seen)}
        for language, of, got in zip(languages, seen[1:], taken[1:], strict=False):
            if of:
                found[f"{name}/{language}"] = got / of
        return found


@contextmanager
def watching(tallies: Iterable[Tally]) -> Iterator[None]:
    """Each forward pass of a tally's part is added to it."""
    with ExitStack() as stack:
        for tally in tallies:

            def hook(
                _: object, given: tuple[Tensor | Extras, ...], __: object, to: Tally = tally
            ) -> None:
                extras = given[1] if len(given) > 1 else NOTHING
                assert isinstance(given[0], Tensor)
                assert isinstance(extras, Extras)
                to.add(given[0], extras.side)

            handle = tally.part.register_forward_hook(hook)
            stack.callback(handle.remove)
        yield
