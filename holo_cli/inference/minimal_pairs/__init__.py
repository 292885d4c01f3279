"""Minimal pairs: two sentences that differ in one word, of which one is right.

Made from word lists of this project, most of which the embedded stories use, so that they say
something of a model of a million parameters and need no download. The idea is that of BLiMP
(Warstadt et al. 2020, arXiv 1912.00582); none of its sentences is here. Adding a phenomenon is an
entry in `english.py` or `korean.py`.
"""

from __future__ import annotations

from holo_cli.inference.minimal_pairs.base import Pair, Phenomenon
from holo_cli.inference.minimal_pairs.english import ENGLISH
from holo_cli.inference.minimal_pairs.korean import KOREAN

PHENOMENA: dict[str, tuple[Phenomenon, ...]] = {"en": ENGLISH, "ko": KOREAN}

__all__ = ["PHENOMENA", "Pair", "Phenomenon"]
