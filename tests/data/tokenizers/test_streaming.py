"""Streaming decoders emit complete characters only, and all of the text in the end."""

from __future__ import annotations

import random

import pytest

from holo_cli.data.tokenizers.streaming import ByteStreamDecoder, stable_length
from tests.data.tokenizers.test_tokenizers import CORPUS, HARD, KINDS, made


def by_bytes() -> ByteStreamDecoder:
    return ByteStreamDecoder(lambda token: bytes([token]))


@pytest.mark.parametrize("kind", KINDS)
def test_pushes_and_flush_are_the_decoded_text(kind: str) -> None:
    """Also for sequences of tokens that are not valid text."""
    tokenizer = made(kind)
    stream = tokenizer.stream()
    random_ = random.Random(3)
    texts = [tokenizer.encode(text) for text in [*HARD, *CORPUS[:3]]]
    noise = [[random_.randrange(tokenizer.vocab_size) for _ in range(30)] for _ in range(150)]
    for ids in [*texts, *noise]:
        assert "".join(map(stream.push, ids)) + stream.flush() == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_no_replacement_character_before_the_end(kind: str) -> None:
    tokenizer = made(kind)
    stream = tokenizer.stream()
    for text in CORPUS[:3]:
        assert not any("\ufffd" in stream.push(i) for i in tokenizer.encode(text))
        stream.flush()


def test_bytes_of_a_syllable_are_buffered_until_complete() -> None:
    stream = by_bytes()
    assert [stream.push(b) for b in "한글".encode()] == ["", "", "한", "", "", "글"]
    assert stream.flush() == ""


def test_invalid_bytes_become_replacement_characters() -> None:
    stream = by_bytes()
    assert [stream.push(b) for b in b"a\xed\x95b"] == ["a", "", "", "\ufffdb"]
    assert [stream.push(b) for b in b"\xed\x95"] == ["", ""]
    assert stream.flush() == "\ufffd"
    assert stream.push(0x61) == "a"  # the decoder starts afresh


@pytest.mark.parametrize(
    "cluster", ["👨‍👩‍👧", "👍🏽", "🇰🇷", "❤️", "\u1100\u1161\u11a8", "नि", "กี", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
)
def test_a_user_perceived_character_is_emitted_as_one(cluster: str) -> None:
    stream = by_bytes()
    shown = [piece for b in f"a{cluster}b".encode() if (piece := stream.push(b))]
    assert shown == ["a", f"{cluster}b"]


def test_flags_are_pairs() -> None:
    stream = by_bytes()
    shown = [piece for b in "🇰🇷🇫🇷.".encode() if (piece := stream.push(b))]
    assert shown == ["🇰🇷", "🇫🇷."]


@pytest.mark.parametrize("text", ["hello", "안녕", "日本", "привет", "한.", "1", "\n", "ア"])
def test_ordinary_text_is_emitted_at_once(text: str) -> None:
    assert stable_length(text) == len(text)


def test_endless_joining_does_not_stall_a_stream() -> None:
    stream = by_bytes()
    shown = "".join(stream.push(b) for b in ("🧵\u200d" * 200).encode())
    assert len(shown) > 300
