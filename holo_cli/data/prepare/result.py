"""What `holo prepare` tells of a set that it wrote or found."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holo_cli.data.meta import SPLITS, Meta
from holo_cli.data.prepare import advice, staging
from holo_cli.data.prepare.options import PrepareOptions
from holo_cli.errors import DataError


@dataclass(frozen=True)
class PrepareResult:
    """A prepared set. `already`: it existed, with the same settings.

    `passed_over`: files of the sources that were not read, by suffix or reason. `warnings` and
    `notes`: sentences about the set that its user should know.
    """

    data: Path
    tokens: dict[str, int]
    bytes: dict[str, int]
    docs: dict[str, int]
    vocab_size: int
    tokenizer: str
    dropped: dict[str, int]
    seconds: float
    passed_over: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    already: bool = False
    resumed: bool = False
    shard: dict[str, Any] | None = None  # of --shard: which, and its files, documents and bytes

    def to_dict(self) -> dict[str, Any]:
        """The keys of `holo prepare --json`."""
        return {
            "data": str(self.data),
            "tokens": self.tokens,
            "bytes": self.bytes,
            "docs": self.docs,
            "vocab_size": self.vocab_size,
            "tokenizer": self.tokenizer,
            "dropped": self.dropped,
            "passed_over": self.passed_over,
            "seconds": round(self.seconds, 3),
            **({} if self.shard is None else {"shard": self.shard}),
        }


def result_of(out: Path, meta: Meta, *, already: bool = False) -> PrepareResult:
    def total(what: str) -> dict[str, int]:
        return {s: sum(getattr(shard, what) for shard in meta.of(s)) for s in SPLITS}

    return PrepareResult(
        data=out,
        tokens=total("tokens"),
        bytes=total("bytes"),
        docs=total("documents"),
        vocab_size=meta.tokenizer.vocab_size,
        tokenizer=meta.tokenizer.kind,
        dropped=meta.dropped,
        seconds=meta.seconds,
        passed_over=advice.passed_over(meta),
        warnings=tuple(advice.warnings(meta)),
        notes=tuple(advice.notes(meta)),
        already=already,
    )


def without_set(options: PrepareOptions, vocab_size: int, tokenizer: str) -> PrepareResult:
    """The result of a command that writes no set: without any documents."""
    zeros: dict[str, int] = dict.fromkeys(SPLITS, 0)
    return PrepareResult(
        data=options.out,
        tokens=dict(zeros),
        bytes=dict(zeros),
        docs=dict(zeros),
        vocab_size=vocab_size,
        tokenizer=tokenizer,
        dropped={},
        seconds=time.monotonic() - options.started,
    )


def existing_result(options: PrepareOptions, meta: Meta, *, with_identity: bool) -> PrepareResult:
    """The result for an existing set; DataError if its settings differ."""
    before, now = dict(meta.settings), options.settings()
    if not with_identity:
        before.pop("identity", None)
    if changed := staging.first_difference(before, now):
        next_step = "Choose another --out, or replace it with --force."
        if changed.name == staging.SOURCE:
            raise DataError(
                f"{options.out} holds a set whose source has changed since it was prepared.",
                next_step=next_step,
            )
        raise DataError(
            f"{options.out} holds a set with other settings: {changed.name} was "
            f"{changed.before} and is {changed.now} now.",
            next_step=next_step,
        )
    return result_of(options.out, meta, already=True)
