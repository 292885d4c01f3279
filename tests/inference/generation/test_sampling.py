"""Every rule on logits against a slow obvious form, and the checks of the options."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli.errors import UsageError
from holo_cli.inference.generation.logits import (
    apply_repetition_penalty,
    apply_span_penalty,
    apply_temperature,
    ban_repeated_ngrams,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    repeated_spans,
    sample,
    shape_logits,
)
from holo_cli.inference.generation.sampling import SamplingConfig, derive_seed, make_generators

INF = float("inf")


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(5, 23, generator=torch.Generator().manual_seed(1)) * 3


def rows(values: Tensor) -> list[list[float]]:
    return values.tolist()


def assert_same(found: Tensor, wanted: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(wanted))


def softmax(row: list[float]) -> list[float]:
    weights = [math.exp(x - max(row)) for x in row]
    return [w / sum(weights) for w in weights]


# -- rules ----------------------------------------------------------------------------------------


def spans_by_hand(seen: list[int], breakers: set[int]) -> dict[int, int]:
    """Every span of every length, compared as a whole."""
    found: dict[int, int] = {}
    for length in range(1, len(seen)):
        span = seen[-length:]
        if breakers & set(span):
            break
        for first in range(len(seen) - length):
            if seen[first : first + length] == span:
                follows = seen[first + length]
                found[follows] = max(found.get(follows, 0), length)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_repeated_spans(seed: int) -> None:
    draw = random.Random(seed)
    seen = [draw.randrange(3) for _ in range(draw.randrange(40))]
    assert repeated_spans(seen) == spans_by_hand(seen, set())
    assert repeated_spans(seen, {2}) == spans_by_hand(seen, {2})


def test_the_span_penalty_grows_with_the_span(logits: Tensor) -> None:
    history = [[1, 2, 3, 4, 1, 2, 3], [5, 6, 7, 6], [], [8], [9] * 2000]
    found = apply_span_penalty(logits, history, penalty=0.5, least=2)
    assert found[0, 4] == pytest.approx(float(logits[0, 4]) - 0.5 * 1.75)  # a span of 3 tokens
    assert found[4, 9] < -1000
    changed = (found != logits).nonzero().tolist()
    assert changed == [[0, 4], [4, 9]]  # a span of one token may be repeated
    assert torch.equal(apply_span_penalty(logits, history, 0.0, 2), logits)
    assert torch.equal(apply_span_penalty(logits[:1], history[:1], 0.5, 2, {3}), logits[:1])


def test_greedy_samples_do_not_repeat_themselves_by_default(logits: Tensor) -> None:
    """What the prompt says may be said again; a rule that was asked for counts the prompt too."""
    history = [[1, 2, 3, 4, 1, 2, 3]] * 5

    def lost(prompt: int, **options: Any) -> float:
        config = SamplingConfig(**({"temperature": 0.0} | options))
        shaped = shape_logits(logits, history, config, prompt=prompt)
        return float(logits[0, 4] - shaped[0, 4])

    assert lost(0) == pytest.approx(0.8 * 1.75)
    assert lost(2) == 0  # 3 4 1 2 3: the sample repeats no span of two tokens yet
    assert lost(2, span_penalty=0.8) == pytest.approx(0.8 * 1.75)
    assert lost(0, span_penalty=0.0) == lost(0, no_repeat_ngram_size=5) == 0
    assert SamplingConfig(temperature=0.5).span_penalty_applied == 0
    assert SamplingConfig(temperature=0, repetition_penalty=1.1).span_penalty_applied == 0


def test_the_default_of_the_span_penalty_can_be_set_again() -> None:
    config = SamplingConfig(temperature=0).with_text("span-penalty", "0.25")
    assert config.span_penalty_applied == 0.25
    config = config.with_text("span-penalty", "none")
    assert config.span_penalty is None
    assert config.value("span-penalty") == "none"


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.5])
def test_repetition_penalty(logits: Tensor, penalty: float) -> None:
    history = [[0, 1, 1, 22], [], [5], [5] * 9, [3, 4]]
    wanted = rows(logits)
    for row, seen in zip(wanted, history, strict=True):
        for token in set(seen):
            row[token] = row[token] / penalty if row[token] > 0 else row[token] * penalty
    before = logits.clone()
    assert_same(apply_repetition_penalty(logits, history, penalty), wanted)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4])
def test_no_repeat_ngram(logits: Tensor, size: int) -> None:
    chance = random.Random(size)
    history = [[chance.randrange(4) for _ in range(n)] for n in (0, 1, 3, 12, 40)]
    wanted = rows(logits)
    for row, seen in zip(wanted, history, strict=True):
        grams = {tuple(seen[i : i + size]) for i in range(len(seen) - size + 1)}
        for token in range(len(row)):
            if size and tuple([*seen, token][-size:]) in grams:
                row[token] = -INF
    assert_same(ban_repeated_ngrams(logits, history, size), wanted)


def test_temperature(logits: Tensor) -> None:
    doubled = [[(x - max(row)) * 2 for x in row] for row in rows(logits)]
    assert_same(apply_temperature(logits, 0.5), doubled)


@pytest.mark.parametrize("k", [0, 1, 2, 7, 22, 23, 24, 1000])
def test_top_k(logits: Tensor, k: int) -> None:
    wanted = [
        [x if not k or x in sorted(row, reverse=True)[:k] else -INF for x in row]
        for row in rows(logits)
    ]
    assert_same(keep_top_k(logits, k), wanted)


def test_top_k_keeps_ties() -> None:
    assert_same(keep_top_k(torch.tensor([[1.0, 2.0, 2.0, 0.0]]), 1), [[-INF, 2.0, 2.0, -INF]])


@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_top_p(logits: Tensor, p: float) -> None:
    wanted = []
    for row in rows(logits):
        probabilities, kept, mass = softmax(row), set(), 0.0
        for token in sorted(range(len(row)), key=lambda t: -row[t]):
            if mass < p or p == 1:
                kept.add(token)
            mass += probabilities[token]
        wanted.append([x if token in kept else -INF for token, x in enumerate(row)])
    assert_same(keep_top_p(logits, p), wanted)


@pytest.mark.parametrize("p", [0.0, 0.01, 0.2, 1.0])
def test_min_p(logits: Tensor, p: float) -> None:
    wanted = []
    for row in rows(logits):
        q = softmax(row)
        wanted.append([x if c >= p * max(q) else -INF for x, c in zip(row, q, strict=True)])
    assert_same(keep_min_p(logits, p), wanted)


def test_rules_follow_each_other(logits: Tensor) -> None:
    """Temperature first, so that a nucleus is one of the distribution that is drawn from."""
    config = SamplingConfig(temperature=2.0, top_p=0.5)
    history: list[list[int]] = [[]] * 5
    shaped = shape_logits(logits, history, config).softmax(-1)
    torch.testing.assert_close(shaped, keep_top_p(logits / 2, 0.5).softmax(-1))
    assert not torch.allclose(shaped, (keep_top_p(logits, 0.5) / 2).softmax(-1))


def test_penalty_looks_back_over_the_window_only(logits: Tensor) -> None:
    config = SamplingConfig(temperature=1, repetition_penalty=2.0, repetition_window=2)
    shaped = shape_logits(logits, [[7, 8, 9]] * 5, config)
    changed = (shaped != logits).any(dim=0).nonzero().flatten().tolist()
    assert changed == [8, 9]


def test_end_token_is_no_repetition(logits: Tensor) -> None:
    config = SamplingConfig(temperature=1, repetition_penalty=2.0, no_repeat_ngram_size=1)
    shaped = shape_logits(logits, [[4, 6]] * 5, config, exempt=4)
    assert torch.equal(shaped[:, 4], logits[:, 4])
    assert (shaped[:, 6] == -INF).all()


def test_a_text_whose_every_token_would_repeat_goes_on(logits: Tensor) -> None:
    config = SamplingConfig(temperature=1, no_repeat_ngram_size=1)
    shaped = shape_logits(logits, [list(range(23))] * 5, config)
    assert torch.isfinite(shaped).all()


# -- drawing --------------------------------------------------------------------------------------


def test_greedy_takes_the_most_likely(logits: Tensor) -> None:
    assert sample(logits, None).tolist() == [row.index(max(row)) for row in rows(logits)]


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.0, 0.2])
    generators = [torch.Generator().manual_seed(derive_seed(3, i)) for i in range(20_000)]
    drawn = sample(probabilities.log().expand(20_000, 4), generators)
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert shares[2] == 0
    torch.testing.assert_close(shares, probabilities, atol=0.02, rtol=0)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_extreme_draws_never_hit_an_impossible_token(
    uniform: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([uniform]))
    row = torch.tensor([[-INF, 0.1, 0.7, -INF]])
    token = int(sample(row, [torch.Generator()]))
    assert token == (1 if uniform == 0 else 2)


def test_a_row_draws_the_same_whatever_is_beside_it(logits: Tensor) -> None:
    config = SamplingConfig(seed=11, num_samples=5)
    together = sample(logits, make_generators(config))
    generators = make_generators(config)
    assert generators is not None
    alone = [int(sample(logits[i : i + 1], generators[i : i + 1])) for i in range(5)]
    assert together.tolist() == alone


def test_seeds() -> None:
    assert derive_seed(0, 1) != derive_seed(1, 0) != derive_seed(1)
    assert make_generators(SamplingConfig(temperature=0)) is None
    first, second = (make_generators(SamplingConfig()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first[0].initial_seed() != second[0].initial_seed()


# -- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_new_tokens", 0, "--max-new-tokens must be a whole number of at least 1"),
        ("max_new_tokens", 1.5, "--max-new-tokens"),
        ("max_new_tokens", True, "--max-new-tokens"),
        ("temperature", -0.1, "--temperature must be a number from 0 to 1000"),
        ("temperature", 1e30, "--temperature"),
        ("temperature", float("nan"), "--temperature"),
        ("temperature", "hot", "--temperature"),
        ("top_k", -1, "--top-k"),
        ("top_p", 0.0, r"--top-p must be above 0 and at most 1"),
        ("top_p", 1.1, "--top-p"),
        ("min_p", 2, r"--min-p must be from 0 to 1"),
        ("repetition_penalty", 0, "--repetition-penalty"),
        ("repetition_penalty", 1e-45, "--repetition-penalty"),
        ("repetition_penalty", 1e40, "--repetition-penalty must be a number from 0.01 to 100"),
        ("repetition_window", 0, "--repetition-window"),
        ("no_repeat_ngram_size", -1, "--no-repeat-ngram-size"),
        ("stop", "", "--stop"),
        ("stop", ["a", 3], "--stop"),
        ("seed", -1, "--seed"),
        ("num_samples", 0, "--num-samples"),
    ],
)
def test_wrong_values_name_the_flag(name: str, value: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SamplingConfig.from_options({name: value})


def test_unknown_option_gives_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'temperature'"):
        SamplingConfig.from_options({"temprature": 1})


def test_options_as_typed_text() -> None:
    config = SamplingConfig().with_text("top-p", "0.9").with_text("max_new_tokens", " 7 ")
    assert (config.top_p, config.max_new_tokens) == (0.9, 7)
    assert config.with_text("seed", "4").with_text("seed", "none").seed is None
    assert config.with_text("stop", "USER:").stop == ("USER:",)
    assert config.with_text("stop", '"\\n\\n"').stop == ("\n\n",)
    assert config.with_text("stop", '["a", "b"]').stop == ("a", "b")
    assert config.with_text("stop", '["a"]').with_text("stop", "").stop == ()
    for name, text in [("top-k", "many"), ("stop", '["a"'), ("stop", "[1]")]:
        with pytest.raises(UsageError, match=f"--{name}"):
            config.with_text(name, text)


# -- values near the ends of their ranges ---------------------------------------------------------

EXTREMES = [
    {"temperature": 1e-5},
    {"temperature": 1000},
    {"repetition_penalty": 0.01},
    {"repetition_penalty": 100},
    {"top_p": 5e-324},
    {"top_p": 1e-30},
    {"top_p": 1 - 1e-16},
    {"min_p": 5e-324},
    {"min_p": 1.0},
    {"top_k": 10**30},
    {"no_repeat_ngram_size": 10**30},
    {"repetition_window": 10**30, "repetition_penalty": 100},
]
HUGE = torch.finfo(torch.float32).max


@pytest.mark.parametrize("options", EXTREMES, ids=str)
@pytest.mark.parametrize("size", [1.0, 1e4, HUGE / 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_draw_has_a_probability_at_every_setting(
    logits: Tensor, options: dict[str, float], size: float, dtype: torch.dtype
) -> None:
    config = SamplingConfig.from_options({"temperature": 0.8, **options, "seed": 3})
    raw = (logits.clamp(-7, 7) * size).to(dtype)
    raw[:, 0] = -INF  # never sampled, and what a draw without a distribution would give
    shaped = shape_logits(raw, [[1, 2, 22]] * 5, config)
    assert bool((shaped.amax(dim=-1) > -INF).all())
    generators = [torch.Generator().manual_seed(row) for row in range(5)]
    tokens = sample(shaped, generators)
    assert not bool(shaped.isnan().any())
    assert bool((shaped.gather(-1, tokens[:, None]) > -INF).all())


@pytest.mark.parametrize("temperature", [9e-6, 1e-20, 1e-38, 1e-45, 5e-324])
def test_a_temperature_near_zero_is_greedy(logits: Tensor, temperature: float) -> None:
    config = SamplingConfig(temperature=temperature)
    assert make_generators(config) is None
    shaped = shape_logits(logits, [[]] * 5, config)
    assert torch.equal(sample(shaped, None), logits.argmax(dim=-1))


def test_the_lowest_temperature_that_draws_takes_the_most_likely(logits: Tensor) -> None:
    config = SamplingConfig(temperature=1e-5, seed=0, num_samples=5)
    tokens = sample(shape_logits(logits, [[]] * 5, config), make_generators(config))
    assert torch.equal(tokens, logits.argmax(dim=-1))


def test_a_distribution_that_is_none_is_not_token_0() -> None:
    with pytest.raises(AssertionError, match="no token has a probability"):
        sample(torch.full((1, 4), -INF), [torch.Generator()])


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ({"seed": -1}, "Leave --seed out for a new seed each time."),
        ({"span_penalty": -1.0}, "The default is 0.8 for greedy decoding, otherwise 0."),
        ({"top_k": -1}, "The default is 0."),
    ],
)
def test_the_hint_names_what_applies_without_the_option(option: dict[str, Any], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        SamplingConfig(**option)
    assert caught.value.next_step == hint
