"""`holo bench speed`, `scaling` and `decode`: what models cost, measured in turn in one run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holo_cli.cli import bench_options, complete, options, table_layout
from holo_cli.cli.bench_options import Markdown, Open, Sets, Variants, machine_of, sink
from holo_cli.cli.output import duration, size
from holo_cli.errors import HoloError, UsageError

if TYPE_CHECKING:
    from holo_cli.bench.experiment.entries import Log, ResolvedEntry
    from holo_cli.bench.report import Report
    from holo_cli.cli.output import Output

FOLDER = Path("bench")
LENGTHS = {"tiny": "128,512,2048"}
POSITIONS = {"tiny": "16,64,256,1024"}
USUAL_LENGTHS = "512,1024,2048,4096,8192,16384"
USUAL_POSITIONS = "16,128,512,2048,8192"

Models = Annotated[
    str | None,
    typer.Option("--models", metavar="A,B,...", help="Models to measure; left out: all."),
]
Preset = Annotated[
    str,
    typer.Option(
        "--preset", metavar="NAME", help="The common shape: tiny, 25m, ...",
        autocompletion=complete.presets,
    ),
]  # fmt: skip
Vocabulary = Annotated[
    int | None, typer.Option("--vocab-size", metavar="N", help="Size of the vocabulary.")
]
Repeats = Annotated[
    int | None, typer.Option("--repeats", metavar="N", help="Rounds, in which all take turns.")
]
Seconds = Annotated[
    float, typer.Option("--seconds", metavar="X", help="Training of each in a round.")
]


def speed(
    models: Models = None,
    variants: Variants = None,
    preset: Preset = "tiny",
    sets: Sets = None,
    context: Annotated[
        int | None, typer.Option("--context", metavar="N", help="Tokens in a sequence.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", metavar="N", help="Sequences in a batch.")
    ] = None,
    vocab_size: Vocabulary = None,
    repeats: Repeats = 5,
    seconds: Seconds = 0.5,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            metavar="N",
            help="Written by each in a round; left out: 32, or "
            "as many as the context has room for.",
        ),
    ] = None,
    out_path: options.Out = None,
    open_page: Open = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.Json = False,
    markdown: Markdown = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Measure how fast models train and write, and their memory, at one shape.

    All take turns, round after round. Raw rows lie beside the page, as .jsonl.
    """
    bench = _Bench("speed", preset, out_path, open_page, sink(json, markdown, verbosity))
    _at_least_one(("--repeats", repeats), ("--tokens", tokens), ("--context", context),
                  ("--batch-size", batch_size), ("--vocab-size", vocab_size))  # fmt: skip
    from holo_cli.bench.speed import page
    from holo_cli.bench.speed import speed as library

    subjects = _entries(
        models, variants, preset, sets, vocab_size, device, dtype,
        context=context, batch_size=batch_size,
    )  # fmt: skip
    found = library.measure(
        subjects, bench.log(), repeats=repeats or 1, seconds=seconds, tokens=tokens,
        tell=bench.out.note,
    )  # fmt: skip
    bench.table(*page.table(found))
    bench.out.sentences(page.findings(found))
    if note := page.busy_note(found):
        bench.out.warn(note)
    products = {f"products_{name}_gflops": s.to_dict() for name, s in found.products.items()}
    bench.finish(found.rows(), {**found.machine, **products}, page.report(found))


def scaling(
    models: Models = None,
    variants: Variants = None,
    preset: Preset = "tiny",
    sets: Sets = None,
    lengths: Annotated[
        str | None,
        typer.Option("--lengths", metavar="N,N,...", help="Contexts to measure at."),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", metavar="N", help="In a step; left out: the longest length."),
    ] = None,
    vocab_size: Vocabulary = None,
    repeats: Repeats = 3,
    seconds: Seconds = 0.3,
    out_path: options.Out = None,
    open_page: Open = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.Json = False,
    markdown: Markdown = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Measure how time and memory of training grow with the context.

    Gives a fitted exponent for each model, and where their curves cross.
    """
    bench = _Bench("scaling", preset, out_path, open_page, sink(json, markdown, verbosity))
    _at_least_one(("--repeats", repeats), ("--tokens", tokens), ("--vocab-size", vocab_size))
    asked = _numbers("--lengths", lengths or LENGTHS.get(preset, USUAL_LENGTHS))
    from holo_cli.bench.speed import scaling as library
    from holo_cli.bench.speed import scaling_page as page

    reserved = {"model.context": "--lengths", "training.batch_size": "--tokens"}
    subjects = _entries(models, variants, preset, sets, vocab_size, device, dtype, reserved)
    found = library.measure(
        subjects, bench.log(), lengths=asked, tokens=tokens, repeats=repeats or 1,
        seconds=seconds, tell=bench.out.note,
    )  # fmt: skip
    bench.table(*page.table(found))
    bench.out.sentences(page.findings(found))
    bench.finish(found.rows(), found.machine, page.report(found), crossings=found.crossings())


def decode(
    models: Models = None,
    variants: Variants = None,
    preset: Preset = "tiny",
    sets: Sets = None,
    positions: Annotated[
        str | None,
        typer.Option("--positions", metavar="N,N,...", help="Where in a text to measure."),
    ] = None,
    tokens: Annotated[
        int, typer.Option("--tokens", metavar="N", help="Written from each position in a round.")
    ] = 16,
    vocab_size: Vocabulary = None,
    repeats: Repeats = 3,
    out_path: options.Out = None,
    open_page: Open = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.Json = False,
    markdown: Markdown = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Measure how speed of writing and size of state depend on the position.

    Also how near the speed comes to what reading the memory allows.
    """
    bench = _Bench("decode", preset, out_path, open_page, sink(json, markdown, verbosity))
    _at_least_one(("--repeats", repeats), ("--tokens", tokens), ("--vocab-size", vocab_size))
    asked = _numbers("--positions", positions or POSITIONS.get(preset, USUAL_POSITIONS))
    from holo_cli.bench.speed import decode as library

    reserved = {"model.context": "--positions"}
    subjects = _entries(models, variants, preset, sets, vocab_size, device, dtype, reserved)
    found = library.measure(
        subjects, bench.log(), positions=asked, tokens=tokens, repeats=repeats or 1,
        tell=bench.out.note,
    )  # fmt: skip
    bench.table(*library.table(found))
    bench.out.sentences(library.findings(found))
    if note := library.busy_note(found):
        bench.out.warn(note)
    memory = {f"memory_{k}_bytes_per_second": s.to_dict() for k, s in found.memory.items()}
    bench.finish(found.rows(), {**found.machine, **memory}, library.report(found))


class _Bench:
    """What the three have in common: where rows and page go, and how they end."""

    def __init__(
        self,
        name: str,
        preset: str,
        page: Path | None,
        open_page: bool,
        out: Output,
    ) -> None:
        self.name, self.open_page = name, open_page
        self.out = out
        self.page = page or FOLDER / f"{name}-{preset}.html"
        self.begun = time.monotonic()

    def log(self) -> Log:
        from datetime import UTC, datetime

        from holo_cli.bench.experiment.entries import Log
        from holo_cli.bench.experiment.result_log import rows_path

        self.raw = rows_path(self.page)
        return Log.to(self.raw, self.name, datetime.now(UTC).isoformat(timespec="seconds"))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.out.table(columns, rows, table_layout.WIDTH)

    def finish(self, rows: list[dict[str, Any]], machine: Any, report: Report, **more: Any) -> None:
        """Write the page and the document. Raises HoloError where every model failed."""
        nbytes = report.write(self.page)
        seconds = time.monotonic() - self.begun
        self.out.document(
            {"bench": self.name, "rows": rows, **more, "machine": machine, "page": self.page,
             "bytes": nbytes, "rows_file": self.raw, "seconds": round(seconds, 1)}
        )  # fmt: skip
        machine_of(machine, self.out)
        wrote = f"Wrote {self.page} ({size(nbytes)}) and {self.raw}, in {duration(seconds)}."
        if self.open_page:
            import webbrowser

            webbrowser.open(self.page.resolve().as_uri())
        self.out.end(wrote, "" if self.open_page else "open the page in a browser")
        states = {row["status"] for row in rows if "status" in row}
        if "measured" not in states:
            raise HoloError("Every model failed; the rows say why.", next_step=f"See {self.raw}.")


def _entries(
    models: str | None,
    variants: list[str] | None,
    preset: str,
    sets: list[str] | None,
    vocab_size: int | None,
    device: str | None,
    dtype: str | None,
    reserved: Mapping[str, str] = {},
    **shape: int | None,
) -> list[ResolvedEntry]:
    from holo_cli.bench.experiment.entries import resolve_entries

    return resolve_entries(
        bench_options.models(models), variants or (), preset=preset, sets=sets or (),
        vocab_size=vocab_size, device=device or "auto", dtype=dtype or "auto", reserved=reserved,
        **shape,
    )  # fmt: skip


def _numbers(flag: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{flag} {text}: whole numbers with commas between them are wanted.",
            next_step=f"For example: {flag} 128,256,512",
        ) from None


def _at_least_one(*flags: tuple[str, int | None]) -> None:
    for flag, value in flags:
        if value is not None and value < 1:
            raise UsageError(f"{flag} must be at least 1, not {value}.")
