"""`holo bench speed`, `scaling` and `decode`: what models cost, measured in turn in one run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holo_cli.cli import bench_options, complete, options, table_layout
from holo_cli.cli.bench_options import (
    Markdown,
    Sets,
    Variants,
    machine_of,
    open_in_browser,
    sink,
)
from holo_cli.cli.output import duration, size
from holo_cli.errors import HoloError, UsageError
from holo_cli.paths import BENCH

if TYPE_CHECKING:
    from holo_cli.cli.output import Output
    from holo_cli.speed.measurements import MeasurementLog, ResolvedEntry
    from holo_cli.visualize.report import Report

LENGTHS = {"tiny": "128,512,2048"}
POSITIONS = {"tiny": "16,64,256,1024"}
DEFAULT_LENGTHS = "512,1024,2048,4096,8192,16384"
DEFAULT_POSITIONS = "16,128,512,2048,8192"

Models = Annotated[
    str | None,
    typer.Option("--models", metavar="A,B,...", help="Models to measure (default: all)."),
]
Preset = Annotated[
    str,
    typer.Option(
        "--preset", metavar="NAME", help="Preset whose shape all models get: tiny, 25m, ...",
        autocompletion=complete.presets,
    ),
]  # fmt: skip
Vocabulary = Annotated[
    int | None, typer.Option("--vocab-size", metavar="N", help="Size of the vocabulary.")
]
Repeats = Annotated[
    int | None,
    typer.Option(
        "--repeats", metavar="N", help="Rounds; in each one all models are measured in turn."
    ),
]
Seconds = Annotated[
    float,
    typer.Option("--seconds", metavar="X", help="Seconds of training of each model in a round."),
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
            help="Tokens that each model writes in a round (default: 32, or as many as the context "
            "has room for).",
        ),
    ] = None,
    out_path: options.Out = None,
    open_page: options.Open = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.Json = False,
    markdown: Markdown = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Measure how fast models train and write, and their memory, at one shape.

    All models are measured in turn, round after round. Raw rows are in the .jsonl file beside the
    page.
    """
    bench = _Bench("speed", preset, out_path, open_page, sink(json, markdown, verbosity))
    _at_least_one(("--repeats", repeats), ("--tokens", tokens), ("--context", context),
                  ("--batch-size", batch_size), ("--vocab-size", vocab_size))  # fmt: skip
    from holo_cli.speed import speed as library

    entries = _entries(
        models, variants, preset, sets, vocab_size, device, dtype,
        context=context, batch_size=batch_size,
    )  # fmt: skip
    found = library.measure(
        entries, bench.log(), repeats=repeats or 1, seconds=seconds, tokens=tokens,
        notify=bench.out.note,
    )  # fmt: skip
    bench.table(*library.table(found))
    bench.out.sentences(library.findings(found))
    if note := library.busy_note(found):
        bench.out.warn(note)
    products = {f"products_{name}_gflops": s.to_dict() for name, s in found.products.items()}
    bench.finish(found.rows(), {**found.machine, **products}, library.report(found))


def scaling(
    models: Models = None,
    variants: Variants = None,
    preset: Preset = "tiny",
    sets: Sets = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            "--lengths", metavar="N,N,...", help="Context lengths to measure (default: by preset)."
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens", metavar="N", help="Tokens in a step (default: the longest length)."
        ),
    ] = None,
    vocab_size: Vocabulary = None,
    repeats: Repeats = 3,
    seconds: Seconds = 0.3,
    out_path: options.Out = None,
    open_page: options.Open = False,
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
    asked = _numbers("--lengths", lengths or LENGTHS.get(preset, DEFAULT_LENGTHS))
    from holo_cli.speed import scaling as library
    from holo_cli.speed import scaling_page as page

    reserved = {"model.context": "--lengths", "training.batch_size": "--tokens"}
    entries = _entries(models, variants, preset, sets, vocab_size, device, dtype, reserved)
    found = library.measure(
        entries, bench.log(), lengths=asked, tokens=tokens, repeats=repeats or 1,
        seconds=seconds, notify=bench.out.note,
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
        typer.Option(
            "--positions",
            metavar="N,N,...",
            help="Positions in the text to measure (default: by preset).",
        ),
    ] = None,
    tokens: Annotated[
        int,
        typer.Option("--tokens", metavar="N", help="Tokens written from each position in a round."),
    ] = 16,
    vocab_size: Vocabulary = None,
    repeats: Repeats = 3,
    out_path: options.Out = None,
    open_page: options.Open = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json: options.Json = False,
    markdown: Markdown = False,
    verbosity: options.Verbosity = None,
    debug: options.Debug = False,
) -> None:
    """Measure how decoding speed and state size depend on the position.

    The speed is also compared with the rate at which memory can be read.
    """
    bench = _Bench("decode", preset, out_path, open_page, sink(json, markdown, verbosity))
    _at_least_one(("--repeats", repeats), ("--tokens", tokens), ("--vocab-size", vocab_size))
    asked = _numbers("--positions", positions or POSITIONS.get(preset, DEFAULT_POSITIONS))
    from holo_cli.speed import decode as library

    reserved = {"model.context": "--positions"}
    entries = _entries(models, variants, preset, sets, vocab_size, device, dtype, reserved)
    found = library.measure(
        entries, bench.log(), positions=asked, tokens=tokens, repeats=repeats or 1,
        notify=bench.out.note,
    )  # fmt: skip
    bench.table(*library.table(found))
    bench.out.sentences(library.findings(found))
    if note := library.busy_note(found):
        bench.out.warn(note)
    memory = {f"memory_{k}_bytes_per_second": s.to_dict() for k, s in found.memory.items()}
    bench.finish(found.rows(), {**found.machine, **memory}, library.report(found))


class _Bench:
    """What the three commands share: where rows and page are written, and how they end."""

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
        self.page = page or BENCH / f"{name}-{preset}.html"
        self.started = time.monotonic()

    def log(self) -> MeasurementLog:
        from datetime import UTC, datetime

        from holo_cli.experiment.result_log import rows_path
        from holo_cli.speed.measurements import MeasurementLog

        self.raw = rows_path(self.page)
        return MeasurementLog.open(
            self.raw, self.name, datetime.now(UTC).isoformat(timespec="seconds")
        )

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.out.table(columns, rows, table_layout.WIDTH)

    def finish(self, rows: list[dict[str, Any]], machine: Any, report: Report, **more: Any) -> None:
        """Write the page and the document. Raises HoloError where every model failed."""
        nbytes = report.write(self.page)
        seconds = time.monotonic() - self.started
        self.out.document(
            {"bench": self.name, "rows": rows, **more, "machine": machine, "page": self.page,
             "bytes": nbytes, "rows_file": self.raw, "seconds": round(seconds, 1)}
        )  # fmt: skip
        machine_of(machine, self.out)
        wrote = f"Wrote {self.page} ({size(nbytes)}) and {self.raw}, in {duration(seconds)}."
        if self.open_page:
            open_in_browser(self.page)
        self.out.end(wrote, "" if self.open_page else "open the page in a browser")
        states = {row["status"] for row in rows if "status" in row}
        if "measured" not in states:
            raise HoloError(
                "Every model failed; the rows have the reasons.", next_step=f"See {self.raw}."
            )


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
    from holo_cli.speed.measurements import resolve_entries

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
            f"{flag} {text}: not whole numbers separated by commas.",
            next_step=f"For example: {flag} 128,256,512",
        ) from None


def _at_least_one(*flags: tuple[str, int | None]) -> None:
    for flag, value in flags:
        if value is not None and value < 1:
            raise UsageError(f"{flag} must be at least 1, not {value}.")
