"""Fingerprints of a text: one that only the same text has, and one that similar texts share.

Both are taken of the text in small letters and without spaces, so that neither a line break nor a
capital letter makes a text new.

`signatures` are MinHashes (Broder 1997): of all stretches of five characters (shingles) the
smallest value under each of 192 hash functions. The share of equal values in two signatures
estimates the Jaccard similarity of the two sets of shingles, shared / (shared + not shared), with
a standard error of sqrt(J (1 - J) / 192), 0.029 at J = 0.8. The minima are worked out by `rensa`,
the shingles' own hashes with numpy: a Python object for each would take ten times as long. Of each
value 16 bits are kept; that two differing values agree in them adds 0.00002 to the estimate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHINGLE = 5  # characters
VALUES = 192
SEED = 1
_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)
_FINISH = np.uint64(0xD6E8FEB86659FD93)


def folded(text: str) -> str:
    """The text as it is compared."""
    return "".join(text.lower().split())


def exact(text: str) -> bytes:
    """16 bytes for a folded text; two texts have the same if they are the same."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def shingles(text: str) -> NDArray[np.uint64]:
    """A hash of every stretch of five characters of a folded text, in order, repeats included.

    A text shorter than that is one shingle.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    count = len(codes) - SHINGLE + 1
    if count < 1:
        codes = np.concatenate((codes, np.zeros(SHINGLE - len(codes), dtype=codes.dtype)))
        count = 1
    hashes = codes[:count].astype(np.uint64)
    for i in range(1, SHINGLE):
        hashes *= _MULTIPLY  # wraps around
        hashes += codes[i : count + i]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _FINISH
    hashes ^= hashes >> np.uint64(29)
    return hashes


def jaccard(a: str, b: str) -> float:
    """The similarity that signatures estimate, worked out in full: for tests and measurements."""
    first, second = np.unique(shingles(folded(a))), np.unique(shingles(folded(b)))
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def signatures(texts: Sequence[str]) -> NDArray[np.uint16]:
    """The MinHash values of folded texts: (texts, 192) uint16."""
    from rensa import RMinHash

    if not texts:
        return np.zeros((0, VALUES), dtype=np.uint16)
    rows = [shingles(text) for text in texts]
    offsets = np.zeros(len(rows) + 1, dtype=np.uint64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(rows), offsets, VALUES, SEED
    )
    return (np.array(matrix.to_rows(), dtype=np.uint32) & 0xFFFF).astype(np.uint16)
