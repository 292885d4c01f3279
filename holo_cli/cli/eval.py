"""`holo eval`: how well a checkpoint predicts a text, or solves tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holo_cli.cli import complete, options
from holo_cli.cli.output import Output, count, duration, is_terminal, size
from holo_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from holo_cli.inference.evaluation import Result, Texts
    from holo_cli.inference.loaded import Loaded


def evaluate(
    checkpoint: options.Checkpoint = None,
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
        str, typer.Option("--split", metavar="NAME", help="Its part: val or train.")
    ] = "val",
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="A text instead, or -. May be repeated."),
    ] = None,
    lang: options.Lang = None,
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
        int, typer.Option("--batch-size", metavar="N", help="Windows at a time; 0: as fits.")
    ] = 0,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.Json = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Score a checkpoint on a prepared set or a text.

    Loss, bits per byte, perplexity per token and per word, also by language. Or --tasks.
    """
    out = Output(json=json, verbosity=verbosity)
    if files and data:
        raise UsageError("--file and --data exclude each other.", next_step="Leave one out.")
    if tasks is not None and (files or data or stride or carry):
        raise UsageError(
            "--tasks bring their own texts.", next_step="Leave --data, --file and the like out."
        )
    for flag, value in (("--max-docs", max_docs), ("--limit", limit), ("--context", context)):
        if value is not None and value < 1:
            raise UsageError(f"{flag} must be at least 1, not {value}.")
    given = [_read(file) for file in files or ()]
    from holo_cli.cli.compute import load

    loaded = load(checkpoint, device, dtype)
    named = {"model": loaded.header.model, "run": loaded.header.run, "step": loaded.header.step}
    if tasks is not None:
        run_tasks = _harness()
        names = [name.strip() for name in tasks.split(",") if name.strip()]
        results = run_tasks(
            loaded, names, folder=task_folder, limit=limit, shots=shots, rows=batch_size,
            warn=out.warn,
        )  # fmt: skip
        out.document({**named, **results})
        out.table(("task", "measure", "value", "error"), _task_rows(results["tasks"]))
        return
    texts, what = _texts(loaded, given, files or (), data, split, lang, max_docs, out)
    from holo_cli.inference.evaluation import evaluate_texts

    bar = _Progress(out)
    result = evaluate_texts(
        loaded, texts, context=context, stride=stride, carry=carry, rows=batch_size, progress=bar
    )
    bar.end()
    dtype_name = str(loaded.dtype or "torch.float32").removeprefix("torch.")
    out.document({**result.to_dict(), **named, "data": what, "carry": carry, "dtype": dtype_name})
    _show(result, out)


def _harness() -> Callable[..., dict[str, Any]]:
    try:
        from holo_cli.inference.harness import run_tasks
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lm_eval":
            raise
        raise UsageError(
            "--tasks need lm-evaluation-harness, which is not installed.",
            next_step="Install it: pip install 'holo-cli[eval]'",
        ) from None
    return run_tasks


def _read(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    text = file.read_text(encoding="utf-8-sig")
    if not text.strip():
        raise DataError(f"{file} holds no text.", next_step="Name a file that is not empty.")
    return text


def _texts(
    loaded: Loaded,
    given: list[str],
    files: Sequence[Path],
    data: str | None,
    split: str,
    lang: str | None,
    max_docs: int | None,
    out: Output,
) -> tuple[Texts, str]:
    """What is scored, and its name."""
    from holo_cli.inference.evaluation import given_texts, prepared_texts

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
    if data is None:
        out.note(f"Neither --data nor --file: scoring {path}, which the run was trained on.")
    opened = PreparedData.open(path)
    texts, anew = prepared_texts(loaded, opened, split, lang=lang, max_docs=max_docs)
    if anew:
        out.note(
            f"{path} was prepared with another tokenizer: read anew with the checkpoint's own. "
            "Compare bits per byte, not losses."
        )
    return texts, f"{opened.path.as_posix()}, {split}"


def _show(result: Result, out: Output) -> None:
    total = result.total
    how = "state carried" if result.stride is None else f"stride {result.stride}"
    out.facts(
        [
            ("loss", f"{total.loss:.4f} nats per token"),
            ("bits per byte", f"{total.bpb:.4f}"),
            ("perplexity", f"{total.perplexity:,.3f} per token"),
            ("word perplexity", f"{total.word_perplexity:,.3f} per word"),
            ("tokens", f"{total.tokens:,}"),
            ("text", f"{size(total.bytes)}, {total.words:,} words, {total.documents:,} documents"),
            ("context", f"{result.context}, {how}"),
        ]
    )
    if len(result.per_language) > 1:
        out.text("")
        out.table(
            ("language", "loss", "bits per byte", "word perplexity", "tokens", "documents"),
            [
                (code or "unknown", f"{s.loss:.4f}", f"{s.bpb:.4f}", f"{s.word_perplexity:,.2f}",
                 f"{s.tokens:,}", f"{s.documents:,}")
                for code, s in result.per_language.items()
            ],
        )  # fmt: skip
    speed = total.tokens / max(result.seconds, 1e-9)
    out.note(f"Took {duration(result.seconds)}, {count(speed)} tokens/s.")


def _task_rows(tasks: dict[str, dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    rows = []
    for task, measures in tasks.items():
        for name, value in measures.items():
            if isinstance(value, int | float) and not name.endswith("_stderr"):
                error = measures.get(f"{name}_stderr")
                shown = f"{error:.4f}" if isinstance(error, float) else ""
                rows.append((task, name, f"{value:.4f}", shown))
    return rows


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
