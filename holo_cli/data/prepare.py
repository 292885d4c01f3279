"""Text to a prepared set: what `holo prepare` is thin over.

source -> clean -> language -> train or val -> tokens -> shards -> meta.json. Everything streams,
and everything that is left out is counted. Here is what a person can ask for and what comes back;
`job.py` has the documents, `splitting.py` their division, `build.py` the work on disk.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holo_cli.data import splitting, workshop
from holo_cli.data.build import build
from holo_cli.data.dataset import ROOT
from holo_cli.data.files import clear_disk_errors, locked
from holo_cli.data.job import LANGUAGE_CODE, Job, Progress
from holo_cli.data.meta import SPLITS, Meta
from holo_cli.data.pack import SHARD_BYTES
from holo_cli.data.sources import default_tokenizer, open_source
from holo_cli.data.sources.base import Request
from holo_cli.data.tokenizers import DEFAULT_VOCAB_SIZE, check_spec
from holo_cli.errors import DataError, HoloError, UsageError

__all__ = ["PrepareResult", "Progress", "prepare"]

_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]')


@dataclass(frozen=True)
class PrepareResult:
    """What was prepared. `already`: it was there before, with these settings."""

    data: Path
    tokens: dict[str, int]
    bytes: dict[str, int]
    docs: dict[str, int]
    vocab_size: int
    tokenizer: str
    dropped: dict[str, int]
    seconds: float
    already: bool = False
    resumed: bool = False

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
            "seconds": round(self.seconds, 3),
        }


def prepare(
    names: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    tokenizer: str | None = None,
    vocab_size: int = DEFAULT_VOCAB_SIZE,
    source: str | None = None,
    text_field: str = "text",
    encoding: str | None = None,
    lang: Sequence[str] = (),
    max_docs: int | None = None,
    max_bytes: int | None = None,
    val_fraction: float = splitting.VAL_FRACTION,
    seed: int = 0,
    offline: bool = False,
    workers: int | None = None,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[Progress], None] | None = None,
) -> PrepareResult:
    """Prepare datasets of the table by `names`, or one's own text with `source`.

    The set lies in `out`, by default `data/NAME`. `tokenizer` defaults to what suits the source
    (bpe; char for Shakespeare). `lang` with several codes has documents detected and marked;
    `max_docs` and `max_bytes` (of UTF-8) hold for each name. An interrupted preparation goes on
    when called with the same settings; a complete one is left as it is; other settings are refused
    unless `force`. Raises UsageError and DataError, each one sentence with what to do.
    """
    if workers is not None:
        if workers < 1:
            raise UsageError("--workers must be at least 1.")
        os.environ["RAYON_NUM_THREADS"] = str(workers)  # read by `tokenizers` at first use
    _check(names, source, tokenizer, lang, max_docs, max_bytes, val_fraction)
    names = list(names) or [_name_of(source or "")]
    with tempfile.TemporaryDirectory(prefix="holo-") as scratch:
        common = Request(
            name="",
            source=source,
            text_field=text_field,
            encoding=encoding,
            languages=tuple(lang),
            max_docs=max_docs,
            max_bytes=max_bytes,
            seed=seed,
            offline=offline,
            scratch=Path(scratch),
        )
        job = Job(
            name="-".join(names),
            requests=[replace(common, name=name) for name in names],
            out=Path(out) if out is not None else ROOT / "-".join(names),
            tokenizer=tokenizer or default_tokenizer(names),
            vocab_size=vocab_size,
            val_fraction=val_fraction,
            shard_bytes=shard_bytes,
            report=progress or (lambda progress: None),
        )
        return _run(job, force)


def _check(
    names: Sequence[str],
    source: str | None,
    tokenizer: str | None,
    lang: Sequence[str],
    max_docs: int | None,
    max_bytes: int | None,
    val_fraction: float,
) -> None:
    """Refuse what is wrong in itself, before anything is opened."""
    if not names and source is None:
        raise UsageError(
            "Nothing to prepare was named.",
            next_step="holo prepare stories, or holo prepare --source FILE.",
        )
    if len(names) > 1 and source is not None:
        raise UsageError("--source goes with one name.", next_step="Prepare them one by one.")
    for name in names:
        if not name.strip(". ") or _UNSAFE.search(name):
            raise UsageError(
                f"'{name}' cannot be the name of a set.",
                next_step="Use letters, digits, - and _; for a file: --source FILE.",
            )
    for code in lang:
        if not LANGUAGE_CODE.fullmatch(code):
            raise UsageError(
                f"'{code}' is not a language code.", next_step="Write --lang ko,en, for example."
            )
    for flag, value in (("--max-docs", max_docs), ("--max-bytes", max_bytes)):
        if value is not None and value < 1:
            raise UsageError(f"{flag} must be at least 1.")
    if not 0 < val_fraction < 1:
        raise UsageError(
            f"--val-fraction {val_fraction} is not between 0 and 1.",
            next_step="Training needs validation text; 0.05 is usual.",
        )
    if tokenizer is not None:
        check_spec(tokenizer)


def _name_of(source: str) -> str:
    """A name for a set of one's own text: the file's or folder's, without endings."""
    name = "stdin" if source == "-" else Path(source).expanduser().resolve().name
    return _UNSAFE.sub("_", name).split(".")[0] or "text"


def _run(job: Job, force: bool) -> PrepareResult:
    local = job.requests[0].source is not None
    resting = not workshop.building(job.out).exists()
    if not force and not local and resting and (meta := workshop.existing(job.out)) is not None:
        # What has no file here is known by its settings: no network is needed to see it is there.
        return _already(job, meta, with_identity=False)
    job.sources = [open_source(request) for request in job.requests]
    counts: Counter[str] = Counter()
    begun, complete = splitting.peek(job.documents(counts))
    if not begun:
        left_out = ", ".join(f"{count} {rule}" for rule, count in sorted(counts.items()))
        raise DataError(
            f"There is no text in {job.requests[0].source or job.name}"
            + (f": left out were {left_out}." if left_out else "."),
            next_step="Name a source that holds text.",
        )
    plan = splitting.plan(begun, complete, job.val_fraction)
    del begun
    entered = False
    try:
        with clear_disk_errors(job.out), locked(job.out):
            entered = True
            if force:
                workshop.clear(job.out)
            workshop.recover(job.out)
            meta = workshop.existing(job.out)
            if meta is not None and not force:
                return _already(job, meta, with_identity=True)
            meta, resumed = build(job, plan)
            return replace(_result(job.out, meta), resumed=resumed)
    except HoloError:
        if entered:
            workshop.abandon(job.out)
        raise


def _already(job: Job, meta: Meta, *, with_identity: bool) -> PrepareResult:
    """The set is there: say so if it is the one asked for, refuse if it is another."""
    before, now = dict(meta.settings), job.settings()
    if not with_identity:
        before.pop("identity", None)
    if difference := workshop.first_difference(before, now):
        raise DataError(
            f"{job.out} already holds a set with other settings: {difference}.",
            next_step="Choose another --out, or replace it with --force.",
        )
    return _result(job.out, meta, already=True)


def _result(out: Path, meta: Meta, *, already: bool = False) -> PrepareResult:
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
        already=already,
    )
