"""`holo prepare`: tokenizes text into shards."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from holo_cli.cli import complete, options, prepare_all
from holo_cli.cli.output import Output, count, duration, size
from holo_cli.errors import UsageError
from holo_cli.names import quoted


def prepare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Sources from `holo datasets` (all: each of them as its own set), or your own "
            "name for --source.",
            autocompletion=complete.sources,
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="PATH",
            help="Your text: a file, a folder, a glob pattern, an address such as "
            "s3://bucket/texts, or - for standard input; may be repeated.",
        ),
    ] = None,
    chat: Annotated[
        list[str] | None,
        typer.Option(
            "--chat",
            metavar="PATH",
            help="Your conversations: JSON lines with messages in OpenAI's form, of which the "
            "answers are learned; may be repeated.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="SPEC",
            help="Tokenizer: char, bpe, tiktoken:NAME, llama:PATH, a tokenizer.json, or a prepared "
            "set whose tokenizer is used (default: the source's).",
        ),
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(
            "--vocab-size",
            metavar="N",
            help="Vocabulary size in tokens of a trained tokenizer (default: 8192).",
        ),
    ] = None,
    text_field: Annotated[
        str | None,
        typer.Option(
            "--text-field",
            metavar="NAME",
            help="Field of the text in jsonl, csv and parquet files (default: text).",
        ),
    ] = None,
    encoding: options.Encoding = None,
    lang: Annotated[
        str | None,
        typer.Option(
            "--lang",
            metavar="CODES",
            help="Languages of the texts, for example ko,en (default: the source's, or detected).",
        ),
    ] = None,
    subset: Annotated[
        str | None,
        typer.Option(
            "--subset",
            metavar="NAME",
            help="Subset of a source, for example sample-100BT of fineweb.",
        ),
    ] = None,
    max_docs: options.MaxDocs = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-bytes",
            metavar="N",
            help="Maximum size of the text in bytes (default: unlimited).",
        ),
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option(
            "--mix",
            metavar="HOW",
            help="Mixture of languages: balanced, proportional, or shares such as ko=0.4,en=0.6.",
        ),
    ] = None,
    filter: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="HOW",
            help="Document filter: none, default, strict, or rules as NAME=VALUE,...",
        ),
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            "--val-fraction",
            metavar="X",
            help="Fraction of the documents for the validation split.",
        ),
    ] = None,
    seed: options.Seed = None,
    out_folder: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="PATH",
            help="Folder to write, or the address of one in an object store (default: data/NAME).",
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not use the network.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", help="Number of tokenizer threads and of parallel downloads."
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            metavar="N",
            help="Number of processes that clean (default: half the cores, at most 8).",
        ),
    ] = None,
    tokenizer_only: Annotated[
        bool, typer.Option("--tokenizer-only", help="Train the tokenizer only, without shards.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Read and clean only shard I of N, on as many machines; --merge makes them one "
            "set.",
        ),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge", help="Make the set from its shards; all other settings are theirs."
        ),
    ] = False,
    force: options.Force = False,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Tokenize text into a prepared set in data/NAME.

    An interrupted preparation resumes when the same command is run again.
    """
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.cli.progress import Preparing
    from holo_cli.data.prepare import prepare as library

    for flag, paths in (("--source", source), ("--chat", chat)):
        if not all(map(str.strip, paths or ())):  # an unset variable of a shell, not this folder
            raise UsageError(
                f"{flag} names nothing.", next_step="For the files of this folder: --source ."
            )
    given = options.given(
        out=out_folder,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        source=source or None,
        chat=chat or None,
        text_field=text_field,
        encoding=encoding,
        lang=[code.strip() for code in lang.split(",")] if lang else None,
        subset=subset,
        max_docs=max_docs,
        max_bytes=max_bytes,
        mix=mix,
        filter=filter,
        tokenizer_only=tokenizer_only or None,
        val_fraction=val_fraction,
        seed=seed,
        workers=workers,
        processes=processes,
        shard=shard,
    )
    if merge:
        _check_merge(given)
    if prepare_all.asked(names, [*(source or ()), *(chat or ())]):
        prepare_all.prepare_all(out, given, offline=offline, force=force)
        return
    with Preparing(out) as progress:
        prepared = (library.merge if merge else library.prepare)(
            names or [],
            offline=offline,
            force=force,
            progress=progress,
            notice=out.note,
            warn=out.warn,
            **given,
        )
    if prepared.already:
        out.note(f"{prepared.data} is already prepared with these settings.")
    elif prepared.resumed:
        out.note("Resumed the interrupted preparation.")
    for note in prepared.notes:
        out.note(note)
    for warning in prepared.warnings:
        out.warn(warning)
    result = prepared.to_dict()
    out.document(result)
    if shard is not None:
        _report_shard(result, out)
        return
    if tokenizer_only:
        made = f"{result['tokenizer']} of {result['vocab_size']:,} tokens"
        out.facts([("tokenizer", made), ("path", result["data"])])
        out.end("", f"holo prepare NAME --tokenizer {quoted(result['data'])}")
        return
    out.facts(
        [
            ("data", result["data"]),
            *((f"{split} tokens", count(n)) for split, n in result["tokens"].items()),
            *((f"{split} bytes", size(n)) for split, n in result["bytes"].items()),
            *((f"{split} documents", f"{n:,}") for split, n in result["docs"].items()),
            ("tokenizer", f"{result['tokenizer']} of {result['vocab_size']:,} tokens"),
            *((f"dropped: {rule}", f"{n:,}") for rule, n in result["dropped"].items() if n),
            *((f"passed over: {what}", f"{n:,}") for what, n in result["passed_over"].items()),
            ("time", duration(result["seconds"])),
        ]
    )
    out.end("", f"holo train --model vanilla --data {quoted(result['data'])}")


def _check_merge(given: dict[str, Any]) -> None:
    """Raises UsageError for options that --merge has no use for."""
    for option in given:
        if option not in ("out", "workers", "processes"):
            raise UsageError(
                f"--merge takes its settings from the shards, so "
                f"--{option.replace('_', '-')} cannot be combined with it.",
                next_step="For example: holo prepare NAME --merge",
            )


def _report_shard(result: dict[str, Any], out: Output) -> None:
    made = result["shard"]
    out.facts(
        [
            ("shard", made["shard"]),
            ("files", f"{made['files']:,}"),
            ("documents", f"{made['documents']:,}"),
            ("bytes", size(made["bytes"])),
            ("time", duration(result["seconds"])),
        ]
    )
    out.end("", f"holo prepare --out {quoted(result['data'])} --merge")
