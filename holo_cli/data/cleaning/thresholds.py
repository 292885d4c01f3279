"""The limits of the rules, for each language.

The figures for Korean, German, French, Spanish, Italian, Japanese and Chinese are those of
FineWeb-2 (Penedo et al. 2025, https://arxiv.org/abs/2506.20920; `configs/kor_Hang.yml` and so on),
which were fitted to each language. The English ones, and the defaults for other languages, are
those of Gopher (Rae et al. 2021, https://arxiv.org/abs/2112.11446, table A1) and FineWeb (Penedo et
al. 2024, https://arxiv.org/abs/2406.17557). They were made for web pages segmented by a word
tokenizer of the language; here words are separated by white space, or single characters in scripts
without spaces. Comments mark the limits that differ for this reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache


@dataclass(frozen=True)
class Thresholds:
    """The limits of the rules for one language. Shares lie in [0, 1].

    The statistical rules apply to texts of at least `judged_words` words, the rules about lines to
    those that also have `judged_lines` lines: a short line of dialogue is not junk.
    """

    stop_words: frozenset[str] = frozenset()
    stop_endings: tuple[str, ...] = ()  # suffixes, in languages with attached particles
    spaced: bool = True  # whether words are separated by spaces; else a word is a character
    judged_words: int = 20
    judged_lines: int = 5
    min_words: int = 1  # Gopher: 50
    max_words: int = 1_000_000  # Gopher: 100,000; a book is one document here
    min_mean_word: float = 2.0  # characters; Gopher: 3 to 10
    max_mean_word: float = 12.0
    min_alphabetic: float = 0.7  # share of words with a letter; Gopher: 0.8, too much for code
    min_stop_words: float = 0.0  # share of words; Gopher asks for two of eight words
    max_symbols: float = 0.1  # "#" and ellipses per word
    max_bullets: float = 0.9  # share of lines
    max_ellipses: float = 0.3  # share of lines
    min_line_punctuation: float = 0.0  # share of lines that end a sentence
    max_short_lines: float = 1.0  # share of lines of at most 30 characters
    max_duplicate_lines: float = 0.3  # share of repeated lines
    max_duplicate_line_characters: float = 0.2
    max_line_ends: float = 0.3  # per word
    max_top_2_grams: float = 0.2  # share of characters in the most frequent pair of words
    max_top_3_grams: float = 0.18
    max_top_4_grams: float = 0.16
    # Share of characters in repeated runs of words. Gopher: 0.15 and 0.1; a reference manual, which
    # repeats phrases for each function, has up to 0.26.
    max_duplicate_5_grams: float = 0.25
    max_duplicate_10_grams: float = 0.2
    max_markup: float = 0.15  # share of characters in tags, entities, styles and script
    max_odd: float = 0.03  # share of letters that suggest a wrong encoding


@cache
def limits() -> dict[str, Callable[[float], float]]:
    """The names of the limits that can be set, in order, with their types."""
    types: dict[str, Callable[[float], float]] = {"int": int, "float": float}
    return {f.name: types[str(f.type)] for f in fields(Thresholds) if str(f.type) in types}


def _split(text: str) -> list[str]:
    return text.split()


def _set(text: str) -> frozenset[str]:
    return frozenset(_split(text))


_ENGLISH = _set(
    "the be to of and that have with a in is it for on was as are this you not or by an at "
    "from i he she they we but if can will which so what his her their"
)
_ROWS = {
    "en": Thresholds(
        stop_words=_ENGLISH,
        min_stop_words=0.08,
        min_line_punctuation=0.12,
        max_short_lines=0.67,
    ),
    "ko": Thresholds(
        # FineWeb-2's stop words are morphemes. In words separated by spaces they are suffixes:
        # particles and verb endings. At least one word in six must have one; a list of nouns has
        # one in ten by chance. English stop words count too: a text with 10 % Hangul is
        # Korean, and the rest of it is mostly English.
        stop_words=_ENGLISH,
        stop_endings=tuple(
            _split(
                "의 다 이 는 에 을 한 하 은 를 고 가 로 인 서 도 면 게 지 요 며 와 과 "
                "나 해 들 만 까 된 할 될 던 죠 니 여 아 어"
            )
        ),
        min_stop_words=0.16,
        min_mean_word=1.0,
        max_mean_word=7.0,  # FineWeb-2: 6, of morphemes
        min_alphabetic=0.791,
        min_line_punctuation=0.062,
        max_duplicate_lines=0.374,
        max_line_ends=0.392,  # FineWeb-2: 0.196 per morpheme; a word has about two
        max_top_2_grams=0.282,
        max_top_3_grams=0.228,
        max_top_4_grams=0.185,
        max_duplicate_5_grams=0.201,
        max_duplicate_10_grams=0.127,
    ),
    "de": Thresholds(
        stop_words=_set("der und die in von im den des mit das er dem als wurde für ist zu nicht"),
        min_stop_words=0.06,
        max_mean_word=15.0,
        max_duplicate_lines=0.263,
        max_top_2_grams=0.169,
        max_top_3_grams=0.153,
        max_top_4_grams=0.137,
    ),
    "fr": Thresholds(
        stop_words=_set("de la le et à en l des du les est d un une il dans par au que qui pas"),
        min_stop_words=0.06,
        max_mean_word=11.0,
        min_line_punctuation=0.1,
        max_duplicate_lines=0.264,
        max_top_2_grams=0.161,
        max_top_3_grams=0.149,
        max_top_4_grams=0.134,
    ),
    "es": Thresholds(
        stop_words=_set("de la en el y a que del los se por un con una las su no es"),
        min_stop_words=0.06,
        max_mean_word=14.0,
        min_line_punctuation=0.1,  # FineWeb-2: 0.3
        max_duplicate_lines=0.265,
        max_top_2_grams=0.161,  # FineWeb-2: 0.077 0.097 0.112, by a different method
        max_top_3_grams=0.149,
        max_top_4_grams=0.134,
    ),
    "it": Thresholds(
        stop_words=_set("di e il la in a del che è della un per nel l con da i una non si"),
        min_stop_words=0.06,
        max_mean_word=21.0,
        min_line_punctuation=0.025,
        max_duplicate_lines=0.246,
        max_top_2_grams=0.198,
        max_top_3_grams=0.156,
        max_top_4_grams=0.133,
    ),
    # a word is a character here, so the limits on runs of words are off
    "ja": Thresholds(
        stop_words=_set("の に を は た て が と で し れ さ い る"),
        spaced=False,
        min_stop_words=0.1,
        min_mean_word=0.0,
        min_line_punctuation=0.167,
        max_duplicate_lines=0.375,
        max_top_2_grams=1.0,
        max_top_3_grams=1.0,
        max_top_4_grams=1.0,
        max_duplicate_5_grams=1.0,
        max_duplicate_10_grams=0.307,
    ),
    "zh": Thresholds(
        stop_words=_set("的 在 是 和 了 於 于 為 为 有 被 中 他 與 与 后 後 也 而 由 不 一 人 之"),
        spaced=False,
        min_stop_words=0.03,
        min_mean_word=0.0,
        min_line_punctuation=0.106,
        max_duplicate_lines=0.287,
        max_top_2_grams=1.0,
        max_top_3_grams=1.0,
        max_top_4_grams=1.0,
        max_duplicate_5_grams=1.0,
        max_duplicate_10_grams=0.256,
    ),
}
_ANY = Thresholds()


def languages() -> tuple[str, ...]:
    """The languages with their own limits."""
    return tuple(_ROWS)


@cache
def thresholds_of(language: str, *, strict: bool = False) -> Thresholds:
    """The limits of a language, or the defaults.

    `strict` is for web text: Gopher's minimum length, and less repetition than a manual has.
    """
    found = _ROWS.get(language, _ANY)
    if not strict:
        return found
    return replace(
        found,
        min_words=50 if found.spaced else 100,
        max_words=100_000,
        min_alphabetic=max(found.min_alphabetic, 0.8),
        max_symbols=0.05,
        max_duplicate_line_characters=0.1,
        max_duplicate_5_grams=min(found.max_duplicate_5_grams, 0.15),
        max_duplicate_10_grams=min(found.max_duplicate_10_grams, 0.1),
        max_markup=0.05,
        max_odd=0.02,
    )
