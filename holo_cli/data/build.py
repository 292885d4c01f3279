"""A job carried out in its workshop: tokenizer, shards, meta.json.

Text is read once for the tokenizer where it is made from the text, and once for the shards. When
work goes on after an interruption the text is read from its start again, which is cheap, and only
what was not packed yet is tokenized, which is not.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from holo_cli.data import splitting, workshop
from holo_cli.data.document import Document
from holo_cli.data.job import Job
from holo_cli.data.language import detect
from holo_cli.data.meta import META, SPLITS, Meta, Shard, Share, Split, TokenizerMeta
from holo_cli.data.pack import Packer, languages_of
from holo_cli.data.tokenizers import Tokenizer, load_tokenizer, make_tokenizer, needs_text
from holo_cli.data.tokenizers.bpe import SAMPLE_BYTES
from holo_cli.errors import DataError
from holo_cli.files import atomic_write_bytes

BATCH_CHARACTERS, BATCH_DOCUMENTS = 1_000_000, 1024  # tokenized at once
CHECKPOINT_SECONDS = 5.0


def build(job: Job, plan: splitting.Plan) -> tuple[Meta, bool]:
    """Make the set, or what is missing of it, and publish it; whether work was gone on with."""
    folder = workshop.building(job.out)
    settings = job.settings()
    resumed = workshop.check_resumable(job.out, settings)
    if not resumed:
        workshop.clear(job.out)
        folder.mkdir()
    languages = job.languages or plan.languages
    markers = tuple(languages) if len(languages) > 1 else ()
    tokenizer = load_tokenizer(folder) if resumed else _tokenizer(job, markers)
    if not resumed:
        tokenizer.save(folder)
    dtype = "uint16" if tokenizer.vocab_size <= 65_536 else "uint32"
    packer = Packer(folder, dtype, settings, job.shard_bytes)
    counts: Counter[str] = Counter()
    names: dict[str, int] = {}
    try:
        _pack(job, plan, tokenizer, markers, packer, counts, names)
        shards = packer.finish()
    finally:
        packer.close()
    for split in SPLITS:
        if not any(shard.split == split for shard in shards):
            raise DataError(f"No document fell into {split}.", next_step="Use more text.")
    meta = _meta(job, tokenizer, dtype, markers, shards, names, counts)
    atomic_write_bytes(folder / META, meta.to_json())
    workshop.publish(job.out)
    return meta, resumed


def _tokenizer(job: Job, markers: tuple[str, ...]) -> Tokenizer:
    """As asked for. `char` reads all the text, `bpe` a sample spread over all of it.

    Where the size of the text is not known beforehand the sample is its beginning.
    """
    total = job.total_bytes()
    share = 1.0 if job.tokenizer == "char" or total is None else SAMPLE_BYTES / max(total, 1)
    seed = job.requests[0].seed

    def texts() -> Iterator[str]:
        size = 0
        for number, document in enumerate(job.documents(Counter()), start=1):
            data = document.text.encode("utf-8")
            size += len(data)
            if share >= 1 or zlib.crc32(data, seed) < share * 2**32:
                yield document.text
            if number % BATCH_DOCUMENTS == 0:
                job.tell("tokenizer", number, size)

    return make_tokenizer(
        job.tokenizer,
        texts=texts,
        vocab_size=job.vocab_size,
        languages=markers,
        offline=job.requests[0].offline,
    )


def _pack(
    job: Job,
    plan: splitting.Plan,
    tokenizer: Tokenizer,
    markers: tuple[str, ...],
    packer: Packer,
    counts: Counter[str],
    names: dict[str, int],
) -> None:
    """Tokenize and write all documents that the packer does not have yet."""
    skip, position, size, saved = packer.position, 0, 0, time.monotonic()
    batch: list[tuple[Split, Document]] = []
    held = 0

    def write() -> None:
        nonlocal held, saved
        encoded = tokenizer.encode_batch([document.text for _, document in batch])
        for (split, document), ids in zip(batch, encoded, strict=True):
            marker = tokenizer.marker(document.language) if markers else None
            whole = [*([] if marker is None else [marker]), *ids, tokenizer.end]
            length = len(document.text.encode("utf-8"))
            packer.add(split, whole, length, document.language, names[document.source])
        batch.clear()
        held = 0
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            packer.checkpoint()
            saved = time.monotonic()
        job.tell("packing", position, size)

    for document in job.documents(counts):
        names.setdefault(document.source, len(names))
        for split, part in plan.place(document):
            position += 1
            size += len(part.text.encode("utf-8"))
            if position <= skip:
                continue
            if markers and not part.language:
                part = replace(part, language=detect(part.text, markers))
            if not needs_text(job.tokenizer) and (lost := tokenizer.unknown(part.text)):
                raise DataError(
                    f"The tokenizer cannot write '{lost[0]}' (U+{ord(lost[0]):04X}), "
                    f"which is in {part.source or job.name}.",
                    next_step="Use --tokenizer bpe, or char made anew from this text.",
                )
            batch.append((split, part))
            held += len(part.text)
            if held >= BATCH_CHARACTERS or len(batch) >= BATCH_DOCUMENTS:
                write()
    if batch:
        write()


def _meta(
    job: Job,
    tokenizer: Tokenizer,
    dtype: str,
    markers: tuple[str, ...],
    shards: list[Shard],
    names: dict[str, int],
    counts: Counter[str],
) -> Meta:
    folder = workshop.building(job.out)
    languages = {
        split: {
            code: Share(**share)
            for code, share in languages_of(
                folder, [shard for shard in shards if shard.split == split]
            ).items()
        }
        for split in SPLITS
    }
    return Meta(
        name=job.name,
        sources=[source.description for source in job.sources],
        settings=job.settings(),
        versions=_versions(),
        tokenizer=TokenizerMeta(
            kind=tokenizer.kind,
            fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
        ),
        dtype="uint16" if dtype == "uint16" else "uint32",
        specials=tokenizer.specials,
        markers=bool(markers),
        shards=shards,
        languages=languages,
        source_names=list(names),
        dropped=dict(sorted(counts.items())),
        seed=job.requests[0].seed,
        seconds=round(time.monotonic() - job.started, 3),
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
