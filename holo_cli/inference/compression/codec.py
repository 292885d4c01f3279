"""Lossless compression of a file by a model's probabilities.

The size is the model's loss on the text: each token costs -log2 p bits, plus the overhead of the
format (about 100 bytes per file and 14 per chunk). Rows of a group of chunks advance in lockstep.
Source of the idea: Shannon (1948); arithmetic coding with a predictor, Rissanen and Langdon (1981).
Legend: B rows, T tokens of a chunk, D decisions per token.
"""

from __future__ import annotations

import hashlib
import math
import platform
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from holo_cli.data.language import detect
from holo_cli.errors import CheckpointError, DataError, UsageError
from holo_cli.inference.compression import archive as format_
from holo_cli.inference.compression.archive import Archive, ArchiveChunk
from holo_cli.inference.compression.bit_coder import BitDecoder, Undecodable, coder, encode_bits
from holo_cli.inference.compression.quantize import BLOCK, multiples
from holo_cli.inference.compression.stepping import (
    Stepper,
    check_context,
    checkpoint_digest,
    rows_for,
    stepping,
)
from holo_cli.inference.compression.text_tokens import encode_exactly
from holo_cli.inference.compression.token_tree import TokenTree, depth_of, path_bits
from holo_cli.inference.generation.loaded_model import LoadedModel

CHUNK_BYTES = 1 << 16  # of text
Ids = NDArray[np.int64]
OnProgress = Callable[[int, int], None]  # tokens coded so far, tokens in total


@dataclass(frozen=True)
class Compressed:
    """`content` is the file. `nats` is the model's loss on all tokens, before quantisation;
    `payload` the bytes of the coded tokens alone, without the format's overhead."""

    content: bytes
    archive: Archive
    nats: float
    payload: int

    @property
    def bits_per_byte(self) -> float:
        """Of the file on the disk; NaN for an empty text."""
        return 8 * len(self.content) / self.archive.text if self.archive.text else math.nan

    @property
    def model_bits_per_byte(self) -> float:
        """The model's loss, `text_bpb` of `holo eval`; NaN for an empty text."""
        return self.nats / math.log(2) / self.archive.text if self.archive.text else math.nan


def compress(
    loaded: LoadedModel,
    content: bytes,
    *,
    name: str = "The file",
    context: int | None = None,
    carry: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
    lang: str | None = None,
    progress: OnProgress = lambda done, total: None,
) -> Compressed:
    """Compress bytes; `decompress` with the same checkpoint restores them.

    `context` is the window (default: as trained), `carry` carries the state through each chunk
    instead. `chunk_bytes` is about the text of a chunk. `lang` chooses the language marker
    (default: detected). Raises DataError for bytes that the tokenizer cannot represent exactly,
    UsageError for an unsupported context or language, and if the coder's package is not installed.
    """
    coder()
    if carry and context is not None:
        raise UsageError("--carry and --context cannot be combined.", next_step="Omit one of them.")
    model = loaded.model
    window = 0 if carry else context or loaded.config.context
    check_context(model, window)
    tokens = np.asarray(encode_exactly(loaded.tokenizer, content, name), dtype=np.int64)
    marked = _marked(loaded, content, lang)
    prefix = _prefix(loaded, marked)
    chunk_tokens = _chunk_tokens(len(tokens), len(content), window, chunk_bytes, len(prefix) - 1)
    chunks = [tokens[i : i + chunk_tokens] for i in range(0, len(tokens), chunk_tokens or 1)]
    rows = rows_for(model, window or chunk_tokens, len(chunks)) if chunks else 0
    pieces = [loaded.tokenizer.token_bytes(i) for i in range(loaded.tokenizer.vocab_size)]
    payloads: list[bytes] = []
    nats = 0.0
    with stepping(model):
        for start in range(0, len(chunks), rows or 1):
            group = chunks[start : start + rows]
            stepper = Stepper(model, prefix, len(group), window)
            done = start * chunk_tokens
            coded, lost = _encode(stepper, group, done, len(tokens), progress)
            payloads += coded
            nats += lost
    table = []
    for payload, ids in zip(payloads, chunks, strict=True):
        text = b"".join(pieces[i] for i in ids)
        table.append(ArchiveChunk(len(payload), zlib.crc32(payload), zlib.crc32(text)))
    archive = Archive(
        text=len(content),
        tokens=len(tokens),
        chunk_tokens=chunk_tokens,
        context=window,
        rows=rows,
        checkpoint=checkpoint_digest(loaded),
        digest=_digest(content),
        run=loaded.header.run,
        kind=loaded.header.kind,
        lang=marked or "",
        made=_made(model.device),
        chunks=tuple(table),
    )
    return Compressed(
        format_.pack(archive, payloads), archive, nats, sum(chunk.payload for chunk in table)
    )


def decompress(
    loaded: LoadedModel,
    content: bytes,
    *,
    name: str = "The file",
    chunk: int | None = None,
    progress: OnProgress = lambda done, total: None,
) -> bytes:
    """The bytes that `compress` was given, or those of one chunk, counted from 0.

    Raises DataError for a damaged file and where this machine's arithmetic decodes another text,
    CheckpointError for another checkpoint, UsageError for a chunk that does not exist.
    """
    coder()
    archive, payloads = format_.unpack(content, name)
    check_checkpoint(archive, loaded, name)
    chosen = range(len(payloads))
    if chunk is not None:
        if not 0 <= chunk < len(payloads):
            raise UsageError(
                f"{name} has no chunk {chunk}: it has {len(payloads)}, counted from 0.",
                next_step="Omit --chunk to decompress all of them.",
            )
        chosen = range(chunk, chunk + 1)
    for number in chosen:
        format_.check_payload(archive.chunks[number], payloads[number], number, name)
    model = loaded.model
    prefix = _prefix(loaded, archive.lang)
    total = sum(archive.tokens_of(number) for number in chosen)
    parts: list[bytes] = []
    done = 0
    with stepping(model):
        for start in range(0, len(chosen), archive.rows or 1):
            group = chosen[start : start + archive.rows]
            lengths = [archive.tokens_of(number) for number in group]
            stepper = Stepper(model, prefix, len(group), archive.context)
            try:
                decoders = [BitDecoder(payloads[number]) for number in group]
                decoded = _decode(stepper, decoders, lengths, done, total, progress)
                texts = [_text(loaded, ids) for ids in decoded]
            except (Undecodable, DataError) as error:
                raise mismatch(archive, name, group[0]) from error
            for number, text in zip(group, texts, strict=True):
                if zlib.crc32(text) != archive.chunks[number].text_crc:
                    raise mismatch(archive, name, number)
            parts += texts
            done += sum(lengths)
    text = b"".join(parts)
    if chunk is None and _digest(text) != archive.digest:
        raise mismatch(archive, name, 0)
    return text


def check_checkpoint(archive: Archive, loaded: LoadedModel, name: str) -> None:
    """Raises CheckpointError if the file was compressed with other weights."""
    if checkpoint_digest(loaded) != archive.checkpoint:
        raise CheckpointError(
            f"{name} was compressed with the weights of {archive.run or 'an unnamed run'} "
            f"({archive.kind}), not with those of {loaded.header.run or 'this checkpoint'} "
            f"({loaded.header.kind}).",
            next_step="Name that checkpoint with -c. Further training changes the weights.",
        )


def mismatch(archive: Archive, name: str, number: int) -> DataError:
    """The error where intact bytes decode to another text than was compressed."""
    return DataError(
        f"Chunk {number} of {name} decodes to another text on this machine: its arithmetic differs "
        f"too much from where the file was compressed ({archive.made}).",
        next_step="Decompress it with that version of torch and on that kind of device (--device).",
    )


def _encode(
    stepper: Stepper, chunks: Sequence[Ids], done: int, total: int, progress: OnProgress
) -> tuple[list[bytes], float]:
    """The payload of each chunk, and the loss in nats on all of them."""
    lengths = np.asarray([len(ids) for ids in chunks])
    longest, depth = int(lengths.max()), depth_of(stepper.logits.shape[1])
    padded = np.zeros((longest, len(chunks)), dtype=np.int64)  # (T, B)
    for row, ids in enumerate(chunks):
        padded[: len(ids), row] = ids
    log_odds = np.empty((len(chunks), longest, depth), dtype=np.float32)
    nats = 0.0
    for position, tokens in enumerate(padded):
        tree = TokenTree(stepper.logits)
        log_odds[:, position] = tree.path_log_odds(tokens)
        nats += float(tree.nats(tokens)[position < lengths].sum())
        if position + 1 < longest:
            stepper.feed(tokens)
        progress(min(total, done + (position + 1) * len(chunks)), total)
    payloads = [
        encode_bits(path_bits(ids, depth), log_odds[row, : len(ids)].astype(np.float64))
        for row, ids in enumerate(chunks)
    ]
    return payloads, nats


def _decode(
    stepper: Stepper,
    decoders: Sequence[BitDecoder],
    lengths: Sequence[int],
    done: int,
    total: int,
    progress: OnProgress,
) -> list[list[int]]:
    """The ids of each chunk. Raises Undecodable."""
    vocab_size = stepper.logits.shape[1]
    found: list[list[int]] = [[] for _ in decoders]
    offsets = np.zeros(len(decoders))
    for position in range(max(lengths)):
        tree = TokenTree(stepper.logits)
        live = [row for row, length in enumerate(lengths) if position < length]
        if position % BLOCK == 0:
            for row in live:
                offsets[row] = decoders[row].start_block()
        nodes = np.zeros(len(decoders), dtype=np.int64)
        for level in range(tree.depth):
            rounded = multiples(tree.log_odds(level, nodes), offsets).tolist()
            bits = np.zeros(len(decoders), dtype=np.int64)
            bits[live] = [decoders[row].bit(rounded[row]) for row in live]
            nodes = 2 * nodes + bits
        if nodes.max() >= vocab_size:
            raise Undecodable
        for row in live:
            found[row].append(int(nodes[row]))
        if position + 1 < max(lengths):
            stepper.feed(nodes)
        progress(min(total, done + (position + 1) * len(decoders)), total)
    return found


def _text(loaded: LoadedModel, ids: Sequence[int]) -> bytes:
    return b"".join(map(loaded.tokenizer.token_bytes, ids))


def _marked(loaded: LoadedModel, content: bytes, lang: str | None) -> str | None:
    """The language whose marker begins each chunk, chosen as `holo eval` does; None for none."""
    known = loaded.prompts.languages
    text = content.decode("utf-8", errors="replace")
    if lang is None:
        found = detect(text) if known else ""
        lang = found if found in known else None
    return loaded.prompts.language(text, lang)


def _prefix(loaded: LoadedModel, lang: str | None) -> list[int]:
    marker = loaded.tokenizer.marker(lang) if lang else None
    return [loaded.tokenizer.end, *([] if marker is None else [marker])]


def _chunk_tokens(tokens: int, size: int, window: int, chunk_bytes: int, given: int) -> int:
    """Tokens of every chunk but the last: chunks of about equal length, of whole windows (`given`
    tokens of the first are not coded)."""
    if not tokens:
        return 0
    count = max(1, round(size / chunk_bytes))
    length = -(-tokens // count)
    if window:
        length = max(1, -(-(length + given) // window) * window - given)
    return min(length, tokens)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()[:16]


def _made(device: torch.device) -> str:
    return f"torch {torch.__version__}, {device.type}, {platform.machine()}"
