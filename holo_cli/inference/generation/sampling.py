"""From logits to the next token: each rule is a pure function on logits (R, V) of R rows.

Names and meanings are those of the generation options of Hugging Face transformers, applied in the
same order: repetition penalty, banned n-grams, temperature, top-k, top-p, min-p. Unlike
transformers, a draw takes one uniform number per row from that row's own CPU generator and inverts
the cumulative distribution, so a sample depends only on its seed, not on the number of samples or
the device."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from holo_cli.config.training_schema import SEED_RANGE, is_seed
from holo_cli.errors import UsageError, nearest
from holo_cli.parsing import ParseError, parse_json

BANNED = float("-inf")
MOST = 10**9  # of counts: more overflow somewhere on their way through torch
GREEDY_BELOW = 1e-5  # differences of float32 logits are not exact enough for lower temperatures
MAX_STOP_BYTES = 1_000_000  # of stop strings typed as JSON


@dataclass(frozen=True)
class SamplingConfig:
    """Sampling options. Values out of range raise UsageError naming the option.

    `temperature` 0 is greedy: always the most likely token; below 1e-5 it counts as 0. `top_k` 0,
    `top_p` 1, `min_p` 0, `repetition_penalty` 1 and `no_repeat_ngram_size` 0 disable the rule. The
    repetition penalty covers the last `repetition_window` tokens, prompt included. `seed` None
    draws a new seed for every call. A stop string ends a sample and is not part of its text.
    """

    max_new_tokens: int = 256
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 256
    no_repeat_ngram_size: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    num_samples: int = 1

    def __post_init__(self) -> None:
        for name, (fits, words) in _RANGES.items():
            value = getattr(self, name)
            if not fits(value):
                raise UsageError(
                    f"{_flag(name)} must be {words}, not {value!r}.",
                    next_step=f"The default is {_DEFAULTS[name]!r}.",
                )

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < GREEDY_BELOW

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
            values["stop"] = (stop,) if isinstance(stop, str) else tuple(stop or ())
        return replace(self, **values)

    def with_text(self, name: str, text: str) -> SamplingConfig:
        """A copy with one option given as typed text, as in the chat's `/set top-p 0.9`.

        `none` clears `seed` and `stop`. A stop string is taken literally, or as JSON if it starts
        with a double quote or a bracket: `"\\n\\n"`, `["USER:", "###"]`.
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
    "max_new_tokens": (_whole(1, MOST), "a whole number from 1 to 10^9"),
    "temperature": (_number(lambda t: 0 <= t <= 1000), "a number from 0 to 1000 (0 is greedy)"),
    "top_k": (_whole(0, MOST), "a whole number from 0 to 10^9 (0 disables)"),
    "top_p": (_number(lambda p: 0 < p <= 1), "above 0 and at most 1 (1 disables)"),
    "min_p": (_number(lambda p: 0 <= p <= 1), "from 0 to 1 (0 disables)"),
    "repetition_penalty": (
        _number(lambda p: 0.01 <= p <= 100),
        "a number from 0.01 to 100 (1 disables)",
    ),
    "repetition_window": (_whole(1, MOST), "a whole number from 1 to 10^9"),
    "no_repeat_ngram_size": (_whole(0, MOST), "a whole number from 0 to 10^9 (0 disables)"),
    "stop": (_stops, "a text that is not empty"),
    "seed": (lambda s: s is None or is_seed(s), SEED_RANGE),
    "num_samples": (_whole(1, MOST), "a whole number from 1 to 10^9"),
}
_DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(SamplingConfig)}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_name(name: str) -> None:
    if name not in _DEFAULTS:
        raise UsageError(
            f"There is no sampling option '{name}'.", next_step=nearest(name, _DEFAULTS)
        )


def _parse(name: str, text: str) -> Any:
    if name in ("seed", "stop") and text.lower() in ("", "none"):
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
    kind = float if isinstance(_DEFAULTS[name], float) else int
    try:
        return kind(text)
    except ValueError as error:
        raise UsageError(
            f"{_flag(name)} must be {_RANGES[name][1]}, not '{text}'.",
            next_step=f"The default is {_DEFAULTS[name]!r}.",
        ) from error


# -- rules on logits ------------------------------------------------------------------------------


def apply_repetition_penalty(
    logits: Tensor, history: Sequence[Sequence[int]], penalty: float
) -> Tensor:
    """(R, V), one history per row -> (R, V): positive logits of seen tokens are divided by the
    penalty, negative ones multiplied, once per token however often it was seen (Keskar et al.,
    2019, arXiv 1909.05858)."""
    if penalty == 1:
        return logits
    logits = logits.clone()
    for row, seen in zip(logits, history, strict=True):
        ids = torch.tensor(sorted(set(seen)), dtype=torch.long, device=logits.device)
        scores = row[ids]
        # a model's logits may be as large as its dtype holds: they must not become infinite here
        most = torch.finfo(row.dtype).max
        row[ids] = torch.where(scores > 0, (scores / penalty).clamp(max=most), scores * penalty)
    return logits


def ban_repeated_ngrams(logits: Tensor, history: Sequence[Sequence[int]], size: int) -> Tensor:
    """(R, V), one history per row -> (R, V) with -inf for every token that would repeat an n-gram
    of `size` tokens of its row. 0 disables."""
    if size == 0:
        return logits
    logits = logits.clone()
    for row, seen in zip(logits, history, strict=True):
        if len(seen) < size:
            continue
        ids = torch.tensor(seen, dtype=torch.long)  # (L,)
        grams = ids.unfold(0, size, 1)  # (L - size + 1, size)
        begun = ids[len(seen) - size + 1 :]  # the n-gram that the next token would complete
        repeated = grams[(grams[:, :-1] == begun).all(dim=1), -1]
        row[repeated.to(logits.device)] = BANNED
    return logits


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """(R, V) -> (R, V), relative to the largest of a row and divided by a temperature above 0: the
    same distribution as of `logits / temperature`, without overflow for small temperatures."""
    if temperature == 1:
        return logits
    return (logits - logits.amax(dim=-1, keepdim=True)) / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """(R, V) -> (R, V) with -inf for all but the k largest logits of a row; ties with the k-th
    stay."""
    if k == 0 or k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < least, BANNED)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """(R, V) -> (R, V) with -inf outside the nucleus: the smallest set of most likely tokens of a
    row with total probability p, at least one (Holtzman et al., 2020, arXiv 1904.09751)."""
    if p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # mass of the more likely tokens
    outside = before >= p
    outside[:, 0] = False  # also where p is too small for the dtype, and so equals 0
    return logits.masked_fill(outside.gather(-1, order.argsort(dim=-1)), BANNED)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """(R, V) -> (R, V) with -inf for tokens less likely than p times the most likely one (Nguyen et
    al., 2024, arXiv 2407.01082)."""
    if p == 0:
        return logits
    # In logits the ratio of two probabilities is a difference: no softmax is needed.
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), BANNED)


def shape_logits(
    logits: Tensor,
    history: Sequence[Sequence[int]],
    config: SamplingConfig,
    exempt: int | None = None,
) -> Tensor:
    """Raw logits (R, V) and the tokens of each row so far -> logits (R, V) to sample from.

    The n-gram rule never bans the `exempt` token, which ends a text, and is skipped for a row in
    which it would ban every token.
    """
    # sums over a vocabulary are not exact enough in 16 bits
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    raw = logits
    recent = [row[-config.repetition_window :] for row in history]
    logits = apply_repetition_penalty(logits, recent, config.repetition_penalty)
    free = ban_repeated_ngrams(logits, history, config.no_repeat_ngram_size)
    if exempt is not None and free is not raw:
        free = free.index_copy(1, torch.tensor([exempt], device=raw.device), raw[:, exempt, None])
    logits = torch.where(free.amax(dim=-1, keepdim=True) == BANNED, logits, free)
    if config.is_greedy:  # the rules below do not change the argmax
        return logits
    logits = apply_temperature(logits, config.temperature)
    logits = keep_top_k(logits, config.top_k)
    logits = keep_top_p(logits, config.top_p)
    return keep_min_p(logits, config.min_p)


def sample(logits: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    """Logits (R, V), one CPU generator per row -> tokens (R,) int64; None is greedy.

    A token of probability 0 is never drawn. Greedy decoding breaks ties by the lowest id.
    """
    if generators is None:
        return logits.argmax(dim=-1)
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    reached = logits.softmax(dim=-1, dtype=wide).cumsum(dim=-1)  # (R, V), rising to about 1
    assert bool(torch.isfinite(reached[:, -1]).all()), "no token has a probability"
    # float32 draws stay below 1 in either precision, so `drawn` stays below the row's total.
    uniform = torch.cat([torch.rand(1, generator=g, dtype=torch.float32) for g in generators])
    drawn = uniform.to(logits.device, wide)[:, None] * reached[:, -1:]
    return (reached <= drawn).sum(dim=-1)


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
