"""Makes the ready checkpoints that `holo pull` fetches, and says how they were made.

    python -m benchmarks.ready_checkpoints                       # all five, into ready/
    python -m benchmarks.ready_checkpoints --only vanilla ngt    # some of them
    python -m benchmarks.ready_checkpoints --steps 300           # shorter: worse answers

Each is one model in its preset `talk`, trained on exercises in looking back, then on the bilingual
stories and on conversations about them, exported in bfloat16 (at most 8 MB), and asked questions
about stories that it has not seen. An interrupted command continues when it is typed again: the
sets, the runs and the exported files are kept. In the folder are then

    ready-NAME.safetensors     the checkpoints
    ready.json                 the table for `holo pull --table`, with sizes and digests
    README.md                  how each was trained, and how it answers
    answers.json               every question that was asked, with the expected and the given answer
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holo_cli.checkpoint.find import run_path
from holo_cli.checkpoint.read import MODEL_PREFIX, TensorFile, read_header
from holo_cli.checkpoint.ready_table import OWN, PREFIX, ReadyEntry, ReadyTable, parse_table
from holo_cli.checkpoint.write import save
from holo_cli.data.sources.stories.dialogues import (
    DIALOGUES,
    FEWEST_PEOPLE,
    PEOPLE,
    STORY,
    Dialogue,
    tell_dialogue,
)
from holo_cli.data.sources.stories.grammar import LANGUAGES
from holo_cli.errors import HoloError
from holo_cli.files import atomic_write_json, atomic_write_text
from holo_cli.parsing import read_object

if TYPE_CHECKING:
    from holo_cli.inference.chat.session import ChatSession

PREPARE = (
    "prepare stories dialogues --vocab-size 2048 --max-bytes 8000000 "
    "--mix stories=0.05,dialogues=0.95 --out data/talk",
    "prepare exercises --tokenizer data/talk --max-bytes 8000000 --out data/exercises",
)
# looking back is learned in exercises, then used in conversations and stories
FIRST = "train --model {model} --preset talk --data data/exercises --run {run}-first"
THEN = (
    "train --from {run}-first --data data/talk --run {run} --context 256 --batch-size 12 "
    "--steps 1500"
)
MOST_BYTES = 8_000_000  # of a file
QUESTIONS = 40  # about unseen stories, and about several people, in each language
UNSEEN = 7_000_000  # seed of the conversations that questions are taken from
SHOWN = 2  # of them in the README, of each kind and language
KINDS = {PEOPLE: "people", STORY: "stories"}
NAMES = {"en": "English", "ko": "Korean"}
SAMPLING: dict[str, Any] = {"temperature": 0.0, "span_penalty": 0.0, "max_new_tokens": 60}


def holo(arguments: str, folder: Path) -> None:
    """Run a command of holo in the folder. Raises SystemExit with its code if it fails."""
    print(f"$ holo {arguments}", flush=True)
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "holo_cli", *arguments.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        raise SystemExit(done.returncode)


def trained(entry: ReadyEntry, folder: Path, steps: int | None) -> Path:
    """The finished run's checkpoint; trains its two parts, or what is left of them."""
    for command, run in ((FIRST, f"{entry.run}-first"), (THEN, entry.run)):
        last = run_path(folder / "checkpoints", run, "last")
        if not last.exists():
            line = command.format(model=entry.name, run=entry.run)
            holo(line if steps is None else f"{line} --steps {steps}", folder)
        else:
            header = read_header(last)
            if header.step < int(header.config["training"]["steps"]):
                holo(f"resume {run}", folder)
    return run_path(folder / "checkpoints", entry.run, "best")


def exported(entry: ReadyEntry, checkpoint: Path, folder: Path) -> Path:
    """The weights in bfloat16, without a training state. Raises SystemExit for a larger file."""
    import torch

    path = folder / entry.file
    with TensorFile(checkpoint) as file:
        tensors = {
            name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
            for name, tensor in file.read_all().items()
            if name.startswith(MODEL_PREFIX)
        }
        header = file.header.weights_only()
        data = header.data.model_copy(update={"path": ""})  # a folder of this machine
        size = save(path, header.model_copy(update={"data": data}), tensors)
    if size > MOST_BYTES:
        raise SystemExit(f"{path} has {size:,} bytes, more than {MOST_BYTES:,}.")
    return path


# -- how it answers -------------------------------------------------------------------------------


def unseen(language: str, kind: str, count: int) -> list[Dialogue]:
    """Conversations of a kind with questions, of a seed that no training set has."""
    found: list[Dialogue] = []
    number = 0
    while sum(len(one.exchanges) for one in found) < count:
        dialogue = tell_dialogue(number, language, seed=UNSEEN)
        if dialogue.kind == kind:
            found.append(dialogue)
        number += 1
    return found


def answers_of(checkpoint: Path, count: int) -> list[dict[str, Any]]:
    """What a model answers to questions of each kind in each language."""
    from holo_cli.inference.chat.session import ChatSession
    from holo_cli.inference.generation.loaded_model import load
    from holo_cli.inference.generation.sampling import SamplingConfig

    loaded = load(checkpoint, device="cpu")
    sampling = SamplingConfig.from_options(SAMPLING)
    rows: list[dict[str, Any]] = []
    for language in LANGUAGES:
        session = ChatSession(loaded, sampling, lang=language)
        for kind in KINDS:
            rows += ask(session, language, kind, count)
    return rows


def ask(session: ChatSession, language: str, kind: str, count: int) -> list[dict[str, Any]]:
    """Ask the questions of unseen conversations, each after what was said before it."""
    from holo_cli.inference.chat.conversation import Turn, encode_turn

    rows: list[dict[str, Any]] = []
    for dialogue in unseen(language, kind, count):
        pairs = list(zip(dialogue.messages[::2], dialogue.messages[1::2], strict=True))
        expected = {one.question: one for one in dialogue.exchanges}
        session.turns = []
        for user, answer in pairs:
            question = user.text if user.text in expected else user.text.rsplit("\n\n", 1)[-1]
            if question in expected and len(rows) < count:
                before = list(session.turns)
                given = "".join(session.reply(user.text)).strip()
                keys = expected[question].keys
                told = given.casefold()
                rows.append(
                    {
                        "language": language,
                        "kind": kind,
                        "asked": user.text,
                        "expected": answer.text,
                        "given": given,
                        "right": all(key.casefold() in told for key in keys),
                        "word_by_word": given == answer.text,
                    }
                )
                session.turns = before
            # continued with the true answer, so that each question stands alone
            known = session.turns[-1].language if session.turns else None
            turn = Turn(user.text, answer.text)
            session.turns.append(encode_turn(session.loaded.prompts, turn, known, language))
    return rows


def of(rows: list[dict[str, Any]], kind: str, language: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["kind"] == kind and row["language"] == language]


def share(rows: list[dict[str, Any]], key: str) -> float:
    return sum(bool(row[key]) for row in rows) / max(1, len(rows))


# -- what is written beside them ------------------------------------------------------------------


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def described(folder: Path, table: ReadyTable, rows: dict[str, list[dict[str, Any]]]) -> str:
    """The README of the folder."""
    from holo_cli.checkpoint.rebuild import load_model

    columns = [(kind, code) for kind in KINDS for code in LANGUAGES]
    lines = [
        "# Ready checkpoints",
        "",
        "Small models that answer questions about little stories, in English and Korean. They know "
        "these stories and nothing else. Made by `python -m benchmarks.ready_checkpoints` from",
        "",
        "```",
        *(f"holo {line}" for line in PREPARE),
        *(f"holo {line.format(model='NAME', run=PREFIX + 'NAME')}" for line in (FIRST, THEN)),
        "```",
        "",
        f"on {machine()}, Python {platform.python_version()}, "
        f"{datetime.datetime.now(datetime.UTC):%d %B %Y}. The text is generated, MIT like the "
        "project. The weights are bfloat16, without a training state.",
        "",
        "Answers are to questions that no model saw in training, at temperature 0: about "
        f"{FEWEST_PEOPLE} to {DIALOGUES.most_people} people, of each of whom a sentence was said, "
        "and about the beginning of a story. One is right if it has every word that the question "
        "asks for.",
        "",
        f"| model | parameters | file | steps | tokens learned | validation loss, nats "
        f"| {' | '.join(f'{KINDS[kind]}, {NAMES[code]}' for kind, code in columns)} |",
        "|---|" + "---:|" * (5 + len(columns)),
    ]
    for entry in table.checkpoints:
        if entry.name not in rows:
            continue
        header = read_header(folder / entry.file)
        own = rows[entry.name]
        right = [share(of(own, kind, code), "right") for kind, code in columns]
        # of the model and not of the file, which has the tied weights twice
        model, _, _ = load_model(folder / entry.file)
        parameters = sum(one.numel() for one in model.parameters())
        lines.append(
            f"| {entry.name} | {parameters / 1e6:.2f}M | {entry.bytes / 1e6:.1f} MB "
            f"| {header.step:,} | {header.tokens / 1e6:.2f}M | {header.losses.val or 0:.3f} "
            f"| {' | '.join(f'{one:.0%}' for one in right)} |"
        )
    for name, own in rows.items():
        lines += ["", f"## {name}", ""]
        for kind, code in columns:
            for row in of(own, kind, code)[:SHOWN]:
                asked = row["asked"].replace("\n\n", " ")
                lines.append(f"- {asked} **{row['given']}** (expected: {row['expected']})")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    table = parse_table(OWN.read_bytes())
    names = [entry.name for entry in table.checkpoints]
    parser.add_argument("--out", type=Path, default=Path("ready"), help="folder (default: ready)")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--steps", type=int, help="steps of each part of training")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="in each language")
    options = parser.parse_args()
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    answers = folder / "answers.json"
    rows: dict[str, list[dict[str, Any]]] = read_object(answers) if answers.exists() else {}
    made = folder / "ready.json"
    if made.exists():
        table = parse_table(made.read_bytes(), str(made))
    for line in PREPARE:
        holo(line, folder)
    for name in options.only:
        started = time.perf_counter()
        entry = table.entry(name)
        path = exported(entry, trained(entry, folder, options.steps), folder)
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != entry.sha256 or name not in rows:
            rows[name] = answers_of(path, options.questions)
        changed = entry.model_copy(update={"bytes": len(content), "sha256": digest})
        entries = [changed if one.name == name else one for one in table.checkpoints]
        table = table.model_copy(update={"checkpoints": entries})
        atomic_write_json(answers, rows)
        atomic_write_text(made, json.dumps(table.model_dump(), indent=2) + "\n")
        atomic_write_text(folder / "README.md", described(folder, table, rows))
        seconds = time.perf_counter() - started
        print(f"{path}: {len(content):,} bytes, {share(rows[name], 'right'):.0%} of the answers "
              f"right, {seconds:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except HoloError as error:
        raise SystemExit(str(error)) from error
