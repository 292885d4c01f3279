"""Matches models in size: searches the width, then the MLP's hidden units, that meet a target.

Parameters are counted by building the model on the meta device, without memory for its weights. The
width changes in steps that keep a head's size a multiple of 4, which is coarse for small models;
the MLP's hidden units close the rest. A width or number of units that the model's config rejects is
skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from holo_cli import registry
from holo_cli.config.resolve import Resolved
from holo_cli.errors import UsageError
from holo_cli.models.base import Description
from holo_cli.training.capacity import shapes

HEAD_STEP = 4  # a head's size is a multiple of it
UNITS = 8  # hidden units are a multiple of it
REACH, NEAREST = 40, 4  # how far around a goal to search, and how many candidates to try
MEASURES = {"parameters": "parameters", "active": "active_parameters"}
VARY = ("model.width", "model.mlp_ratio")
MOST_DESCRIBED = 2000

# A search tries the same sizes again for another entry, and so does each report on a plan.
_described: dict[tuple[object, object, str], Description] = {}


def describe(resolved: Resolved, vocab_size: int) -> Description:
    """Parameters, FLOPs and state of this config with this vocabulary, without creating weights."""
    shape = resolved.model.model_copy(update={"vocab_size": vocab_size})
    # a file's model may be another one by the same name, after it was edited
    key = (registry.model_class(resolved.model_name), type(shape), shape.model_dump_json())
    if key not in _described:
        if len(_described) >= MOST_DESCRIBED:
            _described.clear()
        _described[key] = shapes(resolved.model_name, shape).describe()
    return _described[key]


def count_parameters(resolved: Resolved, vocab_size: int, measure: str) -> int:
    """`measure` is "parameters" or "active"."""
    return int(getattr(describe(resolved, vocab_size), MEASURES[measure]))


def match_size(
    resolved: Resolved,
    vocab_size: int,
    target: int,
    measure: str = "parameters",
    *,
    vary: Sequence[str] = VARY,
    tolerance: float = 0.02,
) -> Resolved:
    """The config with width and mlp_ratio changed so that its size is `target` within `tolerance`.

    A config of that size is returned as it is. `vary` may name only one of the two keys. Raises
    UsageError, naming the nearest size that was found, where the target cannot be met.
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
    # a model whose units form columns may meet the size only at a neighbouring width
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
            f"{count_parameters(best, vocab_size, measure):,}.",
            next_step='Change its layers or heads, a larger tolerance, or match = "none" for it.',
        )
    return best


def _name(measure: str) -> str:
    return MEASURES[measure].replace("_", " ")


def _miss(resolved: Resolved, vocab_size: int, target: int, measure: str) -> float:
    return abs(count_parameters(resolved, vocab_size, measure) - target) / target


def _changed(resolved: Resolved, key: str, value: float) -> Resolved | None:
    """With one key changed; None where the model's config rejects the value."""
    try:
        return resolved.replace({key: value}, source="matched")
    except UsageError:
        return None


def _by_width(resolved: Resolved, vocab_size: int, target: int, measure: str) -> list[Resolved]:
    """Step from the given width towards the target and a little beyond it; returns the NEAREST
    configs on the way, best first."""
    step = resolved.model.heads * HEAD_STEP
    found = [(_miss(resolved, vocab_size, target, measure), 0, resolved)]
    grow = count_parameters(resolved, vocab_size, measure) < target
    below, above = (resolved.model.width - 1) // step, resolved.model.width // step + 1
    width = step * (above if grow else below)
    if grow and target > 8 * (here := count_parameters(resolved, vocab_size, measure)):
        # parameters grow by the square of the width at most: most of the way in one step
        width = max(width, int(0.8 * resolved.model.width * (target / here) ** 0.5) // step * step)
    past = 0
    while width >= step and past < NEAREST // 2:
        candidate = _changed(resolved, "model.width", width)
        if candidate is not None:
            size = count_parameters(candidate, vocab_size, measure)
            found.append((abs(size - target) / target, len(found), candidate))
            past += (size >= target) == grow
        width += step if grow else -step
    return [candidate for _, _, candidate in sorted(found)[:NEAREST]]


def _by_units(
    resolved: Resolved, vocab_size: int, target: int, measure: str
) -> tuple[Resolved, float]:
    """Hidden units by a straight line through two counts, then the nearest that the model
    accepts."""
    width = resolved.model.width
    units = resolved.model.mlp_ratio * width
    here = count_parameters(resolved, vocab_size, measure)
    best, best_miss = resolved, abs(here - target) / target
    other = _changed(resolved, "model.mlp_ratio", 2 * resolved.model.mlp_ratio)
    slope = (count_parameters(other, vocab_size, measure) - here) / units if other else 0.0
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
