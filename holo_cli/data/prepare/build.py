"""Builds a set in its staging folder: tokenizer, shards, meta.json.

The text is read once to train the tokenizer (if it is trained here) and once for the shards. Every
few seconds a checkpoint stores the position in the text, the state of cleaning and the lengths of
the shards together; an interrupted preparation resumes from the last one.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import time
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from holo_cli.data import splitting
from holo_cli.data.document import Document, count_words
from holo_cli.data.encode import AnyIds, encode_documents, pieces, spoken_size, text_size
from holo_cli.data.language import detect
from holo_cli.data.meta import META, SPLITS, LanguageTotals, Meta, Shard, Split, TokenizerMeta
from holo_cli.data.mixture import ROUND_ROBIN, SEQUENCE
from holo_cli.data.prepare import staging
from holo_cli.data.prepare.options import PrepareOptions
from holo_cli.data.prepare.pipeline import Pipeline
from holo_cli.data.prepare.shards import ShardWriter, language_totals
from holo_cli.data.tokenizers import Tokenizer, load_tokenizer, make_tokenizer, needs_text
from holo_cli.data.tokenizers.bpe import SAMPLE_BYTES
from holo_cli.errors import DataError
from holo_cli.files import atomic_write_bytes

CHECKPOINT_SECONDS = 5.0
TOKENIZER_THREADS = 2  # so that the cores are busy while the ids of one batch become arrays
MAX_BATCHES, MAX_CHARACTERS = 3, 8_000_000  # in flight between reading and writing
CLEANING = "cleaning"  # folder of the fingerprints, in the staging folder

_Assigned = tuple[Split, Document]


@dataclass
class _Build:
    """The state of one preparation while its shards are written."""

    options: PrepareOptions
    plan: splitting.SplitPlan
    tokenizer: Tokenizer
    markers: tuple[str, ...]
    writer: ShardWriter
    pipeline: Pipeline
    names: dict[str, int]  # document sources, numbered in order of appearance
    skip: int  # documents to skip after an interruption: they are in the shards already
    bytes: int = 0
    documents: int = 0
    warned: bool = False  # that the tokenizer changes the text


@dataclass(frozen=True)
class _BatchInFlight:
    """A batch in flight; `mark`: the pipeline's state after it, if a checkpoint is due."""

    assigned: list[_Assigned]
    encoded: Future[list[AnyIds]]
    mark: dict[str, Any] | None

    @property
    def characters(self) -> int:
        return sum(len(part.text) for _, part in self.assigned)


def build_set(options: PrepareOptions, plan: splitting.SplitPlan) -> tuple[Meta, bool]:
    """Build the set and publish it. Returns its meta.json and whether the build was resumed."""
    folder = staging.staging_folder(options.out)
    settings = options.settings()
    resumed = staging.check_resumable(options.out, settings)
    if not resumed:
        staging.clear(options.out)
        folder.mkdir()
    languages = options.languages or plan.languages
    markers = tuple(languages) if len(languages) > 1 or plan.marked else ()
    tokenizer = load_tokenizer(folder) if resumed else trained_tokenizer(options, markers)
    if not resumed:
        tokenizer.save(folder)
    dtype = "uint16" if tokenizer.vocab_size <= 65_536 else "uint32"
    writer = ShardWriter(folder, dtype, settings, options.shard_bytes, plan=plan.to_dict())
    build: _Build | None = None
    try:
        build = _begin(options, plan, tokenizer, markers, writer)
        _write_shards(build)
        shards = writer.finish()
    finally:
        writer.close()
        if build is not None:
            build.pipeline.close()
    for split in SPLITS:
        if not any(shard.split == split for shard in shards):
            raise DataError(f"The split {split} has no documents.", next_step="Use more text.")
    meta = _meta(build, dtype, shards)
    atomic_write_bytes(folder / META, meta.to_json())
    staging.publish(options.out)
    return meta, resumed


def trained_tokenizer(options: PrepareOptions, markers: tuple[str, ...]) -> Tokenizer:
    """The tokenizer of `options`. `char` reads all of the text, `bpe` a sample spread over it.

    If the size of the text is unknown, the sample is its beginning; sources that follow one another
    then take turns, so that the sample has equal bytes of each.
    """
    total = options.total_bytes()
    share = 1.0 if options.tokenizer == "char" or total is None else SAMPLE_BYTES / max(total, 1)
    seed = options.requests[0].seed
    mix = ROUND_ROBIN if options.mix == SEQUENCE else options.mix
    sampled = None
    if share < 1:

        def sampled(text: str) -> bool:
            return zlib.crc32(text.encode("utf-8", "replace"), seed) < share * 2**32

    def texts() -> Iterator[str]:
        size = 0
        for number, document in enumerate(options.documents(Counter(), sampled, mix), start=1):
            size += document.size
            yield from pieces(document.text)  # a very long text at once would take gigabytes
            if number % 1024 == 0:
                options.report_progress("tokenizer", number, round(size / min(share, 1)))

    return make_tokenizer(
        options.tokenizer,
        texts=texts,
        vocab_size=options.vocab_size,
        languages=markers,
        chat=options.chat,
        offline=options.requests[0].offline,
    )


def _begin(
    options: PrepareOptions,
    plan: splitting.SplitPlan,
    tokenizer: Tokenizer,
    markers: tuple[str, ...],
    writer: ShardWriter,
) -> _Build:
    """The state at the last checkpoint, or at the beginning."""
    mark, at = writer.mark or {}, writer.marked_at
    folder = staging.staging_folder(options.out) / CLEANING
    return _Build(
        options=options,
        plan=plan,
        tokenizer=tokenizer,
        markers=markers,
        writer=writer,
        pipeline=options.pipeline(folder, state=mark.get("flow")),
        names={name: number for number, name in enumerate(mark.get("names", []))},
        skip=writer.position - at,
        bytes=mark.get("bytes", 0),
        documents=at,
    )


def _write_shards(build: _Build) -> None:
    """Tokenize and write all documents that are not in the shards yet.

    While some batches are tokenized, the next one is read and cleaned, and an earlier one is
    written. The mark of a checkpoint is taken between reading two batches, and stored once all that
    was read before it is written.
    """
    saved = time.monotonic()
    in_flight: deque[_BatchInFlight] = deque()
    with ThreadPoolExecutor(TOKENIZER_THREADS, "holo-tokenize") as pool:
        for documents in build.pipeline:
            assigned, mark = _assign(build, documents), None
            # not while skipping: the skipped documents are in the shards, but after such a mark
            if not build.skip and time.monotonic() - saved > CHECKPOINT_SECONDS:
                mark = _mark(build)
                saved = time.monotonic()
            in_flight.append(
                _BatchInFlight(assigned, pool.submit(_tokenize, build, assigned), mark)
            )
            while (
                len(in_flight) > MAX_BATCHES
                or sum(batch.characters for batch in in_flight) > MAX_CHARACTERS
            ):
                _write(build, in_flight.popleft())
            build.options.report_progress("packing", build.documents, build.bytes)
        while in_flight:
            _write(build, in_flight.popleft())
        build.options.report_progress("packing", build.documents, build.bytes)


def _mark(build: _Build) -> dict[str, Any]:
    return {"flow": build.pipeline.state(), "names": list(build.names), "bytes": build.bytes}


def _assign(build: _Build, documents: Sequence[Document]) -> list[_Assigned]:
    """Documents (or their parts) with their splits, without those that are to be skipped."""
    found: list[_Assigned] = []
    for document in documents:
        build.names.setdefault(document.source, len(build.names))
        for split, part in build.plan.assign(document):
            build.documents += 1
            build.bytes += part.size
            if build.skip:
                build.skip -= 1
                continue
            if build.markers and not part.language:
                part = replace(part, language=detect(part.text, build.markers))
            found.append((split, part))
    return found


def _tokenize(build: _Build, assigned: Sequence[_Assigned]) -> list[AnyIds]:
    if not needs_text(build.options.tokenizer):
        for _, part in assigned:
            if lost := [c for text in pieces(part.text) for c in build.tokenizer.unknown(text)]:
                first = min(lost, key=lambda c: (not c.isalpha(), c))  # a letter says more
                raise DataError(
                    f"The tokenizer cannot encode '{first}' (U+{ord(first):04X}), which is "
                    f"in {part.source or build.options.name}.",
                    next_step="Use --tokenizer bpe, or --tokenizer char made from this text.",
                )
    marker = build.tokenizer.marker
    return encode_documents(
        build.tokenizer,
        [part for _, part in assigned],
        dtype=build.writer.dtype,
        prefixes=[marker(part.language) for _, part in assigned] if build.markers else None,
    )


def _write(build: _Build, batch: _BatchInFlight) -> None:
    for (split, part), ids in zip(batch.assigned, batch.encoded.result(), strict=True):
        size = text_size(build.tokenizer, part, ids)
        if size != (spoken_size(part) if part.messages else part.size) and not build.warned:
            build.warned = True
            build.options.warn(
                "The tokenizer does not give the text back as it was (letter case, spaces): "
                "models learn what it gives back, and bytes are counted over that."
            )
        build.writer.add(
            split,
            ids,
            size,
            part.language,
            build.names[part.source],
            words=count_words(part.text),
            score=part.score,
            perplexity=part.perplexity,
        )
    if batch.mark is not None:
        build.writer.checkpoint(batch.mark)


def _meta(build: _Build, dtype: str, shards: list[Shard]) -> Meta:
    options, tokenizer = build.options, build.tokenizer
    folder = staging.staging_folder(options.out)
    languages = {
        split: {
            code: LanguageTotals(**share)
            for code, share in language_totals(
                folder, [shard for shard in shards if shard.split == split]
            ).items()
        }
        for split in SPLITS
    }
    return Meta(
        name=options.name,
        sources=[source.description for source in options.sources],
        mixture=build.pipeline.shares(),
        settings=options.settings(),
        versions=_versions(),
        tokenizer=TokenizerMeta(
            kind=tokenizer.kind,
            fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
        ),
        dtype="uint16" if dtype == "uint16" else "uint32",
        specials=tokenizer.specials,
        markers=bool(build.markers),
        chat=options.chat,
        shards=shards,
        languages=languages,
        source_names=list(build.names),
        dropped=dict(sorted(build.pipeline.counts.items())),
        seed=options.requests[0].seed,
        seconds=round(time.monotonic() - options.started, 3),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("holo-cli", "numpy", "tokenizers", "tiktoken", "sentencepiece", "datasets"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # a checkout that is not installed, or a missing extra
    return versions
