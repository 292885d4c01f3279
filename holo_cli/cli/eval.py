"""`holo eval`: how well a checkpoint predicts a text, or solves tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holo_cli.cli import complete, eval_suite, options
from holo_cli.cli.output import Output, count, duration, is_terminal, size
from holo_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from holo_cli.checkpoint.header import Header
    from holo_cli.data.dataset import PreparedData
    from holo_cli.inference.evaluation.eval_corpus import Texts
    from holo_cli.inference.evaluation.evaluate import Result
    from holo_cli.inference.generation.loaded_model import LoadedModel


def evaluate(
    checkpoint: options.Checkpoint = None,
    model: options.ModelFile = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME",
            help="A prepared set; left out: the one the checkpoint was trained on.",
            autocompletion=complete.prepared,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Its part: val or train.  [val]"),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="A text instead, or -. May be repeated."),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option("--encoding", metavar="NAME", help="Of --file, as in cp949.  [utf-8]"),
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option("--lang", metavar="CODE", help="Language, as in en or ko; ko,en for a suite."),
    ] = None,
    max_docs: Annotated[
        int | None, typer.Option("--max-docs", metavar="N", help="The first N documents only.")
    ] = None,
    context: Annotated[
        int | None,
        typer.Option("--context", metavar="N", help="Tokens the model sees; left out: as trained."),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option("--stride", metavar="N", help="Tokens that a window moves on by."),
    ] = None,
    carry: Annotated[
        bool,
        typer.Option("--carry", help="Carry the state through the text, without windows."),
    ] = False,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite", metavar="NAME", help="minimal-pairs, blimp or korean instead of a text."
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            "--pairs", metavar="N", help="Minimal pairs of each phenomenon (default: 500)."
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", metavar="A,B,...", help="Tasks of lm-evaluation-harness instead."),
    ] = None,
    task_folder: Annotated[
        Path | None,
        typer.Option("--task-folder", metavar="FOLDER", help="Where tasks of your own are."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Examples of a task at most.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option("--shots", metavar="N", help="Examples shown before a question.")
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size", metavar="N", help="Windows or examples at a time; 0: as fits."
        ),
    ] = 0,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Score a checkpoint on a prepared set or a text.

    Loss, bits per byte, perplexity per token and per word, also by language. Or --suite, or
    --tasks.
    """
    out = Output(json=json, verbosity=verbosity)
    texts_only = {
        "--data": data, "--split": split, "--file": files, "--encoding": encoding, "--lang": lang,
        "--max-docs": max_docs, "--context": context, "--stride": stride, "--carry": carry or None,
    }  # fmt: skip
    tasks_only = {"--task-folder": task_folder, "--limit": limit, "--shots": shots}
    of_pairs = suite == eval_suite.PAIRS
    unused = texts_only | tasks_only if of_pairs else texts_only
    if of_pairs:
        unused.pop("--lang")
    eval_suite.check_suite(suite, tasks, pairs, unused)
    if suite is None:
        _check_together(texts_only, tasks_only, tasks)
    for flag, least, value in (
        ("--max-docs", 1, max_docs), ("--limit", 1, limit), ("--context", 1, context),
        ("--stride", 1, stride), ("--shots", 0, shots), ("--batch-size", 0, batch_size),
    ):  # fmt: skip
        if value is not None and value < least:
            raise UsageError(
                f"{flag} must be at least {least}, not {value}.",
                next_step="`holo eval --help` says what it means.",
            )
    given = [_read(file, encoding) for file in files or ()]
    from holo_cli.cli.compute import load, tell_newest

    loaded = load(checkpoint, device, dtype)
    tell_newest(checkpoint, loaded, out)
    named = {"model": loaded.header.model, "run": loaded.header.run, "step": loaded.header.step}
    if of_pairs:
        bar = _Progress(out)
        rows = eval_suite.run_pairs(loaded, lang, pairs, batch_size, bar)
        bar.end()
        out.document({**named, "suite": suite, "scores": rows})
        eval_suite.show_pairs(rows, out)
        return
    if suite is not None or tasks is not None:
        run_tasks = eval_suite.harness(
            "--tasks need" if suite is None else f"--suite {suite} needs"
        )
        names = [name.strip() for name in (tasks or "").split(",") if name.strip()]
        names = eval_suite.TASKS_OF.get(suite or "", names)
        results = run_tasks(
            loaded, names, folder=task_folder, limit=limit, shots=shots, rows=batch_size,
            warn=out.warn,
        )  # fmt: skip
        of_suite = {} if suite is None else {"suite": suite}
        out.document({**named, **of_suite, **results})
        out.table(("task", "measure", "value", "error"), eval_suite.task_rows(results["tasks"]))
        return
    texts, what = _texts(loaded, given, files or (), data, split or "val", lang, max_docs, out)
    from holo_cli.inference.evaluation.evaluate import evaluate_texts

    bar = _Progress(out)
    result = evaluate_texts(
        loaded, texts, context=context, stride=stride, carry=carry, rows=batch_size, progress=bar
    )
    bar.end()
    dtype_name = str(loaded.dtype or "torch.float32").removeprefix("torch.")
    out.document({**result.to_dict(), **named, "data": what, "carry": carry, "dtype": dtype_name})
    _show(result, out)


def _check_together(
    texts_only: dict[str, Any], tasks_only: dict[str, Any], tasks: str | None
) -> None:
    """No flag is taken that would do nothing."""
    texts_only, tasks_only = options.given(**texts_only), options.given(**tasks_only)
    if tasks is not None and texts_only:
        raise UsageError(
            f"--tasks bring their own texts: {', '.join(texts_only)} would do nothing.",
            next_step="Leave that out.",
        )
    if tasks is None and tasks_only:
        raise UsageError(
            f"Without --tasks, {', '.join(tasks_only)} would do nothing.",
            next_step="Name tasks, or leave that out. --max-docs limits the documents of a set.",
        )
    if {"--file", "--data"} <= texts_only.keys():
        raise UsageError("--file and --data exclude each other.", next_step="Leave one out.")
    if {"--file", "--split"} <= texts_only.keys():
        raise UsageError(
            "--split is a part of a prepared set; a file has none.", next_step="Leave one out."
        )
    if "--encoding" in texts_only and "--file" not in texts_only:
        raise UsageError(
            "--encoding is that of a --file, and none is named.", next_step="Leave it out."
        )


def _read(file: Path, encoding: str | None) -> str:
    """A file's text, or that of standard input, exactly: what is scored must be what is there."""
    from holo_cli.data.sources.decoding import NotText, check_encoding, whole_text

    check_encoding(encoding)
    stdin = str(file) == "-"
    name = "Standard input" if stdin else str(file)
    try:
        text = whole_text(sys.stdin.buffer.read() if stdin else file.read_bytes(), name, encoding)
    except NotText as error:
        raise DataError(
            error.message, next_step="Name a file of plain text, or its encoding with --encoding."
        ) from error
    if not text.strip():
        raise DataError(f"{name} holds no text.", next_step="Name a file that is not empty.")
    return text


def _texts(
    loaded: LoadedModel,
    given: list[str],
    files: Sequence[Path],
    data: str | None,
    split: str,
    lang: str | None,
    max_docs: int | None,
    out: Output,
) -> tuple[Texts, str]:
    """What is scored, and its name."""
    from holo_cli.inference.evaluation.eval_corpus import given_texts, prepared_texts

    if given:
        missing = dict.fromkeys(c for text in given for c in loaded.tokenizer.unknown(text))
        if missing:
            out.warn(f"the model's alphabet lacks {' '.join(missing)}: left out, uncounted.")
        return given_texts(loaded, given[:max_docs], lang=lang), ", ".join(map(str, files))
    from holo_cli.data.dataset import PreparedData

    path = data or loaded.header.data.path
    if not path:
        raise UsageError(
            "This checkpoint does not say what it was trained on.",
            next_step="Name a prepared set (--data NAME) or a text (--file FILE).",
        )
    opened = PreparedData.open(path)
    _check_own(loaded.header, opened, data, out)
    texts, anew = prepared_texts(loaded, opened, split, lang=lang, max_docs=max_docs)
    if anew:
        out.note(
            f"{path} was prepared with another tokenizer: read anew with the checkpoint's own. "
            "Compare bits per byte, not losses."
        )
    return texts, f"{opened.path.as_posix()}, {split}"


def _check_own(header: Header, opened: PreparedData, asked: str | None, out: Output) -> None:
    """Whether a set is still what the checkpoint was trained on, where it should be that.

    In one that was prepared anew, documents of the old training part can be in the validation part.
    """
    from holo_cli.data.dataset import ROOT

    trained, path = header.data, opened.path.as_posix()
    same = opened.matches_fingerprint(trained.fingerprint)
    if asked is not None:
        own = opened.name == trained.name or opened.path.resolve() == Path(trained.path).resolve()
        if own and trained.fingerprint and not same:
            out.warn(
                f"{path} is not the set of that name that run '{header.run}' was trained on: "
                "it may hold as validation what the run has learned."
            )
    elif same:
        out.note(f"Neither --data nor --file: scoring {path}, which the run was trained on.")
    elif trained.fingerprint:
        name = opened.path.name if opened.path.parent == ROOT else path
        raise DataError(
            f"{path} is not what run '{header.run}' was trained on: it was prepared anew, and may "
            "hold as validation what the run has learned.",
            next_step=f"To score it all the same, name it: --data {name}",
        )
    else:
        out.warn(
            f"scoring {path}, by whose name the checkpoint was trained; it does not say of which "
            "content, so it may hold as validation what the run has learned."
        )


def _show(result: Result, out: Output) -> None:
    total = result.total
    documents = f"{total.documents:,} document{'' if total.documents == 1 else 's'}"
    how = "state carried" if result.stride is None else f"stride {result.stride}"
    out.facts(
        [
            ("loss", f"{total.loss:.4f} nats per token"),
            ("bits per byte", f"{total.bpb:.4f}"),
            ("perplexity", f"{_perplexity(total.perplexity)} per token"),
            ("word perplexity", f"{_perplexity(total.word_perplexity)} per word"),
            ("tokens", f"{total.tokens:,}"),
            ("text", f"{size(total.bytes)}, {total.words:,} words, {documents}"),
            ("context", f"{result.context}, {how}"),
        ]
    )
    if len(result.per_language) > 1:
        out.text("")
        out.table(
            ("language", "loss", "bits per byte", "word perplexity", "tokens", "documents"),
            [
                (code or "unknown", f"{s.loss:.4f}", f"{s.bpb:.4f}", _perplexity(s.word_perplexity),
                 f"{s.tokens:,}", f"{s.documents:,}")
                for code, s in result.per_language.items()
            ],
        )  # fmt: skip
    speed = total.tokens / max(result.seconds, 1e-9)
    out.note(f"Took {duration(result.seconds)}, {count(speed)} tokens/s.")


def _perplexity(value: float) -> str:
    """With as many digits as say something: those of untrained models have a dozen."""
    return f"{value:.3f}" if value < 1e3 else f"{value:,.0f}" if value < 1e6 else f"{value:.3g}"


class _Progress:
    """A percentage on a terminal's stderr, nothing off it."""

    def __init__(self, out: Output) -> None:
        self.shown = is_terminal(sys.stderr) and not (out.quiet or out.silent)

    def __call__(self, done: int, total: int) -> None:
        if self.shown:
            print(f"\rScoring: {done / total:4.0%}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.shown:
            print("\r" + " " * 20 + "\r", end="", file=sys.stderr, flush=True)
