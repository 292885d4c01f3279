"""The `openai` package as client: whole answers and streams, log-probabilities, usage, stops."""

from __future__ import annotations

import math

import openai
import pytest
import torch

from holo_cli.checkpoint.header import ChatFormat
from holo_cli.data.chat_format import MARK_NAMES
from holo_cli.inference.chat.conversation import Turn, encode_turn, encode_turns
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.inference.generation.stream import TextGeneration
from tests.inference.inference_fakes import Attentive, ByteTokenizer, Chain, make_loaded
from tests.serve.conftest import KOREAN


def greedy(prompt: str, count: int) -> str:
    """What `holo.load(...).generate` says, without a penalty."""
    text = make_loaded(Chain()).generate(
        prompt, max_new_tokens=count, temperature=0, span_penalty=0.0
    )
    assert isinstance(text, str)
    return text


def test_models_are_listed(client: openai.OpenAI) -> None:
    found = {model.id: model for model in client.models.list()}
    assert list(found) == ["chain", "attentive", "korean", "slow", "chat"]
    about = client.models.retrieve("attentive").model_dump()["holo"]
    assert (about["context"], about["unlimited"], about["step"]) == (64, False, 7)


def test_a_completion_says_what_generate_says(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="chain", prompt="abc", max_tokens=12, temperature=0)
    assert answer.choices[0].text == greedy("abc", 12)
    assert answer.choices[0].finish_reason == "length"
    usage = answer.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 12, 15)


def test_prompts_as_lists_and_as_tokens(client: openai.OpenAI) -> None:
    texts = ["abc", "zz", "q"]
    for prompt in (texts, [list(text.encode()) for text in texts]):
        answer = client.completions.create(
            model="chain", prompt=prompt, max_tokens=9, temperature=0, n=2
        )
        said = [choice.text for choice in answer.choices]
        assert said == [greedy(text, 9) for text in texts for _ in range(2)]
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 54)
    one = client.completions.create(model="chain", prompt=[97, 98], max_tokens=5, temperature=0)
    assert one.choices[0].text == greedy("ab", 5)


def test_a_seed_repeats_an_answer_and_choices_differ(client: openai.OpenAI) -> None:
    def ask(seed: int) -> list[str]:
        answer = client.completions.create(
            model="chain", prompt="ab", max_tokens=20, seed=seed, n=3, temperature=1.3
        )
        return [choice.text for choice in answer.choices]

    first = ask(5)
    assert first == ask(5) != ask(6)
    assert len(set(first)) == 3
    texts = make_loaded(Chain()).generate(
        "ab", max_new_tokens=20, temperature=1.3, seed=5, num_samples=3
    )
    assert first == texts


def test_streams_say_the_same_in_pieces(client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model="chain", prompt=["abc", "zz"], max_tokens=12, temperature=0, stream=True,
        stream_options={"include_usage": True}, echo=True,
    )  # fmt: skip
    said, finished, usage = {0: "", 1: ""}, [], None
    for chunk in stream:
        for choice in chunk.choices:
            said[choice.index] += choice.text
            finished += [choice.finish_reason] if choice.finish_reason else []
        usage = chunk.usage or usage
    assert said == {0: "abc" + greedy("abc", 12), 1: "zz" + greedy("zz", 12)}
    assert finished == ["length", "length"]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (5, 24)


def test_a_stream_never_shows_a_part_of_a_character(client: openai.OpenAI) -> None:
    """Every token of this model is one byte."""
    stream = client.chat.completions.create(
        model="korean", messages=[{"role": "user", "content": "abc"}], max_tokens=100,
        stream=True, temperature=0,
    )  # fmt: skip
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == KOREAN
    assert len([piece for piece in pieces if piece]) == len(KOREAN)
    cut = client.completions.create(model="korean", prompt="abc", max_tokens=4, temperature=0)
    assert cut.choices[0].text.startswith("달")
    assert "\ufffd" not in cut.choices[0].text


def test_stop_strings(client: openai.OpenAI) -> None:
    whole = greedy("abc", 30)
    stop = whole[10:12]
    for many in (stop, ["never said", stop]):
        answer = client.completions.create(
            model="chain", prompt="abc", max_tokens=30, temperature=0, stop=many
        )
        assert answer.choices[0].text == whole[: whole.index(stop)]
        assert answer.choices[0].finish_reason == "stop"


def test_chat_ends_where_the_model_ends(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="korean", messages=[{"role": "user", "content": "abc"}], temperature=0
    )
    assert answer.choices[0].message.content == KOREAN
    assert answer.choices[0].finish_reason == "stop"


def test_log_probabilities_are_those_of_the_model(client: openai.OpenAI) -> None:
    """In the form that lm-evaluation-harness asks for: tokens in, echo, one token more."""
    ids = list(b"hello")
    answer = client.completions.create(
        model="chain", prompt=ids, max_tokens=1, logprobs=1, echo=True, temperature=0
    )
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert told.tokens is not None
    with torch.no_grad():
        expected = torch.log_softmax(Chain()(torch.tensor([ids]))[0], -1)
    assert len(told.tokens) == 6
    assert told.tokens[:5] == list("hello")
    assert told.token_logprobs[0] is None
    for place in range(1, 5):
        own = float(expected[place - 1, ids[place]])
        assert told.token_logprobs[place] == pytest.approx(own, abs=1e-5)
        best = float(expected[place - 1].max())
        assert max(told.top_logprobs[place].values()) == pytest.approx(best, abs=1e-5)
    assert told.text_offset == [0, 1, 2, 3, 4, 5]
    scored = client.completions.create(
        model="chain", prompt="hello", max_tokens=0, logprobs=0, echo=True
    )
    assert scored.choices[0].text == "hello"
    assert scored.choices[0].logprobs is not None
    assert scored.choices[0].logprobs.token_logprobs == told.token_logprobs[:5]


def test_log_probabilities_of_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="chain", messages=[{"role": "user", "content": "ab"}], max_tokens=5,
        logprobs=True, top_logprobs=3, temperature=0,
    )  # fmt: skip
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert len(told.content) == 5
    for entry in told.content:
        assert len(entry.top_logprobs) == 3
        # the most likely token may be a part of a character that cannot follow
        assert entry.logprob <= entry.top_logprobs[0].logprob
        assert entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob
        assert math.exp(sum(top.logprob for top in entry.top_logprobs)) <= 1


def test_the_next_turn_reads_only_what_is_new(client: openai.OpenAI) -> None:
    messages: list = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi you"}]
    first = client.chat.completions.create(
        model="chat", messages=messages, max_tokens=10, temperature=0
    )
    text = first.choices[0].message.content
    more = [*messages, {"role": "assistant", "content": text}, {"role": "user", "content": "go"}]
    second = client.chat.completions.create(
        model="chat", messages=more, max_tokens=10, temperature=0
    )
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    read = first.usage.prompt_tokens + first.usage.completion_tokens
    assert second.usage.prompt_tokens_details.cached_tokens >= read - 1
    # the answer is the one of a model that reads everything anew
    fresh = make_loaded(
        Attentive(limit=64, vocab=260), ByteTokenizer(MARK_NAMES), chat=ChatFormat()
    )
    turns = [encode_turn(fresh.prompts, Turn("hi you", text or ""), None, None)]
    turns.append(encode_turn(fresh.prompts, Turn("go"), None, None))
    config = SamplingConfig(max_new_tokens=10, temperature=0, span_penalty=0.0)
    decoding = fresh.engine.generate(encode_turns(fresh.prompts, "s", turns), config)
    expected = "".join(piece.text for piece in TextGeneration(decoding, fresh.tokenizer, ()))
    assert second.choices[0].message.content == expected


def test_parts_and_an_answer_to_go_on_with(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "ab"}]
    messages: list = [{"role": "user", "content": parts}, {"role": "assistant", "content": "c"}]
    answer = client.chat.completions.create(
        model="chain", messages=messages, max_tokens=8, temperature=0
    )
    assert answer.choices[0].message.content == greedy("abc", 8)
