"""The files that are damaged: one small example of everything holo reads, made by holo itself."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.sandbox import CommandLine, Outcome

TINY = (
    "--set", "model.layers=1", "--set", "model.width=16", "--set", "model.heads=2",
    "--context", "16", "--batch-size", "2", "--grad-accum", "2", "--dtype", "float32",
    "--device", "cpu", "--seed", "1", "--set", "training.sample_tokens=0",
    "--set", "training.eval_batch_size=8", "--set", "training.log_every=1",
)  # fmt: skip
BUILD_SECONDS = 300.0

CONFIG = """\
# a config of one's own
preset = "tiny"

[model]
layers = 1
heads = 2
width = 16
context = 16

[training]
steps = 4
batch_size = 2
grad_accum = 1
lr = 0.01
warmup = 2
schedule = "cosine"
dtype = "float32"
eval_every = 2
seed = 3
clip = 1.0

[data]
path = "data/tiny"
"""

PLAN = """\
title = "A comparison"
data = "data/tiny"
match = "none"
rates = [1.0]
extend = 0
seeds = 2
evaluations = 2

[base.model]
layers = 1
heads = 2
width = 16
context = 16

[base.training]
steps = 4
batch_size = 2
warmup = 2
log_every = 2
device = "cpu"
dtype = "float32"

[entry.vanilla]
model = "vanilla"

[entry.gla]
model = "gla"
"""


class BuildError(RuntimeError):
    """An undamaged command failed: the bench cannot begin."""


def must(outcome: Outcome, *codes: int) -> Outcome:
    """The outcome, if it is one of these exit codes (default: 0)."""
    if outcome.code not in (codes or (0,)):
        raise BuildError(f"{outcome.code} {outcome.signal}: {outcome.stderr[-2000:]}")
    return outcome


def holo(folder: Path, *arguments: str, stdin: str = "") -> CommandLine:
    """A command in the folder, as a user types it there."""
    return CommandLine(arguments, folder, stdin, {"XDG_CONFIG_HOME": str(folder / "settings")})


def build(folder: Path, *, bench: bool) -> None:
    """Fill the folder. `bench` adds bench rows, whose workers are processes that import torch."""

    def run(*arguments: str, stdin: str = "", codes: tuple[int, ...] = (0,)) -> None:
        must(holo(folder, *arguments, stdin=stdin).run(BUILD_SECONDS), *codes)

    folder.mkdir(parents=True)
    run("prepare", "stories", "--max-bytes", "40000", "--tokenizer", "bpe", "--vocab-size", "300",
        "--out", "data/tiny")  # fmt: skip
    text = _text(folder)
    (folder / "story.txt").write_text(text, encoding="utf-8")
    run("prepare", "letters", "--source", "story.txt", "--tokenizer", "char")
    run("train", "--model", "vanilla", "--data", "tiny", "--run", "base", *TINY, "--steps", "8",
        "--eval-every", "2", "--stop-at", "5", codes=(3,))  # fmt: skip
    run("export", "base", "--to", "dir", "--out", "exported")
    lines = ("The fox ran home.", "/memory on", "And the hare?", "/save talk.json",
             "/memory save memory.json", "")  # fmt: skip
    talk = "\n".join(lines)
    run("chat", "-c", "checkpoints/base_last.safetensors", "--max-new-tokens", "6", stdin=talk)
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    (folder / "plan.toml").write_text(PLAN, encoding="utf-8")
    _write_sources(folder / "sources", text)
    must(CommandLine((), folder, setup=lambda: _sentencepiece(folder, text)).run(60), 0, 1, 2)
    shutil.copy(folder / "data/tiny/tokenizer.json", folder / "tokenizer.json")
    if bench:
        run("bench", "compare", "--plan", "plan.toml", "--out", "bench/page.html")
        (folder / "bench/page.html").unlink()  # large, and never read


def _text(folder: Path) -> str:
    """The stories that were prepared, read back through their own tokenizer."""
    found: list[str] = []

    def read() -> None:
        from holo_cli.data.dataset import PreparedData

        data = PreparedData.open(folder / "data/tiny")
        tokens, ends = data.split("train")[0], data.document_ends("train")[0]
        begin = 0
        for end in ends:
            found.append(data.tokenizer.decode(tokens[begin : int(end)].tolist()))
            begin = int(end)
        (folder / "story.txt").write_text("\n\n\n\n".join(found), encoding="utf-8")

    must(CommandLine(("--version",), folder, setup=read).run(60))
    return (folder / "story.txt").read_text(encoding="utf-8")


def _sentencepiece(folder: Path, text: str) -> None:
    """A SentencePiece model, made in the child: training starts threads."""
    import sentencepiece

    with (folder / "letters.model").open("wb") as file, contextlib.suppress(OSError):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text.split("\n")), model_writer=file, vocab_size=1000,
            model_type="bpe", byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip


def _write_sources(folder: Path, text: str) -> None:
    """The same documents in every form that `holo prepare --source` reads."""
    import pyarrow
    import pyarrow.parquet
    import zstandard

    folder.mkdir()
    documents = [part for part in text.split("\n\n\n\n") if part.strip()]
    rows = "".join(json.dumps({"text": one, "id": n}) + "\n" for n, one in enumerate(documents))
    table = "text,id\n" + "".join(
        '"' + one.replace('"', '""') + f'",{n}\n' for n, one in enumerate(documents)
    )
    makers: dict[str, Callable[[], bytes]] = {
        "plain.txt": lambda: text.encode(),
        "rows.jsonl": rows.encode,
        "list.json": lambda: json.dumps([{"text": one} for one in documents]).encode(),
        "table.csv": table.encode,
        "rows.jsonl.gz": lambda: gzip.compress(rows.encode(), mtime=0),
        "plain.txt.zst": lambda: zstandard.ZstdCompressor().compress(text.encode()),
    }
    for name, make in makers.items():
        (folder / name).write_bytes(make())
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": documents}), stream)
    (folder / "rows.parquet").write_bytes(stream.getvalue())
