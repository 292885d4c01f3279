"""Minimal pairs: two sentences that differ in one word, of which one is grammatical.

Generated from this project's own word lists, most of which the embedded stories use, so that they
suit models of a million parameters and need no download. The method is that of BLiMP (Warstadt et
al. 2020, arXiv 1912.00582), without its sentences. To add a phenomenon, add an entry in
`english.py` or `korean.py`."""

from __future__ import annotations

from holo_cli.inference.minimal_pairs.base import MinimalPair, Phenomenon
from holo_cli.inference.minimal_pairs.english import ENGLISH
from holo_cli.inference.minimal_pairs.korean import KOREAN

PHENOMENA: dict[str, tuple[Phenomenon, ...]] = {"en": ENGLISH, "ko": KOREAN}

__all__ = ["PHENOMENA", "MinimalPair", "Phenomenon"]
