"""Rounded log-odds: no value is close to a boundary, and the coder agrees with itself."""

from __future__ import annotations

import numpy as np
import pytest

from holo_cli.inference.compression.bit_coder import (
    BitDecoder,
    Undecodable,
    encode_bits,
    read_varint,
    varint,
)
from holo_cli.inference.compression.quantize import (
    BLOCK,
    GUARD,
    LIMIT,
    OFFSETS,
    STEP,
    best_offset,
    multiples,
    offset,
    probabilities,
)
from holo_cli.inference.compression.token_tree import TokenTree, depth_of, path_bits


def test_values_are_rounded_alike_with_any_error_below_the_guard() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        values = random.normal(0, 4, 5000)
        chosen = offset(best_offset(values))
        rounded = multiples(values, chosen)
        for error in (-0.99 * GUARD, 0.99 * GUARD):
            assert (multiples(values + error, chosen) == rounded).all()


def test_offset_zero_alone_would_not_do() -> None:
    boundary = np.asarray([STEP / 2])
    assert best_offset(boundary) > 0
    assert multiples(boundary - GUARD / 2, 0.0) != multiples(boundary + GUARD / 2, 0.0)


def test_where_no_offset_is_free_the_best_one_is_taken() -> None:
    dense = np.arange(0, STEP, GUARD / 2)
    assert 0 <= best_offset(dense) < OFFSETS
    assert best_offset(np.asarray([])) == 0


def test_extreme_values_have_a_probability() -> None:
    wild = np.asarray([-np.inf, -1e9, 1e9, np.inf])
    assert multiples(wild, 0.1).tolist() == [-LIMIT, -LIMIT, LIMIT, LIMIT]
    assert 0 < probabilities(3).min() < probabilities(3).max() < 1


@pytest.mark.parametrize("vocab", [1, 2, 3, 29, 257])
def test_a_path_has_the_probability_of_its_token(vocab: int) -> None:
    logits = np.random.default_rng(vocab).normal(0, 3, (vocab, vocab))
    tree = TokenTree(logits)
    tokens = np.arange(vocab)
    odds = tree.path_log_odds(tokens)
    bits = path_bits(tokens, depth_of(vocab))
    log_p = -np.logaddexp(0, np.where(bits, -odds, odds)).sum(axis=1)
    exact = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert log_p == pytest.approx(np.diag(exact), abs=1e-9)
    assert -tree.nats(tokens) == pytest.approx(np.diag(exact), abs=1e-9)


def test_bits_come_back_over_several_blocks_at_their_cost() -> None:
    random = np.random.default_rng(0)
    odds = random.normal(0, 3, (2 * BLOCK + 5, 3))
    bits = (random.random(odds.shape) < 1 / (1 + np.exp(-odds))).astype(np.int32)
    content = encode_bits(bits, odds)
    decoder = BitDecoder(content)
    found = np.empty_like(bits)
    chosen = 0.0
    for position, values in enumerate(odds):
        if position % BLOCK == 0:
            chosen = decoder.start_block()
        rounded = multiples(values, chosen)
        found[position] = [decoder.bit(int(k)) for k in rounded]
    assert (found == bits).all()
    cost = np.logaddexp(0, np.where(bits, -odds, odds)).sum() / np.log(2) / 8
    assert cost < len(content) < 1.003 * cost + 4


def test_numbers_of_any_size_come_back() -> None:
    for value in (0, 1, 127, 128, 300, 2**40, 2**62):
        assert read_varint(b"x" + varint(value), 1) == (value, 1 + len(varint(value)))
    for broken in (b"", b"\x80", b"\xff" * 20):
        with pytest.raises(Undecodable):
            read_varint(broken, 0)
