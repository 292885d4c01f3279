"""The material of the needle tasks: facts, questions, and a pool of stories as tokens.

A vocabulary has, in this order: one token for all that is too rare, the words of facts and
questions, names, secret words, and the commonest words of the embedded stories. English is split
into words and marks. Korean is split into syllables and marks, since its words carry their
particles and would be too many; names and secret words are one token each there too. Secret words
occur in no story, so that an answer is in one place only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.sources.stories.grammar import tell_story

STORIES = 600  # in the pool
NAME, SECRET = "{name}", "{secret}"
_WORD = re.compile(r"[a-z']+|[^\sa-z']")

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Wording:
    """A language's facts and questions. Parts between spaces are tokens."""

    fact: str
    question: str
    names: tuple[str, ...]
    secrets: tuple[str, ...]
    split: Callable[[str], list[str]]

    @property
    def fixed(self) -> list[str]:
        """The words of facts and questions, each once."""
        words = [w for w in f"{self.fact} {self.question}".split() if w not in (NAME, SECRET)]
        return list(dict.fromkeys(words))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORDINGS = {
    "en": Wording(
        f"the secret word of {NAME} is {SECRET} .",
        f"what is the secret word of {NAME} ?",
        _words("mina anna lily nora rosa tess ben finn hugo leo owen theo"),
        _words("""cedar copper velvet amber ivory saffron granite juniper marigold raven crystal
        falcon maple coral indigo tulip"""),
        lambda text: _WORD.findall(text.lower()),
    ),
    "ko": Wording(
        f"{NAME} 의 비 밀 단 어 는 {SECRET} 입 니 다 .",
        f"{NAME} 의 비 밀 단 어 는 무 엇 입 니 까 ?",
        _words("민아 서연 지호 하은 도윤 수아 예준 지우 유나 다은 현우 나연"),
        _words("""삼나무 자작나무 단풍 산호 호랑이 백합 진주 수정 청포도 라벤더 코끼리 펭귄 대나무
        동백꽃 은하수 고래"""),
        lambda text: [character for character in text if not character.isspace()],
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """Stories one after another as tokens (N,), and where sentences begin, (S,), ascending."""

    tokens: Ints
    sentences: Ints
    words: tuple[str, ...]  # the vocabulary

    def ids(self, text: str) -> list[int]:
        """The tokens of a fact or a question, with names and secrets filled in."""
        return [self.words.index(word) for word in text.split()]


@cache
def pool(language: str, vocab_size: int) -> Pool:
    """The pool of a language; takes about a quarter of a second the first time."""
    wording = WORDINGS[language]
    own = ["<rare>", *wording.fixed, *wording.names, *wording.secrets]
    text = [w for n in range(STORIES) for w in wording.split(tell_story(n, language).text)]
    common = Counter(text)
    for word in own:
        common.pop(word, None)
    ranked = sorted(common, key=lambda word: (-common[word], word))
    words = (own + ranked)[:vocab_size]
    number = {word: n for n, word in enumerate(words)} | dict.fromkeys(wording.secrets, 0)
    tokens = np.array([number.get(word, 0) for word in text], dtype=np.int64)
    ends = np.array([word in ".!?" for word in text])
    return Pool(tokens, np.flatnonzero(np.concatenate([[True], ends[:-1]])), tuple(words))


def fixed_words(language: str) -> int:
    """Size of the vocabulary without any word that only stories have."""
    wording = WORDINGS[language]
    return 1 + len(wording.fixed) + len(wording.names) + len(wording.secrets)
