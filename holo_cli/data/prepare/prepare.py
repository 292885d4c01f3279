"""From text to a prepared set: the library behind `holo prepare`.

    source -> cleaning -> train or val -> tokens -> shards -> meta.json

Everything is streamed, and everything dropped is counted. This file checks the arguments and opens
the sources; `pipeline.py` yields the documents, `splitting.py` splits them, `build.py` writes them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from holo_cli.config.training_schema import SEED_RANGE, is_seed
from holo_cli.data import splitting
from holo_cli.data.cleaning import CleaningSettings
from holo_cli.data.files import clear_disk_errors, locked
from holo_cli.data.meta import META
from holo_cli.data.mixture import BALANCED, SEQUENCE, names_languages, parse_mix
from holo_cli.data.prepare import staging
from holo_cli.data.prepare.arguments import (
    check_arguments,
    joined_name,
    labels_of,
    name_of,
    requested_languages,
    resolve_set,
)
from holo_cli.data.prepare.build import build_set, trained_tokenizer
from holo_cli.data.prepare.destination import (
    local_folder,
    name_of_address,
    pull_portions,
    push_portion,
    push_set,
)
from holo_cli.data.prepare.merge import merge_options, read_manifests
from holo_cli.data.prepare.opening import open_sources
from holo_cli.data.prepare.options import PrepareOptions, PrepareProgress
from holo_cli.data.prepare.portions import Portion, remove, write_portion
from holo_cli.data.prepare.result import (
    PrepareResult,
    existing_result,
    result_of,
    without_set,
)
from holo_cli.data.prepare.set_plan import plan_set
from holo_cli.data.prepare.shards import SHARD_BYTES
from holo_cli.data.sources import (
    default_filter,
    default_tokenizer,
)
from holo_cli.data.sources.base import Request
from holo_cli.data.tokenizers import DEFAULT_VOCAB_SIZE, FILE
from holo_cli.errors import DataError, HoloError, UsageError
from holo_cli.names import composed, quoted

MAX_VOCAB = 2_000_000  # learning a vocabulary reserves memory for all of it

__all__ = ["PrepareProgress", "PrepareResult", "merge", "prepare"]

MAX_WORKERS = 1024  # each is a thread
MAX_PROCESSES = 256


def prepare(
    names: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    tokenizer: str | None = None,
    vocab_size: int = DEFAULT_VOCAB_SIZE,
    source: str | Sequence[str] | None = None,
    chat: str | Sequence[str] | None = None,
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
    processes: int | None = None,
    force: bool = False,
    tokenizer_only: bool = False,
    shard: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[PrepareProgress], None] | None = None,
    notice: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> PrepareResult:
    """Prepare datasets by `names` (see `holo datasets`), or other text with `source`.

    The set is written to `out` (default: `data/NAME`). `tokenizer` defaults to the source's (bpe;
    char for Shakespeare). With several codes in `lang`, the language of each document is detected
    and marked. Several texts in `source` are one set, in their order; `chat` are files of
    conversations, of which the answers are learnt (`data/chat_format.py`). `subset` is a published
    subset of a dataset, such as "sample-100BT". `max_docs` and `max_bytes` (of UTF-8) apply to each
    name, or to each of several sources. `mix` ("balanced", "proportional", "ko=0.4,en=0.6") mixes
    several names, sources or languages (default: one after another); `filter` is the value of
    `--filter`, and `processes` so many processes clean (default: half as many as cores, at most
    eight); the set does not depend on it. `tokenizer_only` trains the tokenizer and writes nothing
    else. `shard` ("2/8") reads and cleans one of several portions, which `merge` makes one set of.
    `notice` is called with the licence of each dataset before anything is downloaded, `warn`
    if the tokenizer changes the text.

    An interrupted preparation is resumed when called with the same settings; a complete set is
    left as it is; for other settings, `force` replaces both. Raises UsageError and DataError.
    """
    _set_workers(workers, processes)
    portion = None if shard is None else Portion.parse(shard)
    if portion is not None and tokenizer_only:
        raise UsageError(
            "--shard and --tokenizer-only exclude each other: a tokenizer is trained on all text.",
            next_step="Leave one out.",
        )
    if not is_seed(seed):
        raise UsageError(f"--seed must be {SEED_RANGE}, not {seed}.")
    if not vocab_size <= MAX_VOCAB:
        raise UsageError(f"--vocab-size must be at most {MAX_VOCAB:,}, not {vocab_size}.")
    tokenizer = resolve_set(tokenizer)
    plain = [source] if isinstance(source, str) else list(source or ())
    talks = [chat] if isinstance(chat, str) else list(chat or ())
    sources = [*plain, *talks]
    check_arguments(names, plain, talks, tokenizer, lang, max_docs, max_bytes, val_fraction)
    languages = requested_languages(lang)
    mixing = parse_mix(mix) if mix is not None else SEQUENCE
    several = len(sources) > 1
    names = [composed(name) for name in names] or ([] if several else [name_of(sources[0])])
    labels = labels_of(sources) if several else names
    own_name = "-".join(names) or joined_name(labels)
    if several:
        names = labels
    filtering = filter or default_filter([] if several else names)
    with tempfile.TemporaryDirectory(prefix="holo-") as scratch:
        common = Request(
            name="",
            source=sources[0] if len(sources) == 1 else None,
            chat=len(sources) == 1 and bool(talks),
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
            one_of_several=several,
        )
        requests = [replace(common, name=name) for name in names]
        if several:
            requests = [
                replace(
                    request,
                    source=one,
                    chat=number >= len(plain),
                    scratch=Path(scratch, str(number)),
                )
                for number, (request, one) in enumerate(zip(requests, sources, strict=True))
            ]
        options = PrepareOptions(
            name=own_name,
            requests=requests,
            out=local_folder(out, own_name),
            tokenizer=tokenizer or default_tokenizer([] if several else names),
            vocab_size=vocab_size,
            val_fraction=val_fraction,
            shard_bytes=shard_bytes,
            report=progress or (lambda progress: None),
            warn=warn or (lambda text: None),
            scratch=Path(scratch),
            mix=mixing,
            cleaning=CleaningSettings.parse(filtering),
            filter=filtering,
            processes=processes or _default_processes(os.cpu_count() or 1),
        )
        if portion is not None:
            result = _portion(options, portion, force)
            push_portion(options.out, out, portion)
            return result
        if tokenizer_only:
            return _tokenizer_only(options, force)
        result = _run(options, force)
        push_set(options.out, out, set_files(options.out))
        return result


def merge(
    names: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    offline: bool = False,
    workers: int | None = None,
    processes: int | None = None,
    force: bool = False,
    progress: Callable[[PrepareProgress], None] | None = None,
    notice: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> PrepareResult:
    """Make one set of the shards in its folder (`prepare` with `shard`), and delete them.

    The folder is `out` (default: `data/NAME`); all settings are those of the shards. Raises
    UsageError, and DataError where a shard is missing or does not fit the others.
    """
    _set_workers(workers, processes)
    if not names and out is None:
        raise UsageError(
            "--merge needs the name of the set.", next_step="For example: holo prepare NAME --merge"
        )
    named = "-".join(map(composed, names))
    folder = local_folder(out, named or name_of_address(str(out)))
    pull_portions(folder, out)
    manifests = read_manifests(folder)
    with tempfile.TemporaryDirectory(prefix="holo-") as scratch:
        options = merge_options(
            manifests, folder, Path(scratch),
            offline=offline,
            workers=workers or os.cpu_count() or 1,
            processes=processes or _default_processes(os.cpu_count() or 1),
            report=progress or (lambda progress: None),
            notice=notice or (lambda text: None),
            warn=warn or (lambda text: None),
        )  # fmt: skip
        result = _run(options, force, merging=True)
    push_set(folder, out, set_files(folder))
    remove(folder)
    return result


def set_files(folder: Path) -> list[str]:
    """The names of the files of a complete set, but for meta.json."""
    shards = staging.shard_files(staging.read_meta(folder))
    return sorted(one.name for one in folder.glob("tokenizer.*")) + sorted(shards)


def _set_workers(workers: int | None, processes: int | None) -> None:
    if workers is not None:
        if not 1 <= workers <= MAX_WORKERS:
            raise UsageError(f"--workers must be 1 to {MAX_WORKERS:,}, not {workers}.")
        os.environ["RAYON_NUM_THREADS"] = str(workers)  # read by `tokenizers` on first use
    if processes is not None and not 1 <= processes <= MAX_PROCESSES:
        raise UsageError(f"--processes must be 1 to {MAX_PROCESSES:,}, not {processes}.")


def _default_processes(cores: int) -> int:
    """Half the cores: the tokenizer keeps the others busy. On two cores a second process cost 12 %
    more processor time and won nothing; more than eight would wait for reading and comparing."""
    return max(1, min(cores // 2, 8))


def _run(options: PrepareOptions, force: bool, merging: bool = False) -> PrepareResult:
    """`merging`: the sources of `options` are open already."""
    local = options.requests[0].source is not None or merging
    interrupted = staging.staging_folder(options.out).exists()
    existing = None if force or local or interrupted else staging.existing(options.out)
    if existing is not None:
        # without local files the settings identify the set, so that no network is needed
        return existing_result(options, existing, with_identity=False)
    progress = {} if force else staging.interrupted(options.out)
    if not merging:
        open_sources(options, progress)
    plan = splitting.SplitPlan.of(progress["plan"]) if progress.get("plan") else plan_set(options)
    entered = False
    try:
        with clear_disk_errors(options.out), locked(options.out):
            entered = True
            if force:
                staging.clear(options.out)
            staging.recover(options.out)
            meta = staging.existing(options.out)
            if meta is not None and not force:
                return existing_result(options, meta, with_identity=True)
            meta, resumed = build_set(options, plan)
            return replace(result_of(options.out, meta), resumed=resumed)
    except HoloError:
        if entered:
            staging.abandon(options.out)
        raise


def _tokenizer_only(options: PrepareOptions, force: bool) -> PrepareResult:
    """Train the tokenizer alone: tokenizer.json in a folder without meta.json."""
    if (options.out / META).exists():
        raise DataError(
            f"{options.out} is a prepared set; its tokenizer cannot be replaced.",
            next_step="Choose another --out.",
        )
    if (options.out / FILE).exists() and not force:
        raise DataError(
            f"{options.out / FILE} exists already.",
            next_step=f"Use it with --tokenizer {quoted(options.out)}, or replace it with --force.",
        )
    open_sources(options, {})
    languages = options.languages or plan_set(options).languages
    with clear_disk_errors(options.out):
        trained = trained_tokenizer(options, languages if len(languages) > 1 else ())
        options.out.mkdir(parents=True, exist_ok=True)
        trained.save(options.out)
    return without_set(options, trained.vocab_size, trained.kind)


def _portion(options: PrepareOptions, portion: Portion, force: bool) -> PrepareResult:
    """Write a portion, and no set."""
    totals = write_portion(options, portion, force)
    return replace(
        without_set(options, 0, options.tokenizer), shard={"shard": str(portion), **totals}
    )
