"""Which language a document is written in, as an ISO 639-1 code.

Hangul settles it by itself: a text in which a tenth of the letters is Hangul is Korean, however
many English names and code words it carries. Only other texts are given to `py3langid`, whose
model lies in its wheel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

HANGUL_SHARE = 0.1
_SAMPLE = 4000  # characters looked at
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")


def hangul_share(text: str) -> float:
    """The share of letters that are Hangul; 0 for a text without letters."""
    letters = sum(map(str.isalpha, text))
    return len(_HANGUL.findall(text)) / letters if letters else 0.0


def detect(text: str, among: Sequence[str] = ()) -> str:
    """The language of a text; `among` limits the answers (a single one is taken on trust)."""
    languages = tuple(among)
    if len(languages) == 1:
        return languages[0]
    text = text[:_SAMPLE]
    if hangul_share(text) >= HANGUL_SHARE and (not languages or "ko" in languages):
        return "ko"
    others = tuple(code for code in languages if code != "ko")
    if len(others) == 1:
        return others[0]
    return next((code for code in _ranked(text) if not others or code in others), "")


@cache
def supported() -> frozenset[str]:
    """The codes that can be told apart."""
    return frozenset(_ranked("a"))


def _ranked(text: str) -> list[str]:
    """Every known code, the most likely first."""
    import py3langid

    return [str(code) for code, _ in py3langid.rank(text)]
