"""The decisions of one chunk as bytes, by the range coder of the library `constriction`.

for each block of BLOCK tokens: the number of its offset in unary (bits of probability one half),
then its decisions
the range coder's bytes, without those at the end that decode the same if they are zero
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.errors import UsageError
from holo_cli.inference.compression.quantize import (
    BLOCK,
    LIMIT,
    OFFSETS,
    best_offset,
    multiples,
    offset,
    probabilities,
)

MOST_CUT = 8  # bytes: the coder ends with one or two words
_Block = tuple[int, NDArray[np.float64], NDArray[np.int32]]  # offset number, probabilities, bits


class Undecodable(Exception):
    """The bytes are no output of the encoder for these probabilities."""


def coder() -> Any:
    """The module `constriction`. Raises UsageError if it is not installed."""
    try:
        import constriction
    except ModuleNotFoundError:
        raise UsageError(
            "Compression needs the package constriction, which is not installed.",
            next_step="Install it with: pip install 'holo-cli[compress]'",
        ) from None
    return constriction


def encode_bits(bits: NDArray[np.int32], log_odds: NDArray[Any]) -> bytes:
    """The bits of each token's path, (T, depth), coded by their log-odds, (T, depth)."""
    library = coder()
    encoder = library.stream.queue.RangeEncoder()
    half = library.stream.model.Bernoulli(0.5, perfect=False)
    family = library.stream.model.Bernoulli(perfect=False)
    blocks: list[_Block] = []
    for start in range(0, len(bits), BLOCK):
        block = log_odds[start : start + BLOCK].reshape(-1)
        number = best_offset(block)
        for more in [1] * number + [0]:
            encoder.encode(more, half)
        table = probabilities(number)[multiples(block, offset(number)) + LIMIT]
        flat = bits[start : start + BLOCK].reshape(-1)
        encoder.encode(flat, family, table)
        blocks.append((number, table, flat))
    return _shortened(encoder.get_compressed().astype(">u4").tobytes(), blocks)


def _shortened(content: bytes, blocks: list[_Block]) -> bytes:
    """The shortest beginning, its last byte perhaps one higher, that decodes to the same bits."""
    best = content
    for cut in range(1, min(MOST_CUT, len(content)) + 1):
        rest = content[:-cut]
        tries = [rest]
        if rest and rest[-1] < 0xFF:
            tries.append(rest[:-1] + bytes([rest[-1] + 1]))
        found = next((one for one in tries if _decodes(one, blocks)), None)
        if found is None:
            break
        best = found
    return best


def _decodes(content: bytes, blocks: list[_Block]) -> bool:
    model = coder().stream.model
    half, family = model.Bernoulli(0.5, perfect=False), model.Bernoulli(perfect=False)
    decoder = _decoder(content)
    try:
        for number, table, bits in blocks:
            if any(decoder.decode(half) != more for more in [1] * number + [0]):
                return False
            if (decoder.decode(family, table) != bits).any():
                return False
    # the library's report of bytes that the encoder cannot have written
    except (ValueError, AssertionError):
        return False
    return True


def _decoder(content: bytes) -> Any:
    padded = content + bytes(-len(content) % 4 + MOST_CUT)
    words = np.frombuffer(padded, dtype=">u4").astype(np.uint32)
    return coder().stream.queue.RangeDecoder(words)


@cache
def _models(number: int) -> list[Any]:
    make = coder().stream.model.Bernoulli
    return [make(float(p), perfect=False) for p in probabilities(number)]


class BitDecoder:
    """The decisions of one chunk, one after another."""

    def __init__(self, content: bytes) -> None:
        self._decoder = _decoder(content)
        self._half = coder().stream.model.Bernoulli(0.5, perfect=False)
        self._models = _models(0)

    def start_block(self) -> float:
        """Read the offset of the next block. Raises Undecodable."""
        number = 0
        while self._decode(self._half):
            number += 1
            if number >= OFFSETS:
                raise Undecodable
        self._models = _models(number)
        return offset(number)

    def bit(self, multiple: int) -> int:
        """The next bit, whose log-odds were rounded to `multiple`. Raises Undecodable."""
        return self._decode(self._models[multiple + LIMIT])

    def _decode(self, model: Any) -> int:
        try:
            return int(self._decoder.decode(model))
        # the library's report of bytes that the encoder cannot have written
        except (ValueError, AssertionError) as error:
            raise Undecodable from error


def varint(value: int) -> bytes:
    """A number in groups of seven bits, the lowest first (LEB128).

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(content: bytes, at: int) -> tuple[int, int]:
    """The number at an index, and the index after it. Raises Undecodable at the end of the bytes
    and for numbers of more than 63 bits."""
    value = 0
    for shift in range(0, 63, 7):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Undecodable
