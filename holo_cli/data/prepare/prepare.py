"""Text to a prepared set: what `holo prepare` is thin over.

source -> cleaning -> train or val -> tokens -> shards -> meta.json. Everything streams, and
everything that is left out is counted. Here is what a person can ask for and what comes back;
`flow.py` has the documents, `splitting.py` their division, `build.py` the work on disk.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holo_cli.data import splitting
from holo_cli.data.cleaning import CleaningSettings
from holo_cli.data.dataset import ROOT
from holo_cli.data.files import clear_disk_errors, locked
from holo_cli.data.meta import META, SPLITS, Meta
from holo_cli.data.mixture import BALANCED, SEQUENCE, names_languages, parse_mix
from holo_cli.data.prepare import staging
from holo_cli.data.prepare.build import build, trained_tokenizer
from holo_cli.data.prepare.options import LANGUAGE_CODE, PrepareOptions, PrepareProgress
from holo_cli.data.prepare.shards import SHARD_BYTES
from holo_cli.data.sources import default_filter, default_tokenizer, licence_of, open_source
from holo_cli.data.sources.base import Request
from holo_cli.data.sources.hub.subsets import LANGUAGE_AND_SCRIPT, short_code
from holo_cli.data.tokenizers import DEFAULT_VOCAB_SIZE, FILE, check_spec, needs_text
from holo_cli.errors import DataError, HoloError, UsageError

__all__ = ["PrepareProgress", "PrepareResult", "prepare"]

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
    subset: str | None = None,
    max_docs: int | None = None,
    max_bytes: int | None = None,
    mix: str | None = None,
    filter: str | None = None,
    val_fraction: float = splitting.VAL_FRACTION,
    seed: int = 0,
    offline: bool = False,
    workers: int | None = None,
    force: bool = False,
    tokenizer_only: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[PrepareProgress], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> PrepareResult:
    """Prepare datasets of the table by `names`, or one's own text with `source`.

    The set lies in `out`, by default `data/NAME`. `tokenizer` defaults to what suits the source
    (bpe; char for Shakespeare). `lang` with several codes has documents detected and marked;
    `subset` is a published part of a dataset that has several, as in "sample-100BT";
    `max_docs` and `max_bytes` (of UTF-8) hold for each name. `mix` ("balanced", "proportional",
    "ko=0.4,en=0.6") mixes several names or languages, which otherwise follow one another; `filter`
    is what `--filter` takes. `tokenizer_only` makes the tokenizer and nothing else. `notice` is
    told what a person should know before anything is fetched: the licences.

    An interrupted preparation goes on when called with the same settings; a complete one is left
    as it is; other settings are refused unless `force`. Raises UsageError and DataError, each one
    sentence with what to do.
    """
    if workers is not None:
        if workers < 1:
            raise UsageError("--workers must be at least 1.")
        os.environ["RAYON_NUM_THREADS"] = str(workers)  # read by `tokenizers` at first use
    tokenizer = _of_a_set(tokenizer)
    _check(names, source, tokenizer, lang, max_docs, max_bytes, val_fraction)
    languages = _languages(lang)
    mixing = parse_mix(mix) if mix is not None else SEQUENCE
    names = list(names) or [_name_of(source or "")]
    with tempfile.TemporaryDirectory(prefix="holo-") as scratch:
        common = Request(
            name="",
            source=source,
            text_field=text_field,
            encoding=encoding,
            languages=tuple(languages),
            scripts={code: name for code, name in languages.items() if code != name},
            subset=subset,
            max_docs=max_docs,
            max_bytes=max_bytes,
            seed=seed,
            offline=offline,
            workers=workers or os.cpu_count() or 1,
            by_language=names_languages(mixing, names) or (len(names) == 1 and mixing == BALANCED),
            notice=notice or (lambda text: None),
            scratch=Path(scratch),
        )
        options = PrepareOptions(
            name="-".join(names),
            requests=[replace(common, name=name) for name in names],
            out=Path(out) if out is not None else ROOT / "-".join(names),
            tokenizer=tokenizer or default_tokenizer(names),
            vocab_size=vocab_size,
            val_fraction=val_fraction,
            shard_bytes=shard_bytes,
            report=progress or (lambda progress: None),
            scratch=Path(scratch),
            mix=mixing,
            cleaning=CleaningSettings.parse(filter or default_filter(names)),
        )
        return _tokenizer_only(options, force) if tokenizer_only else _run(options, force)


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
    if twice := next((name for number, name in enumerate(names) if name in names[:number]), None):
        raise UsageError(
            f"'{twice}' is named twice; a text that is there twice teaches nothing new.",
            next_step="Name it once.",
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
        if not (LANGUAGE_CODE.fullmatch(code) or LANGUAGE_AND_SCRIPT.fullmatch(code)):
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


def _languages(lang: Sequence[str]) -> dict[str, str]:
    """The languages asked for by code, each as it was written: {"ko": "kor_Hang", "en": "en"}."""
    found: dict[str, str] = {}
    for name in lang:
        before = found.setdefault(short_code(name), name)
        if len({before, name} - {short_code(name)}) > 1:
            raise UsageError(
                f"--lang names '{before}' and '{name}', two scripts of one language.",
                next_step="Prepare them one by one.",
            )
    return found


def _name_of(source: str) -> str:
    """A name for a set of one's own text: the file's or folder's, without endings."""
    name = "stdin" if source == "-" else Path(source).expanduser().resolve().name
    return _UNSAFE.sub("_", name).split(".")[0] or "text"


def _run(options: PrepareOptions, force: bool) -> PrepareResult:
    local = options.requests[0].source is not None
    resting = not staging.staging_folder(options.out).exists()
    if not force and not local and resting and (meta := staging.existing(options.out)) is not None:
        # What has no file here is known by its settings: no network is needed to see it is there.
        return _already(options, meta, with_identity=False)
    noted = {} if force else staging.interrupted(options.out)
    _open(options, noted)
    plan = splitting.SplitPlan.of(noted["plan"]) if noted.get("plan") else _plan(options)
    entered = False
    try:
        with clear_disk_errors(options.out), locked(options.out):
            entered = True
            if force:
                staging.clear(options.out)
            staging.recover(options.out)
            meta = staging.existing(options.out)
            if meta is not None and not force:
                return _already(options, meta, with_identity=True)
            meta, resumed = build(options, plan)
            return replace(_result(options.out, meta), resumed=resumed)
    except HoloError:
        if entered:
            staging.abandon(options.out)
        raise


def _open(options: PrepareOptions, noted: Mapping[str, Any]) -> None:
    """Open the sources; those of the hub at the revision an interrupted preparation began with."""
    pinned: dict[str, str] = {}
    for identity in noted.get("settings", {}).get("identity", []):
        pinned.update(identity.get("revisions", {}))
    options.requests = [replace(request, pinned=pinned) for request in options.requests]
    for request in options.requests:
        if licence := licence_of(request.name):
            request.notice(f"Licence of {request.name}: {licence}.")
    options.sources = [open_source(request) for request in options.requests]


def _plan(options: PrepareOptions) -> splitting.SplitPlan:
    """How the documents are to be divided, from the beginning of them."""
    counts: Counter[str] = Counter()
    begun, complete = splitting.peek(options.documents(counts))
    if not begun:
        left_out = ", ".join(f"{count} {rule}" for rule, count in sorted(counts.items()))
        raise DataError(
            f"There is no text in {options.requests[0].source or options.name}"
            + (f": left out were {left_out}." if left_out else "."),
            next_step="Name a source that holds text.",
        )
    plan = splitting.plan_split(begun, complete, options.val_fraction)
    known = {stream.language for source in options.sources for stream in source.streams}
    return replace(plan, languages=tuple(sorted({*plan.languages, *known} - {""})))


def _tokenizer_only(options: PrepareOptions, force: bool) -> PrepareResult:
    """The tokenizer of a set that is not made: tokenizer.json in a folder without meta.json."""
    if (options.out / META).exists():
        raise DataError(
            f"{options.out} holds a prepared set, whose tokenizer must stay as it is.",
            next_step="Choose another --out.",
        )
    if (options.out / FILE).exists() and not force:
        raise DataError(
            f"{options.out / FILE} is there already.",
            next_step=f"Use it with --tokenizer {options.out}, or replace it with --force.",
        )
    _open(options, {})
    languages = options.languages or _plan(options).languages
    with clear_disk_errors(options.out):
        made = trained_tokenizer(options, languages if len(languages) > 1 else ())
        options.out.mkdir(parents=True, exist_ok=True)
        made.save(options.out)
    nothing: dict[str, int] = dict.fromkeys(SPLITS, 0)
    return PrepareResult(
        data=options.out,
        tokens=dict(nothing),
        bytes=dict(nothing),
        docs=dict(nothing),
        vocab_size=made.vocab_size,
        tokenizer=made.kind,
        dropped={},
        seconds=time.monotonic() - options.started,
    )


def _of_a_set(spec: str | None) -> str | None:
    """A tokenizer may be named by the set it was made for: `stories` is data/stories."""
    if spec is None or needs_text(spec) or Path(spec).exists():
        return spec
    folder = ROOT / spec
    return str(folder) if (folder / FILE).is_file() else spec


def _already(options: PrepareOptions, meta: Meta, *, with_identity: bool) -> PrepareResult:
    """The set is there: say so if it is the one asked for, refuse if it is another."""
    before, now = dict(meta.settings), options.settings()
    if not with_identity:
        before.pop("identity", None)
    if difference := staging.first_difference(before, now):
        raise DataError(
            f"{options.out} already holds a set with other settings: {difference}.",
            next_step="Choose another --out, or replace it with --force.",
        )
    return _result(options.out, meta, already=True)


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
