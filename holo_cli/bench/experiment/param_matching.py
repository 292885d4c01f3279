"""Makes models equally large: the width, then the MLP's hidden units, that meet a target.

Parameters are counted on the meta device, by building the model without memory, so that whatever a
model is made of is counted as it is. Width moves in steps that keep a head's size a multiple of 4,
which is coarse for small models; the rest is closed with the MLP's hidden units. A width or a
number of units that the model's own config refuses is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch

from holo_cli import registry
from holo_cli.config.resolve import Resolved
from holo_cli.errors import UsageError
from holo_cli.models.base import Description

HEAD_STEP = 4  # a head's size stays a multiple of it
UNITS = 8  # hidden units are tried in multiples of it
REACH, NEAREST = 40, 4  # how far around a goal is looked, and how many that fit are tried
MEASURES = {"parameters": "parameters", "active": "active_parameters"}
VARY = ("model.width", "model.mlp_ratio")


def describe(resolved: Resolved, vocab_size: int) -> Description:
    """What this config costs with this vocabulary, without making its weights."""
    shape = resolved.model.model_copy(update={"vocab_size": vocab_size})
    with torch.device("meta"):
        return registry.build_model(resolved.model_name, shape).describe()


def count(resolved: Resolved, vocab_size: int, measure: str) -> int:
    """`measure` is "parameters" or "active"."""
    return int(getattr(describe(resolved, vocab_size), MEASURES[measure]))


def fit(
    resolved: Resolved,
    vocab_size: int,
    target: int,
    measure: str = "parameters",
    *,
    vary: Sequence[str] = VARY,
    tolerance: float = 0.02,
) -> Resolved:
    """The config with width and mlp_ratio changed so that its size is `target` within `tolerance`.

    Nothing is changed where it fits already. `vary` may leave out one of the two. Raises
    UsageError, naming the nearest that was found, where the target cannot be met.
    """
    unknown = set(vary) - set(VARY)
    if unknown or not vary:
        raise UsageError(
            f"A size can be matched by {' and '.join(VARY)}, not by {', '.join(sorted(unknown))}."
        )
    if _miss(resolved, vocab_size, target, measure) <= tolerance:
        return resolved
    candidates = [resolved]
    if "model.width" in vary:
        candidates = _by_width(resolved, vocab_size, target, measure)
    best, best_miss = candidates[0], _miss(candidates[0], vocab_size, target, measure)
    # a model whose units come in columns may meet the size only at a neighbouring width
    for candidate in candidates if "model.mlp_ratio" in vary else []:
        if best_miss <= tolerance / 4:
            break
        found, miss = _by_units(candidate, vocab_size, target, measure)
        if miss < best_miss:
            best, best_miss = found, miss
    if best_miss > tolerance:
        raise UsageError(
            f"{resolved.model_name} cannot have {target:,} {_name(measure)} within "
            f"{tolerance:.0%} by changing {' and '.join(vary)}: the nearest is "
            f"{count(best, vocab_size, measure):,}.",
            next_step='Change its layers or heads, a larger tolerance, or match = "none" for it.',
        )
    return best


def _name(measure: str) -> str:
    return MEASURES[measure].replace("_", " ")


def _miss(resolved: Resolved, vocab_size: int, target: int, measure: str) -> float:
    return abs(count(resolved, vocab_size, measure) - target) / target


def _changed(resolved: Resolved, key: str, value: float) -> Resolved | None:
    """With one key changed; None where the model's config refuses the value."""
    try:
        return resolved.replace({key: value}, source="matched")
    except UsageError:
        return None


def _by_width(resolved: Resolved, vocab_size: int, target: int, measure: str) -> list[Resolved]:
    """Walk from the given width towards the target and a little past it; the NEAREST found on the
    way, best first."""
    step = resolved.model.heads * HEAD_STEP
    found = [(_miss(resolved, vocab_size, target, measure), 0, resolved)]
    grow = count(resolved, vocab_size, measure) < target
    below, above = (resolved.model.width - 1) // step, resolved.model.width // step + 1
    width = step * (above if grow else below)
    past = 0
    while width >= step and past < NEAREST // 2:
        candidate = _changed(resolved, "model.width", width)
        if candidate is not None:
            size = count(candidate, vocab_size, measure)
            found.append((abs(size - target) / target, len(found), candidate))
            past += (size >= target) == grow
        width += step if grow else -step
    return [candidate for _, _, candidate in sorted(found)[:NEAREST]]


def _by_units(
    resolved: Resolved, vocab_size: int, target: int, measure: str
) -> tuple[Resolved, float]:
    """Hidden units by a straight line through two counts, then the nearest that the model takes."""
    width = resolved.model.width
    units = resolved.model.mlp_ratio * width
    here = count(resolved, vocab_size, measure)
    best, best_miss = resolved, abs(here - target) / target
    other = _changed(resolved, "model.mlp_ratio", 2 * resolved.model.mlp_ratio)
    slope = (count(other, vocab_size, measure) - here) / units if other else 0.0
    if slope <= 0:
        return best, best_miss
    wanted = round((units + (target - here) / slope) / UNITS)
    tried = sorted(range(max(1, wanted - REACH), wanted + REACH + 1), key=lambda n: abs(n - wanted))
    fitting = (_changed(resolved, "model.mlp_ratio", n * UNITS / width) for n in tried)
    for candidate in islice((c for c in fitting if c is not None), NEAREST):
        miss = _miss(candidate, vocab_size, target, measure)
        if miss < best_miss:
            best, best_miss = candidate, miss
    return best, best_miss
