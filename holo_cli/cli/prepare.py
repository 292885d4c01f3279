"""`holo prepare`: text into token shards."""

from __future__ import annotations

from typing import Annotated

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output, count, duration, size


def prepare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Of `holo datasets`, or a name of yours for --source.",
            autocompletion=complete.sources,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="PATH", help="A file, folder, glob, or - for stdin."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="SPEC",
            help="char, bpe, tiktoken:NAME, llama:PATH, a tokenizer.json, or a prepared set.",
        ),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option("--vocab-size", metavar="N", help="Size of a trained vocabulary.")
    ] = None,
    text_field: Annotated[
        str | None,
        typer.Option("--text-field", metavar="NAME", help="Of jsonl, csv, parquet.  [text]"),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option("--encoding", metavar="NAME", help="Of --source, as in cp949.  [utf-8]"),
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option("--lang", metavar="CODES", help="Languages of the texts, as in ko,en."),
    ] = None,
    subset: Annotated[
        str | None,
        typer.Option("--subset", metavar="NAME", help="Of fineweb, as in sample-100BT."),
    ] = None,
    max_docs: Annotated[
        int | None, typer.Option("--max-docs", metavar="N", help="Documents at most.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option("--max-bytes", metavar="N", help="Bytes of text at most.")
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option("--mix", metavar="HOW", help="balanced, proportional, or ko=0.4,en=0.6."),
    ] = None,
    filter: Annotated[
        str | None,
        typer.Option("--filter", metavar="HOW", help="none, default, strict, or rule=value,..."),
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option("--val-fraction", metavar="X", help="Share of documents for validation."),
    ] = None,
    seed: options.Seed = None,
    out_folder: options.Out = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network.")] = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help="Threads that tokenize, files fetched."),
    ] = None,
    tokenizer_only: Annotated[
        bool, typer.Option("--tokenizer-only", help="Make the tokenizer and nothing else.")
    ] = False,
    force: options.Force = False,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Turn texts into tokens, in data/NAME.

    Killed and started again, it goes on where it was.
    """
    out = Output(json=json, verbosity=verbosity)
    from holo_cli.cli.progress import Preparing
    from holo_cli.data.prepare import prepare as library

    given = options.given(
        out=out_folder,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        source=source,
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
    )
    with Preparing(out) as progress:
        prepared = library.prepare(
            names or [],
            offline=offline,
            force=force,
            progress=progress,
            notice=out.note,
            **given,
        )
    if prepared.already:
        out.note(f"{prepared.data} was there already, with these settings.")
    elif prepared.resumed:
        out.note("Went on where the last preparation stopped.")
    result = prepared.to_dict()
    out.document(result)
    if tokenizer_only:
        made = f"{result['tokenizer']} of {result['vocab_size']:,} tokens"
        out.facts([("tokenizer", made), ("in", result["data"])])
        out.end("", f"holo prepare NAME --tokenizer {result['data']}")
        return
    out.facts(
        [
            ("data", result["data"]),
            *((f"{split} tokens", count(n)) for split, n in result["tokens"].items()),
            *((f"{split} bytes", size(n)) for split, n in result["bytes"].items()),
            *((f"{split} documents", f"{n:,}") for split, n in result["docs"].items()),
            ("tokenizer", f"{result['tokenizer']} of {result['vocab_size']:,} tokens"),
            *((f"dropped: {rule}", f"{n:,}") for rule, n in result["dropped"].items() if n),
            ("time", duration(result["seconds"])),
        ]
    )
    out.end("", f"holo train --model vanilla --data {result['data']}")
