"""`holo compress` and `holo decompress`: lossless compression by a checkpoint's probabilities."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holo_cli.cli import options
from holo_cli.cli.output import Output, count, duration, size
from holo_cli.cli.progress import Counting
from holo_cli.errors import CheckpointError, UsageError
from holo_cli.names import quoted

if TYPE_CHECKING:
    from holo_cli.inference.compression.archive import Archive
    from holo_cli.inference.generation.loaded_model import LoadedModel

SUFFIX = ".holoz"
MOST = 10**9  # of counts: more overflow somewhere on their way through torch


def compress(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to compress.")],
    checkpoint: options.Checkpoint = None,
    model: options.ModelFile = None,
    out_path: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help=f"Output path (default: FILE{SUFFIX})."),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", metavar="N", help="Context length in tokens (default: as trained)."
        ),
    ] = None,
    carry: Annotated[
        bool,
        typer.Option(
            "--carry", help="Carry the state through each chunk instead of using windows."
        ),
    ] = False,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            "--chunk-size",
            metavar="BYTES",
            help="Text per chunk; chunks are coded side by side, so that smaller ones are faster "
            "and take a few bytes more (default: 65536).",
        ),
    ] = None,
    lang: options.Lang = None,
    force: options.Force = False,
    device: options.Device = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Compress a file losslessly with a model's probabilities.

    The size is the loss that `holo eval` reports on the text, in bits per byte. The checkpoint is
    needed again to decompress.
    """
    out = Output(json=json, verbosity=verbosity)
    for flag, value in (("--context", context), ("--chunk-size", chunk_size)):
        _check_count(flag, value, 1, "compress")
    target = out_path or file.with_name(file.name + SUFFIX)
    _check_free(target, force)
    content = file.read_bytes()
    from holo_cli.cli.compute import load_with_options, note_newest
    from holo_cli.files import atomic_write_bytes
    from holo_cli.inference.compression import baselines
    from holo_cli.inference.compression.bit_coder import coder
    from holo_cli.inference.compression.codec import CHUNK_BYTES
    from holo_cli.inference.compression.codec import compress as run

    coder()
    loaded = load_with_options(checkpoint, device, "float32")
    note_newest(checkpoint, loaded, out)
    began = time.perf_counter()
    with Counting(out, "Compressing") as progress:
        done = run(
            loaded, content, name=str(file), context=context, carry=carry,
            chunk_bytes=chunk_size or CHUNK_BYTES, lang=lang, progress=progress,
        )  # fmt: skip
    seconds = time.perf_counter() - began
    atomic_write_bytes(target, done.content)
    others = baselines.sizes(content)
    archive, header = done.archive, loaded.header
    out.document(
        {
            "path": target, "bytes": len(content), "compressed_bytes": len(done.content),
            "bits_per_byte": done.bits_per_byte, "model_bits_per_byte": done.model_bits_per_byte,
            "tokens": archive.tokens, "chunks": len(archive.chunks), "context": archive.context,
            "carry": carry, "lang": archive.lang, "others": others, "model": header.model,
            "run": header.run, "step": header.step, "seconds": seconds,
        }
    )  # fmt: skip
    sizes = {header.run or header.model: len(done.content)}
    sizes |= {baselines.NAMES[name]: value for name, value in others.items()}
    out.table(
        ("method", "bytes", "bits per byte", "share"),
        [
            (name, f"{value:,}", _per_byte(8 * value, len(content)), _share(value, len(content)))
            for name, value in sizes.items()
        ],
    )
    if content:
        out.note(f"The model's loss on the text: {done.model_bits_per_byte:.4f} bits per byte.")
        speed = count(archive.tokens / max(seconds, 1e-9))
        out.note(f"Took {duration(seconds)}, {speed} tokens/s.")
    out.end(
        f"Wrote {target} ({size(len(done.content))}).",
        f"holo decompress {quoted(target)} --out {quoted(str(file) + '.restored')}",
    )


def decompress(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File that `holo compress` wrote.")],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            "-c",
            metavar="NAME",
            help="Checkpoint, as a path or a run's name (default: the run named in the file).",
        ),
    ] = None,
    model: options.ModelFile = None,
    out_path: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="PATH", help=f"Output path (default: FILE without {SUFFIX})."
        ),
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option("--chunk", metavar="N", help="Decompress only chunk N, counted from 0."),
    ] = None,
    force: options.Force = False,
    device: options.Device = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Restore a file that `holo compress` compressed, byte for byte.

    Needs the checkpoint that it was compressed with. Checksums find a damaged file, and a machine
    whose arithmetic decodes another text.
    """
    out = Output(json=json, verbosity=verbosity)
    _check_count("--chunk", chunk, 0, "decompress")
    target = out_path or _restored(file)
    _check_free(target, force)
    content = file.read_bytes()
    from holo_cli.files import atomic_write_bytes
    from holo_cli.inference.compression.archive import unpack
    from holo_cli.inference.compression.bit_coder import coder
    from holo_cli.inference.compression.codec import decompress as run

    archive, _ = unpack(content, str(file))
    coder()
    loaded = _load(checkpoint, archive, file, device)
    began = time.perf_counter()
    with Counting(out, "Decompressing") as progress:
        text = run(loaded, content, name=str(file), chunk=chunk, progress=progress)
    seconds = time.perf_counter() - began
    atomic_write_bytes(target, text)
    out.document(
        {
            "path": target, "bytes": len(text), "compressed_bytes": len(content),
            "chunks": len(archive.chunks), "chunk": chunk, "run": archive.run, "seconds": seconds,
        }
    )  # fmt: skip
    out.text(str(target))
    out.note(f"Took {duration(seconds)}.")
    out.end(f"Wrote {target} ({size(len(text))}).", "")


def _load(checkpoint: str | None, archive: Archive, file: Path, device: str | None) -> LoadedModel:
    """The named checkpoint, or that of the run that the file names."""
    from holo_cli.checkpoint import find_checkpoint
    from holo_cli.checkpoint.find import KINDS
    from holo_cli.cli.compute import load_with_options

    if checkpoint is not None:
        return load_with_options(checkpoint, device, "float32")
    if not archive.run:
        raise UsageError(
            f"{file} does not name the run that it was compressed with.",
            next_step="Give the checkpoint with -c NAME.",
        )
    kinds = [kind for kind in KINDS if kind == archive.kind]
    try:
        path = find_checkpoint(archive.run, prefer=kinds)
    except CheckpointError as error:
        raise CheckpointError(
            f"{file} was compressed with run '{archive.run}', which is not in this folder.",
            next_step="Give its checkpoint with -c PATH.",
        ) from error
    return load_with_options(str(path), device, "float32")


def _restored(file: Path) -> Path:
    if file.suffix != SUFFIX:
        raise UsageError(
            f"The name {file} does not end in {SUFFIX}.",
            next_step="Name the restored file with --out PATH.",
        )
    return file.with_suffix("")


def _check_free(target: Path, force: bool) -> None:
    if target.is_dir():
        raise UsageError(f"{target} is a folder.", next_step="Name a file with --out PATH.")
    if target.exists() and not force:
        raise UsageError(
            f"{target} exists already.", next_step="Name another file with --out, or add --force."
        )


def _check_count(flag: str, value: int | None, least: int, command: str) -> None:
    if value is not None and not least <= value <= MOST:
        raise UsageError(
            f"{flag} must be from {least} to {MOST}, not {value}.",
            next_step=f"See: holo {command} --help",
        )


def _per_byte(bits: int, whole: int) -> str:
    return f"{bits / whole:.4f}" if whole else ""


def _share(value: int, whole: int) -> str:
    return f"{value / whole:.1%}" if whole else ""
