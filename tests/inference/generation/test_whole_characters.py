"""Samples consist of whole characters, whatever the model predicts."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from holo_cli.data.tokenizers import Tokenizer, make_tokenizer
from holo_cli.inference.generation.logits import BANNED
from holo_cli.inference.generation.whole_characters import WholeCharacters, begun, missing_bytes

TEXTS = ["여우가 숲에서 살았어요. The fox \U0001f98a said é.", "나무와 강과 하늘"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """All 256 bytes and a few merges, some of which end within a character."""
    return make_tokenizer("bpe", texts=lambda: iter(TEXTS), vocab_size=300)


def is_prefix(data: bytes) -> bool:
    """Whether a text may begin with these bytes."""
    ends = [
        b"",
        *(bytes(rest) for n in (1, 2, 3) for rest in product((0x80, 0x9F, 0xBF), repeat=n)),
    ]
    return any(is_text(data + end) for end in ends)


def is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def test_bytes_begun_and_missing() -> None:
    for character in "aé가\U0001f98a":
        data = character.encode()
        for cut in range(1, len(data)):
            assert begun(data[:cut]) == data[:cut]
            assert missing_bytes(data[:cut]) == len(data) - cut
        assert begun(data) == b""
    assert missing_bytes(b"") == 0
    for wrong in (b"\x80", b"\xc0", b"\xff", b"\xed\xa0", b"\xe0\x80", b"\xf5", b"a\xea\x41"):
        assert begun(wrong) is None


@pytest.mark.parametrize("start", [b"", b"\xea", b"\xea\xb0", b"\xf0\x9f", b"\xe0", b"\xed"])
@pytest.mark.parametrize("left", [0, 1, 2, 9])
def test_what_may_follow(start: bytes, left: int, tokenizer: Tokenizer) -> None:
    guide = WholeCharacters(tokenizer, tokenizer.vocab_size)
    logits = torch.zeros(1, tokenizer.vocab_size)
    (row,) = guide.exclude(logits, [start], [left])
    fits = set()
    for token in range(tokenizer.vocab_size):
        piece = tokenizer.token_bytes(token)
        allowed = is_prefix(start + piece) and (bool(piece) or not start)
        if allowed and missing_bytes(begun(start + piece) or b"") <= left:
            fits.add(token)
    kept = {token for token in range(tokenizer.vocab_size) if row[token] != BANNED}
    assert kept == (fits or set(range(tokenizer.vocab_size)))
    assert logits.eq(0).all(), "the logits given are left alone"


def test_every_prefix_of_a_character_can_be_finished(tokenizer: Tokenizer) -> None:
    """Each byte is a token, so with as many tokens left as bytes are missing one always fits."""
    guide = WholeCharacters(tokenizer, tokenizer.vocab_size)
    leads = [bytes([lead]) for lead in range(0xC2, 0xF5)]
    pairs = [lead + bytes([second]) for lead in leads for second in range(0x80, 0xC0)]
    starts = [start for start in (*leads, *pairs) if begun(start) == start]
    assert len(starts) > 1200
    left = [missing_bytes(start) - 1 for start in starts]
    rows = guide.exclude(torch.zeros(len(starts), tokenizer.vocab_size), starts, left)
    for start, row in zip(starts, rows, strict=True):
        assert 0 < row.gt(BANNED).sum() < tokenizer.vocab_size, start


def test_random_models_write_whole_characters(tokenizer: Tokenizer) -> None:
    """A flat distribution, which without the guide breaks a character at almost every token."""
    guide = WholeCharacters(tokenizer, tokenizer.vocab_size)
    generator = torch.Generator().manual_seed(3)
    for tokens in (1, 2, 3, 50):
        start, data, free = b"", b"", b""
        for done in range(tokens):
            logits = torch.zeros(1, tokenizer.vocab_size)
            weights = guide.exclude(logits, [start], [tokens - done - 1]).softmax(-1)
            token = int(torch.multinomial(weights[0], 1, generator=generator))
            start = guide.after(start, token)
            data += tokenizer.token_bytes(token)
            drawn = int(torch.randint(tokenizer.vocab_size, (), generator=generator))
            free += tokenizer.token_bytes(drawn)
        assert start == b""
        assert begun(data) == b""
    assert begun(free) is None, "without the guide it is no text"


def test_characters_as_tokens_need_no_guide(tokenizer: Tokenizer) -> None:
    characters = make_tokenizer("char", texts=lambda: iter(TEXTS))
    assert not WholeCharacters(characters, characters.vocab_size).is_needed
    assert WholeCharacters(tokenizer, tokenizer.vocab_size).is_needed


def test_a_row_that_nothing_fits_is_left_as_it_is() -> None:
    characters = make_tokenizer("char", texts=lambda: iter(TEXTS))
    guide = WholeCharacters(characters, characters.vocab_size)
    logits = torch.randn(1, characters.vocab_size)
    assert torch.equal(guide.exclude(logits, [b"\xea"], [5]), logits)
