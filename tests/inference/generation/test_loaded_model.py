"""Text in, text out, from a loaded checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holo_cli.checkpoint.header import ChatFormat
from holo_cli.data.chat_format import MARK_NAMES
from holo_cli.errors import UsageError
from holo_cli.inference.generation.loaded_model import LoadedModel
from tests.inference.inference_fakes import ByteTokenizer, Chain, Scripted, make_loaded

CHAT = ByteTokenizer(MARK_NAMES)
MARKED = ByteTokenizer(["<|en|>", "<|ko|>"])


@pytest.fixture
def loaded() -> LoadedModel:
    return make_loaded(Chain(vocab=262), MARKED, markers=True, documents=100)


def test_text_pieces_and_lists_agree(loaded: LoadedModel) -> None:
    options = {"max_new_tokens": 30, "seed": 1, "temperature": 1.2}
    text = loaded.generate("안녕", **options)
    assert isinstance(text, str)
    pieces = loaded.generate("안녕", stream=True, **options)
    assert isinstance(pieces, Iterator)
    assert "".join(pieces) == text
    several = loaded.generate("안녕", num_samples=3, **options)
    assert isinstance(several, list)
    assert several[0] == text
    full = loaded.generate_full("안녕", **options)
    assert full["prompt_tokens"] == 2 + 6
    assert [s["text"] for s in full["samples"]] == [text]
    assert set(full["samples"][0]) == {"text", "tokens", "tokens_per_second", "finish"}


def test_language_decides_the_marker(loaded: LoadedModel) -> None:
    english, korean = (loaded.write("hi", _greedy(), lang).decoding.ids[0] for lang in ("en", "ko"))
    assert english[:4] == [256, 257, *b"hi"]
    assert korean[:4] == [256, 258, *b"hi"]


def test_markers_and_padding_are_never_sampled(loaded: LoadedModel) -> None:
    loaded.model.head.weight.data[257:] = 0
    loaded.model.head.weight.data[257:] += 100 * loaded.model.table.data.mean(0)
    writing = loaded.write("hi", _greedy(temperature=9.0, max_new_tokens=200, seed=1))
    list(writing)
    found = writing.decoding.new_tokens(0)
    assert len(found) > 20
    assert max(found) < 256


def test_end_ends_the_text() -> None:
    said = make_loaded(Scripted([*b"bye", 256], prompt=2))
    assert said.generate_full("hi", temperature=0)["samples"][0]["finish"] == "end"
    assert said.generate("hi", temperature=0) == "bye"


def test_wrong_options(loaded: LoadedModel) -> None:
    with pytest.raises(UsageError, match="Did you mean 'max_new_tokens'"):
        loaded.generate("hi", max_new_token=3)
    with pytest.raises(UsageError, match="one sample"):
        loaded.generate("hi", stream=True, num_samples=2)
    with pytest.raises(UsageError, match="language 'xx'"):
        loaded.generate("hi", lang="xx")


def test_config_is_the_models(loaded: LoadedModel) -> None:
    assert loaded.config is loaded.model.config
    assert loaded.only_continues
    assert not make_loaded(Chain(vocab=260), CHAT, chat=ChatFormat()).only_continues


def _greedy(**options: object):
    from holo_cli.inference.generation.sampling import SamplingConfig

    return SamplingConfig.from_options({"temperature": 0, **options})
