"""Korean particles after text that is only known when the program runs.

Whether the last sound is a consonant (batchim) decides between the two forms. A Hangul syllable's
code point holds its final consonant as a remainder modulo 28; digits are read as Sino-Korean
numbers. After anything else (a Latin name, a path) both forms are written, "은(는)", as Korean
software does.
"""

from __future__ import annotations

FORMS = {  # after a consonant, after a vowel, where the sound is unknown
    "은": ("은", "는", "은(는)"),
    "이": ("이", "가", "이(가)"),
    "을": ("을", "를", "을(를)"),
    "과": ("과", "와", "과(와)"),
    "으로": ("으로", "로", "(으)로"),
    "이라": ("이라", "라", "(이)라"),
    "이나": ("이나", "나", "(이)나"),
}
CLOSING = "'\"’”)]》>`."  # not pronounced
RIEUL = 8  # index of the final consonant ㄹ, after which (으)로 is 로
DIGITS = {  # final consonant of 퍼센트 영 일 이 삼 사 오 육 칠 팔 구
    "%": 0,
    "0": 21, "1": RIEUL, "2": 0, "3": 16, "4": 0, "5": 0, "6": 1, "7": RIEUL, "8": RIEUL, "9": 0,
}  # fmt: skip


def final_consonant(letter: str) -> int | None:
    """Index of a Hangul syllable's final consonant, 0 for none; None for any other letter.

    >>> final_consonant("무"), final_consonant("물"), final_consonant("m")
    (0, 8, None)
    """
    return (ord(letter) - ord("가")) % 28 if "가" <= letter <= "힣" else None


def with_particle(text: str, particle: str) -> str:
    """The text with the fitting form of a particle.

    >>> with_particle("모델", "을"), with_particle("나무", "을"), with_particle("ngt", "을")
    ('모델을', '나무를', 'ngt을(를)')
    >>> with_particle("3", "으로"), with_particle("서울", "으로")
    ('3으로', '서울로')
    """
    after_consonant, after_vowel, unknown = FORMS[particle]
    last = text.rstrip(CLOSING)[-1:]
    final = DIGITS[last] if last in DIGITS else final_consonant(last) if last else None
    if final is None:
        return text + unknown
    if final == 0 or (particle == "으로" and final == RIEUL):
        return text + after_vowel
    return text + after_consonant
