"""Korean particles (josa): the form a particle takes after a given word.

Whether the last syllable ends in a consonant (batchim) decides between the two forms; a Hangul
syllable's code point holds its final consonant as a remainder modulo 28. Before (으)로 a final ㄹ
(remainder 8) counts as a vowel.
"""

from __future__ import annotations

from holo_cli.translation.particles import RIEUL, final_consonant

# (form after a consonant, form after a vowel) by the name that grammars use
PARTICLES: dict[str, tuple[str, str]] = {
    "은": ("은", "는"),
    "이": ("이", "가"),
    "을": ("을", "를"),
    "과": ("과", "와"),
    "으로": ("으로", "로"),
    "이랑": ("이랑", "랑"),
    "이나": ("이나", "나"),
    "라는": ("이라는", "라는"),
    "라고": ("이라고", "라고"),
    "였": ("이었", "였"),
    "예요": ("이에요", "예요"),
    "야": ("이야", "야"),
    "아": ("아", "야"),
}


def final(word: str) -> int:
    """Index of the last syllable's final consonant, 0 for none.

    >>> final("나무"), final("물"), final("꽃") > 0
    (0, 8, True)
    """
    found = final_consonant(word[-1])
    if found is None:
        raise ValueError(f"{word!r} does not end in a Hangul syllable")
    return found


def particle(word: str, name: str) -> str:
    """The form of a particle after a word.

    >>> [particle(word, "은") for word in ("여우", "곰")]
    ['는', '은']
    >>> [particle(word, "으로") for word in ("집", "길", "바다")]
    ['으로', '로', '로']
    """
    after_consonant, after_vowel = PARTICLES[name]
    last = final(word)
    if last == 0 or (name == "으로" and last == RIEUL):
        return after_vowel
    return after_consonant


def attach(word: str, name: str) -> str:
    """The word with a particle: attach("곰", "이") is "곰이"."""
    return word + particle(word, name)


def familiar(name: str) -> str:
    """A child's name in familiar form: 민준 becomes 민준이, 지수 stays 지수."""
    return name + "이" if final(name) else name
