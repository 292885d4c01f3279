"""A options carried out in its workshop: tokenizer, shards, meta.json.

Text is read once for the tokenizer where it is made from the text, and once for the shards. Every
few seconds the position in the text, what cleaning remembers, and what lies in the shards are
noted together; after an interruption work goes on from there.
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
from holo_cli.data.encode import Ids, encode, pieces
from holo_cli.data.language import detect
from holo_cli.data.meta import META, SPLITS, LanguageTotals, Meta, Shard, Split, TokenizerMeta
from holo_cli.data.mixture import SEQUENCE, TURNS
from holo_cli.data.prepare import staging
from holo_cli.data.prepare.options import PrepareOptions
from holo_cli.data.prepare.pipeline import Pipeline
from holo_cli.data.prepare.shards import ShardWriter, languages_of
from holo_cli.data.tokenizers import Tokenizer, load_tokenizer, make_tokenizer, needs_text
from holo_cli.data.tokenizers.bpe import SAMPLE_BYTES
from holo_cli.errors import DataError
from holo_cli.files import atomic_write_bytes

CHECKPOINT_SECONDS = 5.0
TOKENIZING = 2  # batches at once, so that the cores have work while ids of one become arrays
AHEAD, AT_MOST = 3, 8_000_000  # batches under way, and characters in all of them
CLEANING = "cleaning"  # folder in the workshop for what cleaning remembers

_Placed = tuple[Split, Document]


@dataclass
class _Work:
    """What is carried from batch to batch of one preparation."""

    options: PrepareOptions
    plan: splitting.SplitPlan
    tokenizer: Tokenizer
    markers: tuple[str, ...]
    writer: ShardWriter
    pipeline: Pipeline
    names: dict[str, int]  # of the sources of documents, numbered by their first one
    skip: int  # documents that come again after an interruption and are packed already
    bytes: int = 0
    documents: int = 0


@dataclass(frozen=True)
class _UnderWay:
    """A batch that is being tokenized, and the moment after it if that is to be noted."""

    placed: list[_Placed]
    encoded: Future[list[Ids]]
    mark: dict[str, Any] | None

    @property
    def characters(self) -> int:
        return sum(len(part.text) for _, part in self.placed)


def build(options: PrepareOptions, plan: splitting.SplitPlan) -> tuple[Meta, bool]:
    """Make the set, or what is missing of it, and publish it; whether work was gone on with."""
    folder = staging.staging_folder(options.out)
    settings = options.settings()
    resumed = staging.check_resumable(options.out, settings)
    if not resumed:
        staging.clear(options.out)
        folder.mkdir()
    languages = options.languages or plan.languages
    markers = tuple(languages) if len(languages) > 1 else ()
    tokenizer = load_tokenizer(folder) if resumed else trained_tokenizer(options, markers)
    if not resumed:
        tokenizer.save(folder)
    dtype = "uint16" if tokenizer.vocab_size <= 65_536 else "uint32"
    writer = ShardWriter(folder, dtype, settings, options.shard_bytes, plan=plan.to_dict())
    work: _Work | None = None
    try:
        work = _begin(options, plan, tokenizer, markers, writer)
        _write_shards(work)
        shards = writer.finish()
    finally:
        writer.close()
        if work is not None:
            work.pipeline.close()
    for split in SPLITS:
        if not any(shard.split == split for shard in shards):
            raise DataError(f"No document fell into {split}.", next_step="Use more text.")
    meta = _meta(work, dtype, shards)
    atomic_write_bytes(folder / META, meta.to_json())
    staging.publish(options.out)
    return meta, resumed


def trained_tokenizer(options: PrepareOptions, markers: tuple[str, ...]) -> Tokenizer:
    """As asked for. `char` reads all the text, `bpe` a sample spread over all of it.

    Where the size of the text is not known beforehand the sample is its beginning, as much of each
    name as of the others where they follow one another.
    """
    total = options.total_bytes()
    share = 1.0 if options.tokenizer == "char" or total is None else SAMPLE_BYTES / max(total, 1)
    seed = options.requests[0].seed
    mix = TURNS if options.mix == SEQUENCE else options.mix
    chosen = None
    if share < 1:

        def chosen(text: str) -> bool:
            return zlib.crc32(text.encode("utf-8", "replace"), seed) < share * 2**32

    def texts() -> Iterator[str]:
        size = 0
        for number, document in enumerate(options.documents(Counter(), chosen, mix), start=1):
            size += document.size
            yield from pieces(document.text)  # a giant text would take gigabytes
            if number % 1024 == 0:
                options.tell("tokenizer", number, round(size / min(share, 1)))

    return make_tokenizer(
        options.tokenizer,
        texts=texts,
        vocab_size=options.vocab_size,
        languages=markers,
        offline=options.requests[0].offline,
    )


def _begin(
    options: PrepareOptions,
    plan: splitting.SplitPlan,
    tokenizer: Tokenizer,
    markers: tuple[str, ...],
    writer: ShardWriter,
) -> _Work:
    """From the last noted moment, or from the beginning."""
    mark, at = writer.mark or {}, writer.marked_at
    folder = staging.staging_folder(options.out) / CLEANING
    return _Work(
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


def _write_shards(work: _Work) -> None:
    """Tokenize and write all documents that the writer does not have yet.

    While some batches are tokenized the next is read and cleaned, and one before them is written.
    A moment that work can go on from lies between two batches: its mark is taken when the one is
    read and the other is not, and noted as soon as all that was read until then is written.
    """
    saved = time.monotonic()
    under_way: deque[_UnderWay] = deque()
    with ThreadPoolExecutor(TOKENIZING, "holo-tokenize") as pool:
        for documents in work.pipeline:
            placed, mark = _placed(work, documents), None
            # not while documents are passed over: they are in the shards, and behind such a mark
            if not work.skip and time.monotonic() - saved > CHECKPOINT_SECONDS:
                mark = _mark(work)
                saved = time.monotonic()
            under_way.append(_UnderWay(placed, pool.submit(_tokenize, work, placed), mark))
            while len(under_way) > AHEAD or sum(b.characters for b in under_way) > AT_MOST:
                _write(work, under_way.popleft())
            work.options.tell("packing", work.documents, work.bytes)
        while under_way:
            _write(work, under_way.popleft())
        work.options.tell("packing", work.documents, work.bytes)


def _mark(work: _Work) -> dict[str, Any]:
    return {"flow": work.pipeline.state(), "names": list(work.names), "bytes": work.bytes}


def _placed(work: _Work, documents: Sequence[Document]) -> list[_Placed]:
    """Each document, or each part of it, with its side; those that are packed already left out."""
    found: list[_Placed] = []
    for document in documents:
        work.names.setdefault(document.source, len(work.names))
        for split, part in work.plan.place(document):
            work.documents += 1
            work.bytes += part.size
            if work.skip:
                work.skip -= 1
                continue
            if work.markers and not part.language:
                part = replace(part, language=detect(part.text, work.markers))
            found.append((split, part))
    return found


def _tokenize(work: _Work, placed: Sequence[_Placed]) -> list[Ids]:
    if not needs_text(work.options.tokenizer):
        for _, part in placed:
            if lost := work.tokenizer.unknown(part.text):
                raise DataError(
                    f"The tokenizer cannot write '{lost[0]}' (U+{ord(lost[0]):04X}), "
                    f"which is in {part.source or work.options.name}.",
                    next_step="Use --tokenizer bpe, or char made anew from this text.",
                )
    marker = work.tokenizer.marker
    return encode(
        work.tokenizer,
        [part.text for _, part in placed],
        dtype=work.writer.dtype,
        opens=[marker(part.language) for _, part in placed] if work.markers else None,
        closes=work.tokenizer.end,
    )


def _write(work: _Work, batch: _UnderWay) -> None:
    for (split, part), ids in zip(batch.placed, batch.encoded.result(), strict=True):
        work.writer.add(
            split,
            ids,
            part.size,
            part.language,
            work.names[part.source],
            words=count_words(part.text),
            score=part.score,
            perplexity=part.perplexity,
        )
    if batch.mark is not None:
        work.writer.checkpoint(batch.mark)


def _meta(work: _Work, dtype: str, shards: list[Shard]) -> Meta:
    options, tokenizer = work.options, work.tokenizer
    folder = staging.staging_folder(options.out)
    languages = {
        split: {
            code: LanguageTotals(**share)
            for code, share in languages_of(
                folder, [shard for shard in shards if shard.split == split]
            ).items()
        }
        for split in SPLITS
    }
    return Meta(
        name=options.name,
        sources=[source.description for source in options.sources],
        mixture=work.pipeline.shares(),
        settings=options.settings(),
        versions=_versions(),
        tokenizer=TokenizerMeta(
            kind=tokenizer.kind,
            fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
        ),
        dtype="uint16" if dtype == "uint16" else "uint32",
        specials=tokenizer.specials,
        markers=bool(work.markers),
        shards=shards,
        languages=languages,
        source_names=list(work.names),
        dropped=dict(sorted(work.pipeline.counts.items())),
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
            continue  # run from a checkout that is not installed, or an extra that is not there
    return versions
