"""The campaign of kills in `holo prepare`: killed and repeated, to the same bytes."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from benchmarks.faults import verdict, world
from benchmarks.faults.kills import (
    SECONDS,
    SIGNALS,
    References,
    Row,
    kill,
    leftovers,
    timeless,
)
from benchmarks.faults.sandbox import CommandLine
from holo_cli.parsing import parse_json

COPIES = 60  # of the world's text, numbered: about 2 MB, which take several batches


def write_source(path: Path, text: str, copies: int = COPIES) -> None:
    """The text that is prepared."""
    documents = [part for part in text.split("\n\n\n\n") if part.strip()]
    numbered = (f"{n}. {part}" for n in range(copies) for part in documents)
    path.write_text("\n\n\n\n".join(numbered), encoding="utf-8")


def _mark_every_batch() -> None:
    """Progress is stored every five seconds, by which time this preparation is done."""
    from holo_cli.data.prepare import build

    build.CHECKPOINT_SECONDS = 0.0


def prepare_case(number: int, seed: int, source: Path, references: References, folder: Path) -> Row:
    """Kill and repeat a preparation; the set must have the same bytes as an undisturbed one."""
    rng = random.Random(f"{seed}-prepare-{number}")
    sent = SIGNALS[number % len(SIGNALS)]
    tokenizer = ("bpe", "char")[number % 2]

    def command(where: Path) -> CommandLine:
        made = world.holo(
            where, "prepare", "set", "--source", str(source), "--tokenizer", tokenizer,
            "--vocab-size", "400", "--workers", "1",
        )  # fmt: skip
        made.setup = _mark_every_batch
        return made

    reference, seconds = references.of(f"prepare-{tokenizer}", command)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def fresh() -> CommandLine:
        shutil.rmtree(folder)
        folder.mkdir()
        return command(folder)

    def written() -> list[Path]:
        return [path for path in folder.rglob("*") if ".building" in path.parts and path.is_file()]

    in_write = number // len(SIGNALS) % 2 == 1
    killed = kill(rng, fresh, sent, seconds, written if in_write else None, writes=24)
    resumed = any(folder.glob("data/set/.building/*.bin"))
    outcome = command(folder).run(SECONDS)
    fault = verdict.fault(outcome) or ("" if outcome.code == 0 else outcome.stderr)
    fault = fault or _different_set(reference / "data/set", folder / "data/set")
    return {
        "target": f"prepare {tokenizer}",
        "damage": f"{signal.Signals(sent).name} in {killed.where}",
        "where": killed.where,
        "attempts": killed.attempts,
        "command": "prepare",
        "resumed": resumed,
        "fault": fault or leftovers(folder),
    }


def _different_set(reference: Path, found: Path) -> str:
    files = [
        sorted(p.name for p in one.iterdir() if p.name != ".lock") for one in (reference, found)
    ]
    if files[0] != files[1]:
        return f"different: files {files[1]}"
    for name in files[0]:
        contents = [(one / name).read_bytes() for one in (reference, found)]
        if name == "meta.json":
            metas = [timeless(parse_json(content)) for content in contents]
            if metas[0] != metas[1]:
                return "different: meta.json"
        elif contents[0] != contents[1]:
            return f"different: {name}"
    return ""
