"""The rules of the filter, cheapest first.

They follow Gopher (Rae et al. 2021), C4 (Raffel et al. 2020), FineWeb and FineWeb-2 (Penedo et al.
2024, 2025). Each compares one measure with one limit; a document is counted under the first rule
that it breaks. Unlike in C4, nothing is removed from a document: it is kept or dropped as a whole.

Deliberately omitted from C4: the rule on curly brackets (common in texts about programming), the
list of bad words (it drops whole dialects and medical texts), and the full stop after every line.
"""

from __future__ import annotations

from collections.abc import Callable

from holo_cli.data.cleaning.measures import Measures
from holo_cli.data.cleaning.thresholds import Thresholds
from holo_cli.data.cleaning.words import WordTable
from holo_cli.data.normalize import UNDECODABLE

Rule = Callable[[Measures, Thresholds], bool]
"""Whether a document breaks the rule."""


def _duplicate_phrases(measures: Measures, limits: Thresholds) -> bool:
    # a repeated run of ten words contains repeated runs of five: the cheaper check comes first
    five, ten = limits.max_duplicate_5_grams, limits.max_duplicate_10_grams
    if min(five, ten) >= 1:
        return False
    share = measures.duplicate_runs(5, min(five, ten))
    return share > five or (share > ten and measures.duplicate_runs(10, ten) > ten)


_ALWAYS: dict[str, Rule] = {
    "few words": lambda m, t: m.word_count < t.min_words,
    "many words": lambda m, t: m.word_count > t.max_words,
    "undecodable": lambda m, t: UNDECODABLE in m.text,  # `normalize` keeps them if they are many
    "odd characters": lambda m, t: m.odd() > t.max_odd,
    "markup": lambda m, t: m.markup() > t.max_markup,
}
_WORDS: dict[str, Rule] = {
    "mean word length": lambda m, t: not t.min_mean_word <= m.mean_word() <= t.max_mean_word,
    "symbols": lambda m, t: m.symbols() > t.max_symbols,
    "placeholder text": lambda m, t: "lorem ipsum" in m.text or "Lorem ipsum" in m.text,
    "words without letters": lambda m, t: m.alphabetic() < t.min_alphabetic,
    "few stop words": lambda m, t: t.min_stop_words > 0 and m.stop_words() < t.min_stop_words,
    "repeated phrases": lambda m, t: any(
        limit < 1 and m.top_run(n, limit) > limit
        for n, limit in ((2, t.max_top_2_grams), (3, t.max_top_3_grams), (4, t.max_top_4_grams))
    ),
    "duplicate phrases": _duplicate_phrases,
}
_LINES: dict[str, Rule] = {
    "bullets": lambda m, t: m.bullets() > t.max_bullets,
    "ellipses": lambda m, t: m.ellipses() > t.max_ellipses,
    "line punctuation": lambda m, t: m.line_punctuation() < t.min_line_punctuation,
    "short lines": lambda m, t: m.short_lines() > t.max_short_lines,
    "line ends": lambda m, t: m.line_ends() > t.max_line_ends,
    "duplicate lines": lambda m, t: (
        m.duplicate_lines[0] > t.max_duplicate_lines
        or m.duplicate_lines[1] > t.max_duplicate_line_characters
    ),
}


def names() -> tuple[str, ...]:
    """The names of all rules."""
    return (*_ALWAYS, *_LINES, *_WORDS)


def broken(text: str, limits: Thresholds, table: WordTable) -> str:
    """The first rule that a text breaks, or "". `table` must have the same limits."""
    measures = Measures(text, table, spaced=limits.spaced)
    groups = [_ALWAYS]
    if measures.word_count >= limits.judged_words:
        if len(measures.lines) >= limits.judged_lines:
            groups.append(_LINES)
        groups.append(_WORDS)
    for group in groups:
        for name, breaks in group.items():
            if breaks(measures, limits):
                return name
    return ""
