"""Scores a model on minimal pairs: how often the right sentence is the more likely one.

The score of a sentence is its log-likelihood as a document, summed over its tokens. Chance level is
one half, and a pair with equally likely sentences counts as half right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.errors import UsageError, nearest
from holo_cli.inference.evaluation.likelihood import rolling
from holo_cli.inference.evaluation.proportion import binomial_interval
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.minimal_pairs import PHENOMENA, MinimalPair, Phenomenon

CHANCE = 0.5
Scorer = Callable[[Sequence[str]], Sequence[float]]
OnProgress = Callable[[int, int], None]  # pairs scored so far, pairs in total


@dataclass(frozen=True)
class PairScore:
    """The score on one phenomenon, or on all of a language (`phenomenon` is "all")."""

    language: str
    phenomenon: str
    pairs: int
    right: float  # pairs scored right; a tie counts half
    both: int  # couples with both pairs right; a preference for one form cannot achieve that
    shorter: float  # pairs whose right sentence has fewer tokens; equal lengths count half

    @property
    def accuracy(self) -> float:
        return self.right / self.pairs

    @property
    def interval(self) -> tuple[float, float]:
        """The exact binomial confidence interval of the accuracy (95 %)."""
        return binomial_interval(self.right, self.pairs)

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "language": self.language, "phenomenon": self.phenomenon, "pairs": self.pairs,
            "accuracy": self.accuracy, "low": low, "high": high, "chance": CHANCE,
            "both_right": self.both / (self.pairs // 2), "shorter": self.shorter / self.pairs,
        }  # fmt: skip


def score_pairs(
    scorer: Scorer,
    lengths: Scorer,
    languages: Sequence[str],
    count: int,
    *,
    seed: int = 0,
    progress: OnProgress = lambda done, total: None,
) -> list[PairScore]:
    """Scores each phenomenon of the languages with up to `count` pairs, and each language in total.

    `scorer` returns the log-likelihood of each text, `lengths` its number of tokens. A tokenizer
    trained on correct text merges correct forms, and fewer tokens are more likely even for an
    untrained model, so the accuracy of length alone is reported beside the accuracy.
    """
    total = sum(min(count, p.pairs) for language in languages for p in PHENOMENA[language])
    scores: list[PairScore] = []
    done = 0
    for language in languages:
        own: list[PairScore] = []
        for phenomenon in PHENOMENA[language]:
            pairs = phenomenon.draw(min(count, phenomenon.pairs), seed)
            own.append(_score(scorer, lengths, phenomenon, language, pairs))
            done += len(pairs)
            progress(done, total)
        scores += own
        scores.append(_sum(language, own))
    return scores


def _score(
    scorer: Scorer,
    lengths: Scorer,
    phenomenon: Phenomenon,
    language: str,
    pairs: Sequence[MinimalPair],
) -> PairScore:
    texts = [text for pair in pairs for text in pair]
    margin = _margin(scorer(texts))
    both = int((margin > 0).reshape(-1, 2).all(axis=1).sum())
    shorter = _right(-_margin(lengths(texts)))
    return PairScore(language, phenomenon.name, len(pairs), _right(margin), both, shorter)


def _sum(language: str, own: Sequence[PairScore]) -> PairScore:
    """All phenomena of a language together."""
    right, shorter = sum(s.right for s in own), sum(s.shorter for s in own)
    pairs, both = sum(s.pairs for s in own), sum(s.both for s in own)
    return PairScore(language, "all", pairs, right, both, shorter)


def _margin(figures: Sequence[float]) -> NDArray[np.float64]:
    """Each right sentence's figure minus that of the wrong sentence after it."""
    found = np.array(figures, dtype=np.float64).reshape(-1, 2)
    return found[:, 0] - found[:, 1]


def _right(margin: NDArray[np.float64]) -> float:
    return float((margin > 0).sum() + 0.5 * (margin == 0).sum())


def model_scorer(loaded: LoadedModel, rows: int = 0) -> Scorer:
    """Log-likelihoods under a checkpoint, in batches of `rows` sentences (0: as many as fit)."""
    return lambda texts: rolling(loaded, texts, rows)


def token_counts(loaded: LoadedModel) -> Scorer:
    """Token counts under a checkpoint's tokenizer."""
    return lambda texts: [len(loaded.tokenizer.encode(text)) for text in texts]


def languages_to_score(loaded: LoadedModel, asked: str | None) -> list[str]:
    """The languages to score: `asked` ("ko,en"), or those of the training data that have pairs, or
    all if the checkpoint does not name its languages.

    Raises UsageError for a language without pairs or one that the tokenizer cannot encode.
    """
    if asked is None:
        trained = loaded.prompts.languages or loaded.prompts.data_languages
        known = [code for code in PHENOMENA if code in trained] or list(PHENOMENA)
    else:
        known = list(dict.fromkeys(code.strip() for code in asked.split(",") if code.strip()))
        if not known:
            raise UsageError("--lang is empty.", next_step=f"Known: {', '.join(PHENOMENA)}.")
    for code in known:
        if code not in PHENOMENA:
            raise UsageError(
                f"There are no minimal pairs in the language '{code}' (--lang).",
                next_step=nearest(code, PHENOMENA),
            )
        texts = [pair.good for p in PHENOMENA[code] for pair in p.draw(min(200, p.pairs))]
        if missing := loaded.tokenizer.unknown("".join(texts)):
            shown = " ".join(missing[:8]) + (" ..." if len(missing) > 8 else "")
            raise UsageError(
                f"The pairs in '{code}' contain {shown}, which the tokenizer cannot encode.",
                next_step="Choose another language with --lang, or train with a tokenizer for all "
                "characters: holo prepare --tokenizer bpe.",
            )
    return known
