"""`holo eval`: scores how well a checkpoint predicts a text, or solves tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holo_cli.cli import complete, eval_suite, options
from holo_cli.cli.generate import read_prompt_file
from holo_cli.cli.output import Output, count, duration, size
from holo_cli.cli.progress import Counting
from holo_cli.errors import DataError, UsageError
from holo_cli.names import quoted
from holo_cli.wording import counted

MOST = 10**9  # of counts: more overflow somewhere on their way through torch

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
            help="Prepared set, by name or path (default: the checkpoint's training data).",
            autocompletion=complete.prepared,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="Split of the prepared set: val or train (default: val).",
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Text file to score instead, or - for standard input. May be repeated.",
        ),
    ] = None,
    encoding: options.Encoding = None,
    lang: Annotated[
        str | None,
        typer.Option(
            "--lang",
            metavar="CODE",
            help="Language of the documents, such as en; several for a suite, as ko,en.",
        ),
    ] = None,
    max_docs: options.MaxDocs = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", metavar="N", help="Context length in tokens (default: as trained)."
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride", metavar="N", help="Window stride in tokens (default: the context)."
        ),
    ] = None,
    carry: Annotated[
        bool,
        typer.Option(
            "--carry", help="Carry the state through the whole text instead of using windows."
        ),
    ] = False,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            help="Run a suite instead of scoring a text: minimal-pairs, blimp or korean.",
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            "--pairs", metavar="N", help="Number of minimal pairs per phenomenon (default: 500)."
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks", metavar="A,B,...", help="Run tasks of lm-evaluation-harness instead."
        ),
    ] = None,
    task_folder: Annotated[
        Path | None,
        typer.Option(
            "--task-folder", metavar="FOLDER", help="Folder of your own task definitions."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", help="Maximum number of examples per task (default: all)."
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            "--shots",
            metavar="N",
            help="Number of few-shot examples (default: the task's).",
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            metavar="N",
            help="Windows or examples per batch; 0 chooses automatically (default: 0).",
            show_default=False,
        ),
    ] = 0,
    device: options.Device = None,
    dtype: options.Dtype = None,
    weights: options.Weights = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Evaluate a checkpoint on a prepared set, a text or tasks.

    Prints loss, bits per byte, and perplexity per token and per word, in total and by language;
    with --suite or --tasks the scores of the tasks.
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
                next_step="See: holo eval --help",
            )
        if value is not None and value > MOST:
            raise UsageError(
                f"{flag} must be at most {MOST}, not {value}.", next_step="See: holo eval --help"
            )
    given = [_read(file, encoding) for file in files or ()]
    from holo_cli.cli.compute import load_with_options, note_newest

    loaded = load_with_options(checkpoint, device, dtype, weights)
    note_newest(checkpoint, loaded, out)
    if not loaded.only_continues and (given or suite is not None or tasks is not None):
        out.note("This checkpoint was trained on conversations; the text is scored as plain text.")
    named = {"model": loaded.header.model, "run": loaded.header.run, "step": loaded.header.step}
    if of_pairs:
        with Counting(out, "Scoring") as progress:
            rows = eval_suite.run_pairs(loaded, lang, pairs, batch_size, progress)
        out.document({**named, "suite": suite, "scores": rows})
        eval_suite.show_pairs(rows, out)
        return
    if suite is not None or tasks is not None:
        run_tasks = eval_suite.lm_eval("--tasks" if suite is None else f"--suite {suite}")
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

    def evaluate(model: LoadedModel) -> Result:
        with Counting(out, "Scoring") as progress:
            return evaluate_texts(
                model, texts, context=context, stride=stride, carry=carry, rows=batch_size,
                progress=progress,
            )  # fmt: skip

    if texts.answers is not None:
        out.note("Of conversations only the answers are scored, as in training.")
    result = evaluate(loaded)
    dtype_name = str(loaded.dtype or "torch.float32").removeprefix("torch.")
    cost: dict[str, Any] = {}
    if weights == "int8":
        as_stored = evaluate(load_with_options(checkpoint, device, dtype)).total
        cost = {
            "weights": weights,
            "stored": as_stored.to_dict(),
            "weights_cost": {
                "loss": result.total.loss - as_stored.loss,
                "bpb": result.total.bpb - as_stored.bpb,
            },
        }
    out.document(
        {**result.to_dict(), **named, "data": what, "carry": carry, "dtype": dtype_name, **cost}
    )
    _show(result, out)
    if cost:
        loss, bpb = cost["weights_cost"]["loss"], cost["weights_cost"]["bpb"]
        out.note(f"Weights in int8 cost {loss:+.4f} nats per token ({bpb:+.4f} bits per byte).")


def _check_together(
    texts_only: dict[str, Any], tasks_only: dict[str, Any], tasks: str | None
) -> None:
    """Raises UsageError for options that would have no effect."""
    texts_only, tasks_only = options.given(**texts_only), options.given(**tasks_only)
    if tasks is not None and texts_only:
        raise UsageError(
            f"--tasks does not use: {', '.join(texts_only)}", next_step="Omit these options."
        )
    if tasks is None and tasks_only:
        raise UsageError(
            f"These options need --tasks: {', '.join(tasks_only)}",
            next_step="Add --tasks, or use --max-docs to limit the documents of a set.",
        )
    if {"--file", "--data"} <= texts_only.keys():
        raise UsageError("--file and --data cannot be combined.", next_step="Omit one of them.")
    if {"--file", "--split"} <= texts_only.keys():
        raise UsageError(
            "--file and --split cannot be combined: a file has no splits.",
            next_step="Omit one of them.",
        )
    if "--encoding" in texts_only and "--file" not in texts_only:
        raise UsageError(
            "--encoding needs --file.", next_step="Add --file FILE, or omit --encoding."
        )


def _read(file: Path, encoding: str | None) -> str:
    """The exact text of a file or of standard input."""
    stdin = str(file) == "-"
    name = "Standard input" if stdin else str(file)
    if stdin:
        text = _of_stdin(name, encoding)
    else:
        text = read_prompt_file(file, encoding)
    if not text.strip():
        raise DataError(f"{name} contains no text.", next_step="Give a file that is not empty.")
    return text


def _of_stdin(name: str, encoding: str | None) -> str:
    from holo_cli.data.normalize import to_nfc
    from holo_cli.data.sources.decoding import check_encoding, whole_text

    check_encoding(encoding)
    return to_nfc(whole_text(sys.stdin.buffer.read(), name, encoding))


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
    """The corpus to score, and its name."""
    from holo_cli.inference.evaluation.eval_corpus import given_texts, prepared_texts

    if given:
        missing = dict.fromkeys(c for text in given for c in loaded.tokenizer.unknown(text))
        if missing:
            out.warn(f"Skipped characters that the tokenizer cannot encode: {' '.join(missing)}")
        return given_texts(loaded, given[:max_docs], lang=lang), ", ".join(map(str, files))
    from holo_cli.data.dataset import PreparedData
    from holo_cli.inference.trained_data import open_trained

    path = data or loaded.header.data.path
    if not path:
        raise UsageError(
            "The checkpoint does not name its training data.",
            next_step="Give a prepared set with --data NAME or a text with --file FILE.",
        )
    opened = PreparedData.open(path) if data else open_trained(loaded.header.data)
    _check_own(loaded.header, opened, data, out)
    texts, retokenized = prepared_texts(loaded, opened, split, lang=lang, max_docs=max_docs)
    if retokenized:
        out.note(
            f"{path} was prepared with another tokenizer and is tokenized again with the "
            "checkpoint's. Compare bits per byte, not losses."
        )
    return texts, f"{opened.shown}, {split}"


def _check_own(header: Header, opened: PreparedData, asked: str | None, out: Output) -> None:
    """Checks that a set is still the one the checkpoint was trained on, if it should be.

    In a set that was prepared again, validation documents may be former training documents.
    """
    from holo_cli.paths import DATA

    trained, path = header.data, opened.shown
    for one in trained.sets if asked is not None else ():
        if opened.path.resolve() == Path(one.path).resolve():
            trained = trained.model_copy(update=one.model_dump(include={"fingerprint", "path"}))
    same = opened.matches_fingerprint(trained.fingerprint)
    if asked is not None:
        own = opened.name == trained.name or opened.path.resolve() == Path(trained.path).resolve()
        if own and trained.fingerprint and not same:
            out.warn(
                f"{path} has changed since run '{header.run}' was trained on it: its validation "
                "split may contain the run's training text."
            )
    elif same:
        out.note(f"No --data or --file was given: scoring {path}, the run's training data.")
    elif trained.fingerprint:
        name = opened.path.name if opened.path.parent == DATA else path
        raise DataError(
            f"{path} has changed since run '{header.run}' was trained on it: its validation split "
            "may contain the run's training text.",
            next_step=f"To score it anyway, add: --data {quoted(name)}",
        )
    else:
        out.warn(
            f"The checkpoint names its training data {path}, but not its content: the validation "
            "split may contain the run's training text."
        )


def _show(result: Result, out: Output) -> None:
    total = result.total
    documents = counted(total.documents, "document")
    how = "state carried" if result.stride is None else f"stride {result.stride}"
    out.facts(
        [
            ("loss", f"{total.loss:.4f} nats per token"),
            ("bits per byte", f"{total.text_bpb:.4f}"),
            ("with end tokens", f"{total.bpb:.4f} bits per byte"),
            ("perplexity", f"{_perplexity(total.perplexity)} per token"),
            ("word perplexity", f"{_perplexity(total.word_perplexity)} per word"),
            ("tokens", f"{total.tokens:,}"),
            ("text", f"{size(total.bytes)}, {counted(total.words, 'word')}, {documents}"),
            ("context", f"{result.context}, {how}"),
        ]
    )
    if len(result.per_language) > 1:
        out.text("")
        out.table(
            ("language", "loss", "bits per byte", "word perplexity", "tokens", "documents"),
            [
                (code or "unknown", f"{s.loss:.4f}", f"{s.text_bpb:.4f}",
                 _perplexity(s.word_perplexity), f"{s.tokens:,}", f"{s.documents:,}")
                for code, s in result.per_language.items()
            ],
        )  # fmt: skip
    speed = total.tokens / max(result.seconds, 1e-9)
    out.note(f"Took {duration(result.seconds)}, {count(speed)} tokens/s.")


def _perplexity(value: float) -> str:
    """With a sensible number of digits: the perplexity of an untrained model has a dozen."""
    return f"{value:.3f}" if value < 1e3 else f"{value:,.0f}" if value < 1e6 else f"{value:.3g}"
