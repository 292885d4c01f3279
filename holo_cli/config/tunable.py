"""Ranges that config fields declare for tuning, kept under `json_schema_extra`. Plain data.

    eps: float = Field(0.01, json_schema_extra=tunable(0.01, 1.0, log=True, when={"kernel": ...}))

`holo bench compare --tune` searches them. Sizes that a comparison matches (width, mlp_ratio) have
no range: they follow from the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from holo_cli.errors import UsageError

KEY = "tunable"


def tunable(
    low: float,
    high: float,
    *,
    log: bool = False,
    share: bool = False,
    when: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """A range of numbers, both ends included; `log` searches it evenly on a logarithmic scale.

    With `share` the range is of the key as a share of `training.steps`. `when` names other keys of
    the same config and the values at which this one is read.
    """
    found = {"low": low, "high": high, "log": log, "share": share, "when": _plain(when)}
    return {KEY: found}


def tunable_choices(
    *choices: Any, when: Mapping[str, Sequence[Any]] | None = None
) -> dict[str, Any]:
    """A few values of which one is chosen."""
    return {KEY: {"choices": list(choices), "when": _plain(when)}}


def _plain(when: Mapping[str, Sequence[Any]] | None) -> dict[str, list[Any]]:
    return {key: list(values) for key, values in (when or {}).items()}


@dataclass(frozen=True)
class Range:
    """What a knob may be: `choices`, or numbers from `low` to `high`."""

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    share: bool = False
    whole: bool = False  # whole numbers only

    def contains(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high


def range_of(key: str, field: FieldInfo, config: Mapping[str, Any]) -> Range | None:
    """The declared range of a field, `key` being its dotted name; None without one, or where the
    other values of its `config` leave it without effect.

    Raises UsageError for a range with nothing in it.
    """
    extra = field.json_schema_extra
    declared = extra.get(KEY) if isinstance(extra, dict) else None
    if not isinstance(declared, dict):
        return None
    when: Mapping[str, Sequence[Any]] = declared.get("when") or {}  # type: ignore[assignment]
    if any(config.get(k, values[0]) not in values for k, values in when.items()):
        return None
    if "choices" in declared:
        choices: Sequence[Any] = declared["choices"]  # type: ignore[assignment]
        if not choices:
            raise _empty(key, "no choices")
        return Range(choices=tuple(choices))
    low, high = float(declared["low"]), float(declared["high"])  # type: ignore[arg-type]
    log = bool(declared.get("log"))
    if not low < high or (log and low <= 0):
        raise _empty(key, f"{low:g} to {high:g}" + (", logarithmic" if log else ""))
    share = bool(declared.get("share"))
    return Range((), low, high, log, share, whole=field.annotation is int and not share)


def _empty(key: str, what: str) -> UsageError:
    return UsageError(
        f"{key} declares an empty range to tune in: {what}.",
        next_step="Correct tunable(low, high) in the config class: low below high, both above 0 "
        "for a logarithmic range.",
    )
