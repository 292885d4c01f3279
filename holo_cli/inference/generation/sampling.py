"""The options of sampling, their checks, and the seeds of the draws; `logits.py` has the rules."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from holo_cli.config.training_schema import SEED_RANGE, is_seed
from holo_cli.data.normalize import to_nfc
from holo_cli.errors import UsageError, nearest
from holo_cli.parsing import ParseError, parse_json

MOST = 10**9  # samples of a call
GREEDY_BELOW = 1e-5  # differences of float32 logits are not exact enough for lower temperatures
GREEDY_SPAN_PENALTY = 0.8  # without it most greedy samples end in loops: docs/results/repetition.md
MAX_STOP_BYTES = 1_000_000  # of stop strings typed as JSON


@dataclass(frozen=True)
class SamplingConfig:
    """Sampling options. Values out of range raise UsageError naming the option.

    `temperature` 0 is greedy: always the most likely token; below 1e-5 it counts as 0. `top_k` 0,
    `top_p` 1, `min_p` 0, `repetition_penalty` 1 and `no_repeat_ngram_size` 0 disable the rule. The
    repetition penalty covers the last `repetition_window` tokens, prompt included. `span_penalty` 0
    is off, None the default (see `span_penalty_applied`); else a token that would make a repeated
    span of n tokens longer loses `span_penalty` x 1.75^(n - `span_length`) of its logit, if n is at
    least `span_length`. `seed` None draws a new seed for every call. With `draft_layers` above 0
    the first layers guess up to `draft_tokens` tokens, and all layers check them in one pass
    (`speculation.py`). A stop string ends a sample and is not part of its text.
    """

    max_new_tokens: int = 256
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 256
    no_repeat_ngram_size: int = 0
    span_penalty: float | None = None
    span_length: int = 2
    stop: tuple[str, ...] = ()
    seed: int | None = None
    num_samples: int = 1
    draft_layers: int = 0
    draft_tokens: int = 4

    def __post_init__(self) -> None:
        for name, (fits, words) in _RANGES.items():
            value = getattr(self, name)
            if not fits(value):
                raise UsageError(
                    f"{_flag(name)} must be {words}, not {value!r}.",
                    next_step=_default(name),
                )

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < GREEDY_BELOW

    @property
    def span_penalty_applied(self) -> float:
        """`span_penalty`; by default GREEDY_SPAN_PENALTY for greedy decoding without another rule
        against repetition, else 0. The default counts spans of the sample alone: what the prompt
        or a memory says can be said again, once."""
        if self.span_penalty is not None:
            return self.span_penalty
        other = self.repetition_penalty != 1 or self.no_repeat_ngram_size != 0
        return GREEDY_SPAN_PENALTY if self.is_greedy and not other else 0.0

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SamplingConfig:
        """A config from keyword options. Raises UsageError for an unknown name, with the nearest
        one."""
        return cls().with_options(options)

    def with_options(self, options: Mapping[str, Any]) -> SamplingConfig:
        """A copy with some options replaced. `stop` may be one string or a sequence of them."""
        for name in options:
            _check_name(name)
        values = dict(options)
        if "stop" in values:
            stop = values["stop"]
            stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
            values["stop"] = tuple(to_nfc(s) if isinstance(s, str) else s for s in stops)
        return replace(self, **values)

    def with_text(self, name: str, text: str) -> SamplingConfig:
        """A copy with one option given as typed text, as in the chat's `/set top-p 0.9`.

        `none` clears `seed`, `stop` and `span_penalty`. A stop string is taken literally, or as
        JSON if it starts with a double quote or a bracket: `"\\n\\n"`, `["USER:", "###"]`.
        """
        name = name.replace("-", "_")
        _check_name(name)
        return self.with_options({name: _parse(name, text.strip())})

    def value(self, name: str) -> Any:
        """The value of one option, named as in the chat's `/set`. Raises UsageError for an unknown
        name."""
        name = name.replace("-", "_")
        _check_name(name)
        found = self.as_dict()[name]
        return "none" if found is None else found

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"stop": list(self.stop)}


# -- checks of the config -------------------------------------------------------------------------


def _whole(least: int, most: int | None = None) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        is_int = isinstance(value, int) and not isinstance(value, bool)
        return is_int and value >= least and (most is None or value <= most)

    return fits


def _number(fits: Callable[[float], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and fits(value)

    return check


def _stops(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(s, str) and s for s in value)


_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (_whole(1), "a whole number of at least 1"),
    "temperature": (_number(lambda t: 0 <= t <= 1000), "a number from 0 to 1000 (0 is greedy)"),
    "top_k": (_whole(0), "a whole number of at least 0 (0 disables)"),
    "top_p": (_number(lambda p: 0 < p <= 1), "above 0 and at most 1 (1 disables)"),
    "min_p": (_number(lambda p: 0 <= p <= 1), "from 0 to 1 (0 disables)"),
    "repetition_penalty": (
        _number(lambda p: 0.01 <= p <= 100),
        "a number from 0.01 to 100 (1 disables)",
    ),
    "repetition_window": (_whole(1), "a whole number of at least 1"),
    "no_repeat_ngram_size": (_whole(0), "a whole number of at least 0 (0 disables)"),
    "span_penalty": (
        lambda p: p is None or _number(lambda number: 0 <= number <= 100)(p),
        "a number from 0 to 100 (0 disables)",
    ),
    "span_length": (_whole(1), "a whole number of at least 1"),
    "stop": (_stops, "a text that is not empty"),
    "seed": (lambda s: s is None or is_seed(s), SEED_RANGE),
    "num_samples": (_whole(1, MOST), "a whole number from 1 to 10^9"),
    "draft_layers": (_whole(0), "a whole number of at least 0 (0 disables)"),
    "draft_tokens": (_whole(1, 64), "a whole number from 1 to 64"),
}
_DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(SamplingConfig)}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _default(name: str) -> str:
    """What applies where an option is not given, as a hint."""
    if name == "seed":
        return "Leave --seed out for a new seed each time."
    if name == "span_penalty":
        return f"The default is {GREEDY_SPAN_PENALTY} for greedy decoding, otherwise 0."
    return f"The default is {_DEFAULTS[name]!r}."


def _check_name(name: str) -> None:
    if name not in _DEFAULTS:
        raise UsageError(
            f"There is no sampling option '{name}'.", next_step=nearest(name, _DEFAULTS)
        )


def _parse(name: str, text: str) -> Any:
    if name in ("seed", "stop", "span_penalty") and text.lower() in ("", "none"):
        return None
    if name == "stop":
        if not text.startswith(('"', "[")):
            return text
        try:
            return parse_json(text, limit=MAX_STOP_BYTES)
        except ParseError as error:
            raise UsageError(
                f"--stop is not valid JSON: {error}.",
                next_step='Write for example "\\n" or ["USER:", "###"].',
            ) from error
    kind = float if isinstance(_DEFAULTS[name], float) or name == "span_penalty" else int
    try:
        return kind(text)
    except ValueError as error:
        raise UsageError(
            f"{_flag(name)} must be {_RANGES[name][1]}, not '{text}'.",
            next_step=_default(name),
        ) from error


# -- seeds ----------------------------------------------------------------------------------------


def derive_seed(seed: int, *path: int) -> int:
    """A seed for one part of a seeded process: sample i of a call, answer n of a conversation.

    Hashed rather than added, so that sample 1 of seed 0 differs from sample 0 of seed 1.
    """
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:8], "big") >> 1


def make_generators(config: SamplingConfig) -> list[torch.Generator] | None:
    """One CPU generator per sample; None for greedy decoding."""
    if config.is_greedy:
        return None
    seed = secrets.randbits(63) if config.seed is None else config.seed
    return [
        torch.Generator().manual_seed(derive_seed(seed, row)) for row in range(config.num_samples)
    ]
