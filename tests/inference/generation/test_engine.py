"""Decoding with a kept state equals reading everything again: any rows, window and seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from holo_cli.errors import CheckpointError, UsageError
from holo_cli.inference.generation import engine as engine_module
from holo_cli.inference.generation.engine import Engine, window_start
from holo_cli.inference.generation.logits import sample, shape_logits
from holo_cli.inference.generation.sampling import SamplingConfig, make_generators
from holo_cli.models.base import LanguageModel
from tests.inference.inference_fakes import Attentive, Chain, Fake, Scripted

END = 256


def vanilla(context: int = 16) -> LanguageModel:
    from holo_cli.models.vanilla.config import Config
    from holo_cli.models.vanilla.model import Model

    torch.manual_seed(0)
    config = Config(
        vocab_size=259, layers=2, heads=2, width=16, context=context, conv=4, bigrams=50
    )
    model = Model(config).double().eval()
    with torch.no_grad():  # initial output projections are zero: no mixing at all
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


MODELS = {
    "chain": Chain,
    "attentive": Attentive,
    "attentive-odd": lambda: Attentive(limit=9),
    "vanilla": vanilla,
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return MODELS[request.param]()


def tokens_of(engine: Engine, prompt: list[int], config: SamplingConfig) -> list[list[int]]:
    decoding = engine.generate(prompt, config)
    for _ in decoding:
        pass
    return [decoding.new_tokens(row) for row in range(config.num_samples)]


def from_scratch(
    model: LanguageModel, prompt: list[int], config: SamplingConfig, row: int = 0
) -> list[int]:
    """The slow obvious form: the whole view read anew for every token, one sample alone."""
    generators = make_generators(config)
    ids = list(prompt)
    while len(ids) - len(prompt) < config.max_new_tokens:
        view = ids[window_start(len(ids), model.context_limit) :]
        with torch.no_grad():
            logits = model(torch.tensor([view]))[:, -1]
        logits = shape_logits(logits, [ids], config, exempt=END)
        token = int(sample(logits, generators and [generators[row]]))
        if token == END:
            break
        ids.append(token)
    return ids[len(prompt) :]


CONFIGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "sampled": {"seed": 5},
    "shaped": {
        "seed": 6,
        "top_k": 50,
        "top_p": 0.95,
        "min_p": 0.01,
        "repetition_penalty": 1.5,
        "no_repeat_ngram_size": 2,
    },
}


@pytest.mark.parametrize("prompt", [[7], [1, 2, 3, 4, 5], list(range(40))], ids=len)
@pytest.mark.parametrize("options", CONFIGS)
def test_cached_equals_from_scratch(model: LanguageModel, options: str, prompt: list[int]) -> None:
    config = SamplingConfig(max_new_tokens=40, **CONFIGS[options])
    found = tokens_of(Engine(model, end=END), prompt, config)
    assert found == [from_scratch(model, prompt, config)]


def test_samples_do_not_depend_on_their_number(model: LanguageModel) -> None:
    def draw(n: int) -> list[list[int]]:
        config = SamplingConfig(max_new_tokens=30, seed=3, num_samples=n)
        return tokens_of(Engine(model, end=END), [5, 6], config)

    four = draw(4)
    assert draw(1) == four[:1]
    assert draw(2) == four[:2]
    assert len({tuple(s) for s in four}) == 4


def test_rows_that_end_leave_the_others_alone() -> None:
    """With a likely end, rows stop at different times; each is what it would be alone."""
    model = Chain(seed=2, sharpness=0.3)
    with torch.no_grad():
        model.head.weight[END] = model.head.weight.mean(0) + 0.5
    config = SamplingConfig(max_new_tokens=60, seed=1, num_samples=6, top_k=30)
    decoding = Engine(model, end=END).generate([9], config)
    steps = list(decoding)
    rows = [decoding.new_tokens(row) for row in range(6)]
    assert rows == [from_scratch(model, [9], config, row) for row in range(6)]
    assert len({len(row) for row in rows}) > 2
    assert set(decoding.finish) == {"end", "length"}
    for row in range(6):  # the yielded steps are the tokens, then None
        column = [step[row] for step in steps]
        assert column == rows[row] + [None] * (len(steps) - len(rows[row]))
    assert all(END not in row for row in rows)


def test_finished_rows_are_not_computed_any_more() -> None:
    model = Scripted([], prompt=1)
    batches = []
    step = model.step_hidden
    model.step_hidden = lambda t, s: batches.append(t.shape[0]) or step(t, s)  # type: ignore
    decoding = Engine(model).generate([1], SamplingConfig(max_new_tokens=5, num_samples=3))
    next(decoding)
    decoding.stop(1)
    assert next(decoding) == [46, None, 46]
    decoding.stop(0, "stopped")
    rest = list(decoding)
    assert rest == [[None, None, 46]] * 3
    assert batches == [1, 2, 1, 1, 1]  # the last token is never read
    assert decoding.finish == ["stopped", "stop", "length"]


def test_window_slides_to_any_length() -> None:
    """Reading again is rare: the work stays within a few times the tokens written."""
    model = Attentive(limit=16)
    config = SamplingConfig(max_new_tokens=300, seed=0)
    (tokens,) = tokens_of(Engine(model), [1, 2], config)
    assert len(tokens) == 300
    assert model.tokens_read < 3 * 300


@pytest.mark.parametrize("limit", [1, 2, 3, 8, 9, 64])
def test_window_start(limit: int) -> None:
    start = 0
    for length in range(1, 300):
        if length - start > limit:  # the slow obvious form: on overflow half is dropped
            start += limit - limit // 2
        assert window_start(length, limit) == start
        assert length - start <= limit
        assert start == 0 or length - start > limit // 2
    assert window_start(10**9, None) == 0


def test_long_prompts_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "PREFILL_CHUNK", 4)
    whole, chunked = Attentive(limit=16), Attentive(limit=16)
    lengths: list[int] = []
    step = chunked.step_hidden
    chunked.step_hidden = lambda t, s: lengths.append(t.shape[1]) or step(t, s)  # type: ignore
    prompt = list(range(11))
    found = Engine(chunked).prefill(prompt)
    assert lengths == [4, 4, 3]
    assert found.state.position == 11
    torch.testing.assert_close(found.logits, whole(torch.tensor([prompt]))[:, -1].detach())


def test_going_on_from_known_prefixes(model: LanguageModel) -> None:
    """Any prefix may be gone on from, in any order, and again: states are values."""
    engine = Engine(model)
    ids = [3, 1, 4, 1, 5, 9, 2]
    fresh = {n: engine.prefill(ids[:n]).logits for n in range(1, 8)}
    half = engine.prefill(ids[:3])
    other = engine.prefill([3, 1, 77])
    for n in (7, 4, 6, 3, 7):
        found = engine.prefill(ids[:n], [other, half])
        torch.testing.assert_close(found.logits, fresh[n])


def test_known_prefix_is_not_read_again() -> None:
    model = Chain()
    engine = Engine(model)
    known = engine.prefill([1, 2, 3])
    model.tokens_read = 0
    engine.prefill([1, 2, 3, 4, 5], [known, engine.prefill([1])])
    assert model.tokens_read == 2 + 1
    engine.prefill([1, 2, 4], [known])
    assert model.tokens_read == 2 + 1 + 3


def test_prefix_of_a_decoding_goes_on(model: LanguageModel) -> None:
    engine = Engine(model)
    decoding = engine.generate([1, 2], SamplingConfig(max_new_tokens=25, seed=1))
    for _ in decoding:
        pass
    longer = [*decoding.ids[0], 7, 8]
    torch.testing.assert_close(
        engine.prefill(longer, [decoding.prefix()]).logits, engine.prefill(longer).logits
    )


def test_prefix_after_sliding_is_not_read_again() -> None:
    model = Attentive(limit=16)
    engine = Engine(model)
    decoding = engine.generate([1, 2], SamplingConfig(max_new_tokens=24, seed=1))
    for _ in decoding:
        pass
    assert window_start(25, 16) == window_start(27, 16) == 16
    model.tokens_read = 0
    engine.prefill([*decoding.ids[0], 7], [decoding.prefix()])
    assert model.tokens_read == 2


def test_banned_ids_never_come() -> None:
    banned = range(10, 259)
    (tokens,) = tokens_of(
        Engine(Chain(), banned=banned), [1], SamplingConfig(max_new_tokens=50, temperature=5)
    )
    assert len(tokens) == 50
    assert not set(tokens) & set(banned)


def test_torch_and_model_are_left_as_they_were(model: LanguageModel) -> None:
    """Between two tokens the caller's modes are in force, those of the model as well."""
    model.train()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        seen = []
        step = model.step_hidden
        model.step_hidden = lambda t, s: (  # type: ignore[method-assign]
            seen.append((t.shape[1], torch.get_float32_matmul_precision(), model.training))
            or step(t, s)
        )
        for _ in Engine(model).generate([1, 2], SamplingConfig(max_new_tokens=3)):
            assert torch.get_float32_matmul_precision() == "medium"
            assert not torch.is_inference_mode_enabled()
            assert torch.is_grad_enabled()
            assert model.training
        assert seen == [(2, "medium", False), (1, "highest", False), (1, "highest", False)]
    finally:
        torch.set_float32_matmul_precision(before)
    loss = model(torch.tensor([[1, 2, 3]])).sum()
    loss.backward()  # nothing left over from inference mode


def test_other_dtype_runs_under_autocast() -> None:
    model = Chain()
    seen = []
    step = model.step_hidden
    model.step_hidden = lambda t, s: (  # type: ignore[method-assign]
        seen.append(torch.is_autocast_enabled("cpu")) or step(t, s)
    )
    prefix = Engine(model, dtype=torch.bfloat16).prefill([1, 2])
    assert seen == [True]
    assert prefix.logits.dtype == torch.float32
    Engine(model, dtype=torch.float32).prefill([1, 2])
    assert seen == [True, False]


def test_wrong_prompts() -> None:
    with pytest.raises(UsageError, match="prompt is empty"):
        Engine(Chain()).prefill([])
    with pytest.raises(CheckpointError, match="token 300"):
        Engine(Chain()).prefill([1, 300])


def test_a_diverged_model_is_named(model: LanguageModel) -> None:
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        Engine(model).generate([1], SamplingConfig())


def test_fakes_keep_the_contract() -> None:
    fake: Fake
    for fake in (Chain(), Attentive()):
        tokens = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(0))
        first, state = fake.step(tokens[:, :4], fake.init_state(2))
        rest, _ = fake.step(tokens[:, 4:], state)
        torch.testing.assert_close(torch.cat([first, rest], 1), fake(tokens))
