"""Two checkpoints on the same documents: their scores, the difference, and texts from one prompt.

The difference in bits per byte is that of the sums; its interval treats documents as a sample
(a ratio estimate with both sums over the same documents; Cochran, Sampling Techniques, 1977, 6.4).
Legend: D documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from holo_cli.data.chat_format import ASSISTANT, USER, ChatMarks
from holo_cli.inference.evaluation.eval_corpus import Texts
from holo_cli.inference.evaluation.evaluate import Result, Score
from holo_cli.inference.generation.loaded_model import LoadedModel

ENOUGH = 20  # documents for an interval
WORDS = 6  # of a document that begin a prompt
LONGEST = 60  # characters of such a prompt
LONGEST_MESSAGE = 120  # characters of a user's message that is a prompt
_READ = 200  # tokens of a document in which a prompt is looked for


@dataclass(frozen=True)
class BitsDifference:
    """Bits per byte of the second checkpoint less those of the first; `margin` is half the width
    of the 95 % interval, None for fewer than `ENOUGH` documents."""

    bpb: float
    margin: float | None
    documents: int


@dataclass(frozen=True)
class PairedScores:
    """What two checkpoints score in one language ("" for all of them)."""

    language: str
    a: Score
    b: Score
    difference: BitsDifference | None  # None where the tokenizers read different bytes

    def to_dict(self) -> dict[str, Any]:
        difference = None if self.difference is None else asdict(self.difference)
        return {"a": self.a.to_dict(), "b": self.b.to_dict(), "difference": difference}


def pairs(a: Result, b: Result) -> list[PairedScores]:
    """The scores in total, then by language in the order of `a`."""
    found = [PairedScores("", a.total, b.total, _difference(a, b, None))]
    if len(a.per_language) > 1:
        found += [
            PairedScores(code, score, b.per_language[code], _difference(a, b, code))
            for code, score in a.per_language.items()
            if code in b.per_language
        ]
    return found


def _difference(a: Result, b: Result, language: str | None) -> BitsDifference | None:
    nbytes = a.texts.bytes
    if len(nbytes) != len(b.texts.bytes) or (nbytes != b.texts.bytes).any():
        return None
    chosen = np.ones(len(nbytes), dtype=bool)
    if language is not None:
        chosen = a.texts.languages == language
    sizes = nbytes[chosen].astype(np.float64)
    total, count = float(sizes.sum()), len(sizes)
    if not total:
        return None
    nats = (b.nats - b.special_nats) - (a.nats - a.special_nats)
    bits = nats[chosen] / math.log(2)
    bpb = float(bits.sum()) / total
    margin = None
    if count >= ENOUGH:
        rest = bits - bpb * sizes
        margin = 1.96 * math.sqrt(count / (count - 1) * float((rest**2).sum())) / total
    return BitsDifference(bpb, margin, count)


def opening_prompts(
    loaded: LoadedModel, texts: Texts, most: int, *, messages: bool
) -> list[tuple[str, str]]:
    """(prompt, language): the first words of the first documents, of each language in turn.

    With `messages`, a language that has conversations gives the messages instead with which a user
    begins them, whole and no longer than `LONGEST_MESSAGE`. `texts` are in the tokenizer of
    `loaded`.
    """
    marks = loaded.prompts.chat or ChatMarks.of(loaded.tokenizer.specials)
    openings: dict[str, list[str]] = {}
    asked: dict[str, list[str]] = {}
    start = 0
    for end, language in zip(texts.ends.tolist(), texts.languages.tolist(), strict=True):
        ids = texts.stream.read(start, min(end - start, _READ)).tolist()
        start = end
        conversation = [] if marks is None else marks.split(ids)
        before = takewhile(lambda part: part[0] != ASSISTANT, conversation[:-1])
        said = next((own for role, own in before if role == USER), [])
        message = loaded.tokenizer.decode(said).strip()
        if len(message) <= LONGEST_MESSAGE:
            _add(asked.setdefault(language, []), message, most)
        # the words of an answer do not belong to the message before it
        opening = next((own for _, own in conversation), ids)
        words = loaded.tokenizer.decode(opening).split()[:WORDS]
        prompt = " ".join(words)[:LONGEST].removesuffix("\ufffd")
        _add(openings.setdefault(language, []), prompt, most)
    chosen = {code: (messages and asked.get(code)) or own for code, own in openings.items()}
    turns = [
        (own[turn], code) for turn in range(most) for code, own in chosen.items() if turn < len(own)
    ]
    return turns[:most]


def _add(prompts: list[str], prompt: str, most: int) -> None:
    if prompt and prompt not in prompts and len(prompts) < most:
        prompts.append(prompt)


def sample_texts(
    models: tuple[LoadedModel, LoadedModel],
    prompts: list[tuple[str, str]],
    progress: Callable[[int, int], None] = lambda done, total: None,
    **sampling: Any,
) -> list[dict[str, str]]:
    """{"prompt", "language", "a", "b"} for each prompt, sampled with the same seed: the answer of a
    model that was trained on conversations, and what a base model continues with."""
    rows = []
    for number, (prompt, language) in enumerate(prompts):
        row = {"prompt": prompt, "language": language}
        for key, loaded in zip("ab", models, strict=True):
            known = loaded.prompts.languages or loaded.prompts.data_languages
            lang = language if language in known else None
            row[key] = loaded.answer(prompt, lang=lang, **sampling)
            progress(2 * number + (key == "b") + 1, 2 * len(prompts))
        rows.append(row)
    return rows
