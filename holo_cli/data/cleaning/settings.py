"""The settings of `--filter`.

    none | default | strict | rule=value,...     default,near=off,ko.max_mean_word=7

An optional preset (`default`) is followed by changes to it. Names are those of `CleaningSettings`
and those of `Thresholds`, the latter optionally with a language code and a dot before them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from holo_cli.data.cleaning.thresholds import Thresholds, limits, thresholds_of
from holo_cli.errors import DataError, UsageError, nearest
from holo_cli.names import existing

PRESETS = ("none", "default", "strict")
_SWITCH = {"on": True, "off": False}
_SCOPED = re.compile(r"(?:([a-z]{2,3})\.)?([a-z0-9_]+)")


@dataclass(frozen=True)
class CleaningSettings:
    """The filters that are on. Immutable.

    `near`: Jaccard similarity from which on documents are near duplicates; 0 is off. `reference`: a
    text file for a character n-gram model, "" for none; documents with more than `perplexity` times
    the bits per character of held-out reference text are dropped. `education`: the lowest
    educational value, from 0 to 5; 0 is off. `changed`: (language or "", threshold, value).
    """

    preset: str = "default"
    rules: bool = True
    exact: bool = True
    near: float = 0.8
    reference: str = ""
    reference_sha256: str = ""
    perplexity: float = 3.0
    education: float = 0.0
    changed: tuple[tuple[str, str, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> CleaningSettings:
        """Parse the value of `--filter`. UsageError names the invalid part."""
        parts = [part.strip() for part in text.split(",") if part.strip()]
        preset = parts.pop(0) if parts and "=" not in parts[0] else "default"
        settings = cls.of(preset)
        for part in parts:
            key, equals, value = part.partition("=")
            if not equals:
                raise UsageError(
                    f"--filter: '{part}' is not of the form rule=value.",
                    next_step="For example: --filter default,near=off.",
                )
            settings = settings._with(key.strip(), value.strip())
        return settings

    @classmethod
    def of(cls, preset: str) -> CleaningSettings:
        """One of `PRESETS`."""
        if preset == "none":
            return cls(preset, rules=False, exact=False, near=0.0)
        if preset == "strict":
            return cls(preset, near=0.7)
        if preset == "default":
            return cls(preset)
        raise UsageError(
            f"--filter: there is no preset '{preset}'.", next_step=nearest(preset, PRESETS)
        )

    @property
    def active(self) -> bool:
        """Whether any filter is on."""
        return bool(self.rules or self.exact or self.near or self.reference or self.education)

    @property
    def duplicates(self) -> bool:
        """Whether documents are compared with each other."""
        return self.exact or self.near > 0

    def thresholds(self, language: str) -> Thresholds:
        """The limits of a language with the changes; changes for the language take precedence."""
        found = thresholds_of(language, strict=self.preset == "strict")
        changes = {key: value for code, key, value in self.changed if not code}
        changes |= {key: value for code, key, value in self.changed if code == language}
        values: dict[str, Any] = {key: limits()[key](value) for key, value in changes.items()}
        return replace(found, **values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that determines the result; the reference is represented by its sha256."""
        found = dataclasses.asdict(self)
        del found["reference"]
        found["changed"] = {
            f"{code}.{key}" if code else key: value for code, key, value in self.changed
        }
        return found

    def _with(self, key: str, value: str) -> CleaningSettings:
        if key in ("rules", "exact"):
            if value not in _SWITCH:
                raise UsageError(
                    f"--filter: {key} must be on or off, not '{value}'.",
                    next_step=f"For example: --filter {key}=off.",
                )
            return self._replaced(key, _SWITCH[value])
        if key == "reference":
            return replace(self, reference=value, reference_sha256=_content(value))
        if key in ("near", "education", "perplexity"):
            number = 0.0 if value == "off" and key != "perplexity" else _number(key, value)
            highest = {"near": 1.0, "education": 5.0, "perplexity": math.inf}[key]
            if number > highest:
                raise UsageError(
                    f"--filter: {key}={value} is above {highest:g}.",
                    next_step=f"Use a number from 0 to {highest:g}.",
                )
            return self._replaced(key, number)
        scoped = _SCOPED.fullmatch(key)
        if scoped is None or scoped[2] not in limits():
            known = ["rules", "exact", "near", "reference", "perplexity", "education", *limits()]
            raise UsageError(
                f"--filter: there is no rule '{key}'.",
                next_step=nearest(key.rpartition(".")[2], known),
            )
        changed = {(code, name): number for code, name, number in self.changed}
        changed[scoped[1] or "", scoped[2]] = _number(key, value)
        return self._replaced("changed", tuple(sorted((*at, n) for at, n in changed.items())))

    def _replaced(self, key: str, value: Any) -> CleaningSettings:
        return replace(self, **{key: value})


def _number(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise UsageError(
            f"--filter: {key} must be a number of at least 0, not '{value}'.",
            next_step=f"For example: --filter {key}=0.5.",
        )
    return number


def _content(reference: str) -> str:
    """The sha256 of a reference file."""
    try:
        data = existing(reference).read_bytes()
    except OSError as error:
        raise DataError(
            f"The reference text {reference} cannot be read: {error.strerror or error}.",
            next_step="--filter reference=FILE needs a file with text of the kind you want.",
        ) from error
    return hashlib.sha256(data).hexdigest()
