"""Which language a document is written in, as an ISO 639-1 code.

The script decides first: a text with at least 10 % Hangul among its letters is Korean, however
many English names and identifiers it contains; kana mean Japanese, Han characters without kana
Chinese. A text with enough words that only English has is English. All other texts go to
`py3langid`, whose model is part of its wheel; it is twenty times slower than these rules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

HANGUL_SHARE = 0.1
_CJK_SHARE = 0.3
_SAMPLE = 900  # characters examined: a third each from beginning, middle and end
_MODEL_SAMPLE = 450  # of these, the first that py3langid reads
# runs: matching one is much faster than matching its letters
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]+")
_KANA = re.compile("[\u3041-\u30fa\u30fc-\u30ff\uff66-\uff9d]+")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
_WORD = re.compile(r"[^\W\d_]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Forms of the Japanese reform of 1946 that neither Chinese script has: a heading in Han characters
# alone with one of them is Japanese.
_JAPANESE_HAN = re.compile(
    "[円駅応価仮関気経検権県験広黒済歳歩様実従読図戦択単団鉄転働売発変毎両対続総戻込圧]"
)
# Frequent English words that are not words of other languages in the Latin script
_ENGLISH = _words(
    "about after all also and any are because been before being but by can could do does each "
    "from has have how if into it its like make may more most must not of only other out see "
    "should so some such than that the their them then there these they this those through use "
    "used using was we were what when where which who why will with would you your"
)
_ENGLISH_SHARE, _ENGLISH_WORDS = 0.15, 2
# Log prior in nats against the hundred other languages, about the share of the web. It decides
# for very short texts ("hello world", "Article 7").
_COMMON = _words(
    "ar bn cs da de el es fa fi fr he hi hu id it ja ko nl no pl pt ro ru sv th tr uk vi zh"
)
_PRIOR = {"en": 5.0, **dict.fromkeys(_COMMON, 4.0)}
_NO_LANGUAGE = "zxx"


def hangul_share(text: str) -> float:
    """The share of letters that are Hangul; 0 for a text without letters."""
    letters = sum(map(str.isalpha, text))
    return _matched(_HANGUL, text) / letters if letters else 0.0


def detect(text: str, among: Sequence[str] = ()) -> str:
    """The language of a text, one of `among` if given (a single one is returned unchecked).

    "" for a text without letters, or in a language that cannot be detected.
    """
    languages = tuple(among)
    if len(languages) == 1:
        return languages[0]
    text = _sample(text)
    if not _WORD.search(text):
        return ""
    if not text.isascii() and (code := _by_letters(text)) and (not languages or code in languages):
        return code
    others = tuple(code for code in languages if code != "ko")
    if len(others) == 1:
        return others[0]
    if (not languages or "en" in languages) and _is_english(text):
        return "en"
    return _ranked(text, others)


@cache
def supported() -> frozenset[str]:
    """The codes that `detect` can return."""
    return frozenset(_identifier().labels) - {_NO_LANGUAGE}


def _sample(text: str) -> str:
    if len(text) <= _SAMPLE:
        return text
    part = _SAMPLE // 3
    middle = (len(text) - part) // 2
    return f"{text[:part]}\n{text[middle : middle + part]}\n{text[-part:]}"


def _matched(pattern: re.Pattern[str], text: str) -> int:
    """The number of characters in all matches."""
    return sum(map(len, pattern.findall(text)))


def _by_letters(text: str) -> str:
    """The language that the script implies, or ""."""
    hangul = _matched(_HANGUL, text)
    if hangul >= HANGUL_SHARE * len(text):
        return "ko"  # without counting the letters, which are no more
    kana, han = _matched(_KANA, text), _matched(_HAN, text)
    if not hangul + kana + han:
        return ""
    letters = sum(map(str.isalpha, text))
    if hangul >= HANGUL_SHARE * letters:
        return "ko"
    if kana + han < _CJK_SHARE * letters:
        return ""
    return "ja" if kana > han / 20 or _JAPANESE_HAN.search(text) else "zh"


def _is_english(text: str) -> bool:
    words = _WORD.findall(text.lower())
    found = sum(map(_ENGLISH.__contains__, words))
    return found >= _ENGLISH_WORDS and found >= _ENGLISH_SHARE * len(words)


@cache
def _identifier() -> LanguageIdentifier:
    # a separate instance: any other user of py3langid may call `set_languages` on the shared one
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def _ranked(text: str, among: Sequence[str]) -> str:
    """The most probable language, one of `among` if given."""
    best, highest = "", -math.inf
    for code, score in _identifier().rank(text[:_MODEL_SAMPLE]):
        if among and code not in among:
            continue
        score += _PRIOR.get(code, 0.0)
        if score > highest:
            best, highest = str(code), score
    return "" if best == _NO_LANGUAGE else best
