"""Text as it comes: whole characters, no part of a stop string, whatever the token boundaries."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from holo_cli.inference.generation.engine import Engine
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.inference.generation.stream import StopFilter, TextGeneration, TextStream, ids_of_text
from tests.inference.inference_fakes import ByteTokenizer, Chain, Scripted

KOREAN = "안녕하세요, 홀로그램! 👩‍👩‍👧‍👦 café 🇰🇷👍🏽 끝."


def write(text: str, n: int = 1, **options: object) -> TextGeneration:
    """A writing whose model says the bytes of a text, then the end."""
    script = [*text.encode("utf-8"), 256]
    config = SamplingConfig.from_options({"temperature": 0, "num_samples": n, **options})
    engine = Engine(Scripted(script, prompt=1), end=256)
    return TextGeneration(engine.generate([1], config), ByteTokenizer(), config.stop)


def stopped_at(text: str, stops: tuple[str, ...]) -> str | None:
    """The slow obvious form: look again after every character; the longest that ends there."""
    for end in range(len(text) + 1):
        found = [s for s in stops if text[:end].endswith(s)]
        if found:
            return text[: end - max(map(len, found))]
    return None


def test_korean_and_emoji_come_whole() -> None:
    writing = write(KOREAN)
    pieces = [piece.text for piece in writing]
    assert "".join(pieces) == KOREAN
    assert all(pieces)
    assert not any("\ufffd" in piece for piece in pieces)
    assert any("👩‍👩‍👧‍👦" in piece for piece in pieces)
    assert writing.samples[0].finish == "end"


def test_a_text_cut_inside_a_syllable_ends_before_it() -> None:
    for length in [1, 2, 3, 4, 5, 17, 30, 33, 36, 40, 60]:
        writing = write(KOREAN, max_new_tokens=length)
        text = "".join(piece.text for piece in writing)
        assert KOREAN.startswith(text)
        assert text == KOREAN.encode()[:length].decode("utf-8", errors="ignore")
        sample = writing.samples[0]
        assert (sample.text, sample.tokens, sample.finish) == (text, length, "length")


@pytest.mark.parametrize("stop", ["하세", "세요, 홀", "!", " 👩‍👩‍👧‍👦", "끝.", "안녕하세요"])
def test_stop_strings_over_token_boundaries(stop: str) -> None:
    writing = write(KOREAN, stop=stop)
    text = "".join(piece.text for piece in writing)
    assert text == KOREAN[: KOREAN.index(stop)]
    assert (writing.samples[0].text, writing.samples[0].finish) == (text, "stop")


def test_stop_in_the_last_token_allowed_is_a_stop() -> None:
    writing = write("abcdef", stop="cd", max_new_tokens=4)
    assert [piece.text for piece in writing] == ["a", "b"]
    assert writing.samples[0].finish == "stop"


def test_text_is_held_back_only_while_it_may_be_a_stop() -> None:
    stops = StopFilter(["###"])
    assert [stops.push(c) for c in "a#b##c#"] == ["a", "", "#b", "", "", "##c", ""]
    assert stops.flush() == "#"
    assert not stops.stopped


def test_stop_filter_against_the_slow_form() -> None:
    """Random texts and stops over two letters, cut into pieces at random."""
    chance = random.Random(0)
    for _ in range(2000):
        text = "".join(chance.choices("ab", k=chance.randrange(1, 14)))
        stops = tuple(
            "".join(chance.choices("ab", k=chance.randrange(2, 6)))
            for _ in range(chance.randrange(0, 3))
        )
        cuts = sorted(chance.choices(range(len(text) + 1), k=4))
        pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
        stream = StopFilter(stops)
        shown = "".join([stream.push(piece) for piece in pieces])
        wanted = stopped_at(text, stops)
        assert stream.stopped == (wanted is not None)
        assert shown + stream.flush() == (text if wanted is None else wanted), (text, stops, cuts)


def test_after_a_stop_nothing_comes() -> None:
    stream = TextStream(ByteTokenizer(), ["b"])
    assert [stream.push(t) for t in b"abc"] == ["a", "", ""]
    assert stream.flush() == ""
    assert stream.text == "a"


def test_a_stopped_row_stops_the_model_and_not_the_others() -> None:
    """Samples of a random model: each is cut at its own first stop, and costs no more tokens."""
    config = SamplingConfig(max_new_tokens=40, seed=4, num_samples=5)
    model, tokenizer = Chain(), ByteTokenizer()
    engine = Engine(model, end=256, banned=[*range(128, 256), 257, 258])

    def run(stop: tuple[str, ...]) -> TextGeneration:
        writing = TextGeneration(engine.generate([1], config), tokenizer, stop)
        pieces: dict[int, str] = dict.fromkeys(range(5), "")
        for piece in writing:
            pieces[piece.row] += piece.text
        assert list(pieces.values()) == [sample.text for sample in writing.samples]
        return writing

    whole = run(())
    stop = ("e", "\x0f")
    cut = run(stop)
    finishes = set()
    for full, part in zip(whole.samples, cut.samples, strict=True):
        wanted = stopped_at(full.text, stop)
        assert part.text == (full.text if wanted is None else wanted)
        assert part.finish == (full.finish if wanted is None else "stop")
        assert part.tokens == (full.tokens if wanted is None else len(wanted) + 1)
        finishes.add(part.finish)
    assert len(finishes) == 2


def test_stopping_early_keeps_what_was_shown() -> None:
    writing = write("abc###def", stop="####")
    shown = [next(writing).text for _ in range(3)]
    writing.stop()
    assert list(writing) == []
    sample = writing.samples[0]
    assert (sample.text, sample.finish) == ("".join(shown), "stopped")


def test_speed_counts_the_tokens_after_the_first() -> None:
    writing = write("abcd", max_new_tokens=3)
    list(writing)
    seconds = writing.decoding.seconds
    assert writing.samples[0].tokens_per_second == pytest.approx(2 / seconds)
    one = write("abcd", max_new_tokens=1)
    list(one)
    assert one.samples[0].tokens_per_second == 0
    assert torch.is_grad_enabled()


class Pairs(ByteTokenizer):
    """Tokens of two characters: 0 is "ab", 1 is "cd", 2 is "e"."""

    def _encode(self, text: str) -> list[int]:
        return [200, *text.encode()]

    def _bytes(self, token: int) -> bytes:
        return {0: b"ab", 1: b"cd", 2: b"e", 200: b""}.get(token, bytes([token]))


def test_ids_of_a_cut_text() -> None:
    tokenizer, ids = Pairs(), [0, 1, 2]
    assert ids_of_text(tokenizer, ids, "abcde") == ids
    assert ids_of_text(tokenizer, ids, "abcd") == [0, 1]
    assert ids_of_text(tokenizer, ids, "abc") == [200, *b"abc"]  # inside a token: encoded anew
    assert ids_of_text(tokenizer, ids, "") == []
    korean = [*"가나".encode()]
    assert ids_of_text(ByteTokenizer(), korean[:5], "가") == korean[:3]
