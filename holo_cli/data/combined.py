"""Several prepared sets in one training, each with a weight: `--data a=0.7 --data b=0.3`.

`CombinedData` is read like one set whose splits are those of its parts, one after another. What a
weight means to training is in `weighted.py`, what it means to the validation loss in
`training/evaluate.py`. All parts have one tokenizer, since its ids are what the model learns.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.config.training_schema import DataConfig
from holo_cli.data.dataset import PreparedData
from holo_cli.data.meta import META
from holo_cli.errors import DataError, UsageError
from holo_cli.names import existing, quoted
from holo_cli.paths import DATA

LONGEST_NAME = 60  # characters of a name that is made of those of the parts


class CombinedData(PreparedData):
    """Prepared sets with weights of sum 1. Open it with `open_data`."""

    def __init__(self, parts: Sequence[PreparedData], weights: Sequence[float]) -> None:
        first = parts[0]
        super().__init__(first.path, first.meta, first.tokenizer)
        self.parts = list(parts)
        self.weights = [weight / sum(weights) for weight in weights]

    @cached_property
    def labels(self) -> list[str]:
        """A name for each part: its own, with a number where two have the same."""
        found: list[str] = []
        for part in self.parts:
            label, number = part.name, 1
            while label in found:
                number += 1
                label = f"{part.name}-{number}"
            found.append(label)
        return found

    @property
    def name(self) -> str:
        name = "-".join(self.labels)
        if len(name) <= LONGEST_NAME:
            return name
        return f"{self.labels[0]}-and-{len(self.parts) - 1}-more"

    @property
    def shown(self) -> str:
        return " + ".join(part.shown for part in self.parts)

    @property
    def has_markers(self) -> bool:
        return any(part.has_markers for part in self.parts)

    @property
    def has_chat(self) -> bool:
        return any(part.has_chat for part in self.parts)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over those of the parts, in order. Weights are settings, not text."""
        lines = "".join(f"{part.fingerprint}\n" for part in self.parts)
        return hashlib.sha256(lines.encode()).hexdigest()

    def matches_fingerprint(self, fingerprint: str) -> bool:
        return fingerprint == self.fingerprint

    @property
    def languages(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for part in self.parts:
            counts.update(part.languages)
        return dict(counts)

    def token_count(self, split: str) -> int:
        return sum(part.token_count(split) for part in self.parts)

    def byte_count(self, split: str) -> int:
        return sum(part.byte_count(split) for part in self.parts)

    def document_count(self, split: str) -> int:
        return sum(part.document_count(split) for part in self.parts)

    def split(self, split: str) -> list[np.memmap[Any, Any]]:
        return [shard for part in self.parts for shard in part.split(split)]

    def document_ends(self, split: str) -> list[NDArray[np.uint64]]:
        return [ends for part in self.parts for ends in part.document_ends(split)]

    def records(self, split: str) -> list[NDArray[Any]]:
        """Like those of one set; fields that a set of an older version lacks are left out."""
        found = [records for part in self.parts for records in part.records(split)]
        names = [records.dtype.names or () for records in found]
        common = [name for name in names[0] if all(name in other for other in names)]
        return [records[common] for records in found]


def open_data(config: DataConfig, verify: bool | None = None) -> PreparedData:
    """The set or the sets of a config; `verify` overrides `data.verify`.

    Raises DataError as `PreparedData.open` does, and for sets with different tokenizers; UsageError
    where nothing is named, for wrong weights, and for a set that is named twice.
    """
    verify = config.verify if verify is None else verify
    if config.sets:
        named = parse_sets(config.sets)
        return combine([name for name, _ in named], [weight for _, weight in named], verify)
    if not config.path:
        raise UsageError("No data was named.", next_step="Add --data NAME, or `holo prepare`.")
    return PreparedData.open(config.path, verify)


def combine(
    names: Sequence[str], weights: Sequence[float | None], verify: bool = True
) -> CombinedData:
    """Open several sets, by path or name. Without weights, each weighs as many tokens as it has.

    Raises as `open_data` does.
    """
    parts = [PreparedData.open(name, verify) for name in names]
    folders = [part.path.resolve() for part in parts]
    for number, part in enumerate(parts):
        if folders[number] in folders[:number]:
            raise UsageError(f"--data names {part.shown} twice.", next_step="Name it once.")
        if part.tokenizer.fingerprint != parts[0].tokenizer.fingerprint:
            first = parts[0].shown
            raise DataError(
                f"{part.shown} has another tokenizer than {first}: sets that are trained on "
                "together need the same one.",
                next_step=f"Prepare it again with --tokenizer {quoted(first)}.",
            )
    return CombinedData(
        parts,
        [
            part.token_count("train") if weight is None else weight
            for part, weight in zip(parts, weights, strict=True)
        ],
    )


def parse_sets(texts: Sequence[str]) -> list[tuple[str, float | None]]:
    """The sets that several --data name, each with its weight: of all of them, or of none.

    >>> parse_sets(["a=0.7", "b=0.3"])
    [('a', 0.7), ('b', 0.3)]
    """
    found = [_parse(text) for text in texts]
    if len({weight is None for _, weight in found}) > 1:
        bare = next(name for name, weight in found if weight is None)
        raise UsageError(
            f"--data {bare} has no weight, and others have one.",
            next_step="Give all of them a weight, as in --data a=0.7 --data b=0.3, or none.",
        )
    return found


def _parse(text: str) -> tuple[str, float | None]:
    name, sign, number = text.rpartition("=")
    # "=" may be part of a folder's name
    if not sign or _exists(text):
        return text, None
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not (0 < weight < math.inf and name):
        raise UsageError(
            f"--data {text}: the weight is not a positive number.",
            next_step="Write it as in --data a=0.7 --data b=0.3.",
        )
    return name, weight


def _exists(text: str) -> bool:
    """Whether a text names a prepared set, by path or name."""
    return any((existing(Path(path)) / META).is_file() for path in (text, DATA / text))
