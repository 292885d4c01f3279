"""`holo compare`: two checkpoints on the same text, in figures and in what they write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output, count, size
from holo_cli.cli.progress import Counting
from holo_cli.errors import UsageError
from holo_cli.translation import translate

if TYPE_CHECKING:
    from holo_cli.inference.evaluation.eval_corpus import Texts
    from holo_cli.inference.evaluation.paired import PairedScores
    from holo_cli.inference.generation.loaded_model import LoadedModel

PROMPTS = 4  # from the text, where none is given
TOKENS = 60
WIDTH = 100  # of texts side by side, off a terminal
MOST = 10**9  # of counts: more overflow somewhere on their way through torch


def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A", help="Checkpoint, as a path or a run's name.", autocompletion=complete.runs
        ),
    ],
    second: Annotated[
        str,
        typer.Argument(metavar="B", help="Another checkpoint.", autocompletion=complete.runs),
    ],
    model: options.ModelFile = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME",
            help="Prepared set whose validation split is scored (default: A's training data).",
            autocompletion=complete.prepared,
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="Text file to score instead. May be repeated."),
    ] = None,
    max_docs: options.MaxDocs = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="Prompt for both (default: the beginnings of documents). May be repeated.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int,
        typer.Option(
            "--max-new-tokens",
            metavar="N",
            help="New tokens of each text; 0 writes none (default: 60).",
            show_default=False,
        ),
    ] = TOKENS,
    temperature: options.Temperature = None,
    seed: options.Seed = None,
    out_path: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="Also write the comparison as an HTML page."),
    ] = None,
    device: options.Device = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Compare two checkpoints: loss by language, and texts.

    Bits per byte can be compared between any two checkpoints, losses only with the same tokenizer.
    """
    out = Output(json=json, verbosity=verbosity)
    for flag, least, value in (
        ("--max-docs", 1, max_docs),
        ("--max-new-tokens", 0, max_new_tokens),
    ):
        if value is not None and not least <= value <= MOST:
            raise UsageError(
                f"{flag} must be from {least} to {MOST}, not {value}.",
                next_step="See: holo compare --help",
            )
    if data is not None and files:
        raise UsageError("--file and --data cannot be combined.", next_step="Omit one of them.")
    from holo_cli.cli.compute import load_with_options
    from holo_cli.inference.evaluation.evaluate import evaluate_texts
    from holo_cli.inference.evaluation.paired import opening_prompts, pairs, sample_texts

    models = (load_with_options(first, device, None), load_with_options(second, device, None))
    texts, what = _texts(models, data, files or [], max_docs)
    results = []
    for loaded, own in zip(models, texts, strict=True):
        with Counting(out, "Scoring") as progress:
            results.append(evaluate_texts(loaded, own, progress=progress))
    scores = pairs(*results)
    answering = any(not loaded.only_continues for loaded in models)
    chosen = [(text, "") for text in prompts or ()] or opening_prompts(
        models[0], texts[0], PROMPTS, messages=answering
    )
    samples: list[dict[str, str]] = []
    if max_new_tokens:
        sampling = options.given(temperature=temperature)
        with Counting(out, "Writing") as progress:
            samples = sample_texts(
                models, chosen, progress, max_new_tokens=max_new_tokens, seed=seed or 0, **sampling
            )
    labels = _labels(models, (first, second))
    described = [_describe(loaded) for loaded in models]
    out.document(
        {
            "a": described[0], "b": described[1], "data": what, "total": scores[0].to_dict(),
            "per_language": {pair.language: pair.to_dict() for pair in scores[1:]},
            "samples": samples,
        }
    )  # fmt: skip
    facts, table = _facts(described, what), _scores(scores)
    out.table(("", *labels), [(translate(name), *values) for name, *values in facts], literal=True)
    out.text("")
    out.table(_columns(labels), table)
    if models[0].tokenizer.fingerprint != models[1].tokenizer.fingerprint:
        out.note("The tokenizers differ: compare bits per byte (bpb), not losses.")
    how = _how_prompted(models, labels) if samples else ""
    if samples:
        if how:
            out.note(how)
        out.text("")
        rows = [(row["prompt"], row["a"], row["b"]) for row in samples]
        out.table(("prompt", *labels), rows, width=WIDTH, literal=True)
    wrote = ""
    if out_path is not None:
        nbytes = _page(out_path, labels, facts, table, samples, how)
        wrote = f"Wrote {out_path} ({size(nbytes)})."
    out.end(wrote, "")


def _texts(
    models: tuple[LoadedModel, LoadedModel], data: str | None, files: list[Path], most: int | None
) -> tuple[tuple[Texts, Texts], str]:
    """The corpus in the tokenizer of each checkpoint, and its name."""
    from holo_cli.cli.generate import read_prompt_file
    from holo_cli.data.dataset import PreparedData
    from holo_cli.inference.evaluation.eval_corpus import given_texts, prepared_texts
    from holo_cli.inference.trained_data import open_trained

    a, b = models
    if files:
        read = [read_prompt_file(file, None) for file in files][:most]
        return (given_texts(a, read), given_texts(b, read)), ", ".join(map(str, files))
    if data is None and not a.header.data.path:
        raise UsageError(
            "The first checkpoint does not name its training data.",
            next_step="Give a prepared set with --data NAME or a text with --file FILE.",
        )
    opened = PreparedData.open(data) if data is not None else open_trained(a.header.data)
    of_a, _ = prepared_texts(a, opened, "val", max_docs=most)
    of_b, _ = prepared_texts(b, opened, "val", max_docs=most)
    return (of_a, of_b), f"{opened.shown}, val"


def _labels(models: tuple[LoadedModel, LoadedModel], typed: tuple[str, str]) -> tuple[str, str]:
    a, b = (loaded.header.run or name for loaded, name in zip(models, typed, strict=True))
    if a != b:
        return a, b
    a, b = (f"{loaded.header.run} ({loaded.header.kind})" for loaded in models)
    return (a, b) if a != b else (f"A: {a}", f"B: {b}")


def _how_prompted(models: tuple[LoadedModel, LoadedModel], labels: tuple[str, str]) -> str:
    """How the prompts of the texts reach the models; "" where both continue them."""
    answering = [not loaded.only_continues for loaded in models]
    message = ""
    if all(answering):
        message = "Both are asked in their chat format, as in `holo chat`."
    elif any(answering):
        asked, base = labels if answering[0] else labels[::-1]
        message = (
            f"{asked} is asked in its chat format, as in `holo chat`; {base} is a base model and "
            "continues the prompt."
        )
    return message


def _describe(loaded: LoadedModel) -> dict[str, Any]:
    header = loaded.header
    parameters = sum(p.numel() for p in loaded.model.parameters())
    return {
        "run": header.run, "kind": header.kind, "model": header.model, "step": header.step,
        "parameters": parameters, "data": header.data.title or header.data.path,
        "tokenizer": loaded.tokenizer.kind, "vocab_size": loaded.tokenizer.vocab_size,
        "context": loaded.config.context, "only_continues": loaded.only_continues,
    }  # fmt: skip


def _facts(described: list[dict[str, Any]], what: str) -> list[tuple[str, str, str]]:
    def row(name: str, key: str) -> tuple[str, str, str]:
        a, b = (f"{d[key]:,}" if isinstance(d[key], int) else str(d[key]) for d in described)
        return name, a, b

    sizes = [count(d["parameters"]) for d in described]
    return [
        row("model", "model"),
        ("parameters", sizes[0], sizes[1]),
        row("step", "step"),
        row("data", "data"),
        row("context", "context"),
        ("scored text", what, what),
    ]


def _scores(scores: list[PairedScores]) -> list[tuple[str, ...]]:
    rows = []
    for number, pair in enumerate(scores):
        language = pair.language or ("unknown" if number else "all")
        shown = ""
        if (found := pair.difference) is not None:
            shown = f"{found.bpb:+.4f}"
            if found.margin is not None:
                shown += f" ± {found.margin:.4f}"
        rows.append(
            (language, *(f"{x:.4f}" for s in (pair.a, pair.b) for x in (s.loss, s.text_bpb)), shown)
        )
    return rows


def _columns(labels: tuple[str, str]) -> tuple[str, ...]:
    return ("language", *(f"{x}: {y}" for x in labels for y in ("loss", "bpb")), "difference")


def _page(
    path: Path,
    labels: tuple[str, str],
    facts: list[tuple[str, str, str]],
    scores: list[tuple[str, ...]],
    samples: list[dict[str, str]],
    how_prompted: str,
) -> int:
    from holo_cli.models.views import Table
    from holo_cli.visualize.page import Page, Section, write_page

    sections = [
        Section("Scores", "Loss in nats per token; bpb: bits per byte of the text. The difference "
                "is that of the second in bits per byte: below zero is better.",
                tables=[Table("", _columns(labels), scores)]),
        Section("Checkpoints", "", tables=[Table("", ("", *labels), facts)]),
    ]  # fmt: skip
    if samples:
        rows = [(row["prompt"], row["a"], row["b"]) for row in samples]
        sections.append(
            Section("Texts", how_prompted, tables=[Table("", ("prompt", *labels), rows)])
        )
    return write_page(Page(f"{labels[0]} and {labels[1]}", [], sections), path)
