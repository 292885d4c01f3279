"""The educational value of a text, from 0 to 5.

If the dataset provides a score (FineWeb-Edu: a classifier trained on judgements of a large model, 0
to 5), that score is used. Otherwise a **heuristic** looks for surface features of explanations; it
has not been validated against human or model judgements. It supports English and Korean; texts in
other languages get no value and are never dropped for it.

    value = 5 x (0.4 explaining + 0.3 sentences + 0.3 variety) x (1 - selling)

- explaining: words for reasons, examples and definitions; 1 from two per 100 words;
- sentences: the share of words in sentences of 6 to 60 words (4 to 40 in Korean);
- variety: distinct words among the first 200; 1 from 60 %;
- selling: words of advertising and exclamation marks; 1 from five per 100 words.
"""

from __future__ import annotations

import re

from holo_cli.data.document import Document

_READ = 20_000  # characters of a text that the heuristic reads
_SENTENCE_END = re.compile(r"(?<=[.!?。])[\s\"')\]]+|\n\s*\n")
_EXPLAINING = {
    "en": re.compile(
        r"\b(?:because|therefore|thus|hence|since|whereas|means|meaning|called|defined|definition|"
        r"consists?|example|instance|such as|for this reason|as a result|if|then|when|so that|"
        r"in other words|however|although|unlike|compared|depends?|causes?|caused|explains?|"
        r"refers?|known as|according|shows?|between|first|second|finally)\b",
        re.IGNORECASE,
    ),
    "ko": re.compile(
        r"때문|따라서|그러므로|그래서|왜냐하면|예를 들|예컨대|즉[ ,]|다시 말|이란 |란 |의미|정의|"
        r"이유|원인|결과|반면|하지만|그러나|경우|만약|(?:으|이)?면 |라고 (?:부르|하)|불리|구성|"
        r"비교|차이|관계|방법|먼저|다음|마지막|설명|통해|위해|에 따르면"
    ),
}
_SELLING = {
    "en": re.compile(
        r"\b(?:buy|sale|cheap|discount|coupon|click|subscribe|download now|order now|free shipping|"
        r"best price|deals?|offer|casino|promo|limited time|sign up)\b|!",
        re.IGNORECASE,
    ),
    "ko": re.compile(
        r"구매|할인|특가|무료배송|쿠폰|클릭|구독|이벤트|상담|문의|최저가|대출|카지노|바로가기|!"
    ),
}
_LENGTHS = {"en": (6, 60), "ko": (4, 40)}


def value(document: Document, language: str) -> float | None:
    """The score of the dataset, else of the heuristic, else None."""
    if document.score is not None:
        return document.score
    return heuristic(document.text, language)


def heuristic(text: str, language: str) -> float | None:
    """The heuristic value of a text, 0 to 5; None for an unsupported language."""
    if language not in _EXPLAINING:
        return None
    text = text[:_READ]
    words = text.split()
    if not words:
        return 0.0
    hundreds = len(words) / 100
    explaining = min(len(_EXPLAINING[language].findall(text)) / hundreds / 2, 1)
    shortest, longest = _LENGTHS[language]
    sizes = [len(sentence.split()) for sentence in _SENTENCE_END.split(text)]
    sentences = sum(size for size in sizes if shortest <= size <= longest) / len(words)
    beginning = words[:200]
    variety = min(len(set(beginning)) / len(beginning) / 0.6, 1)
    selling = min(len(_SELLING[language].findall(text)) / hundreds / 5, 1)
    return 5 * (0.4 * explaining + 0.3 * min(sentences, 1) + 0.3 * variety) * (1 - selling)
