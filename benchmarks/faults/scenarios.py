"""Scenarios of the machine: full disks, lost folders, other processes, clocks that jump, links.

A scenario is a function of a `Place` that returns what is wrong, "" for nothing.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.mutations import digests
from benchmarks.faults.place import (
    WAIT_SECONDS,
    Place,
    as_nobody,
    clean,
    on_small_disk,
    saves,
    wait_until,
)
from benchmarks.faults.sandbox import Outcome

Scenario = Callable[[Place], str]
YEAR = 365.25 * 86_400


# -- full disks and streams -----------------------------------------------------------------------


def disk_full_training(place: Place) -> str:
    """A disk without room for the next checkpoint; with more room the run resumes."""
    place.reference()
    place.bring()

    def scenario(resize: Callable[[int], None]) -> str:
        found = clean(place.train().run(WAIT_SECONDS), 1)
        resize(64_000)
        return found or place.resumed()

    return on_small_disk(place.folder, 160, scenario)


def disk_full_preparing(place: Place) -> str:
    """A disk without room for the set; with more room the same command finishes."""
    place.bring()
    text = str(place.pristine / "story.txt")
    prepare = place.holo("prepare", "new", "--source", text, "--tokenizer", "char")

    def scenario(resize: Callable[[int], None]) -> str:
        found = clean(prepare.run(WAIT_SECONDS), 1)
        resize(64_000)
        return found or clean(prepare.run(WAIT_SECONDS), 0) or _opens(place.folder / "data/new")

    return on_small_disk(place.folder, 24, scenario)


def _opens(folder: Path) -> str:
    from holo_cli.data.dataset import PreparedData
    from holo_cli.errors import HoloError

    try:
        PreparedData.open(folder)
    except HoloError as error:
        return f"half-written: {error.message}"
    return ""


def file_size_limit(place: Place) -> str:
    """No file may be as large as a checkpoint: one sentence, and nothing under its name."""
    place.reference()
    place.bring()
    limited = place.train(setup=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000,) * 2))
    return clean(limited.run(WAIT_SECONDS), 1) or place.resumed()


def _onto_full(*streams: int) -> Callable[[], None]:
    def setup() -> None:
        for stream in streams:
            os.dup2(os.open("/dev/full", os.O_WRONLY), stream)

    return setup


def _closed() -> Callable[[], None]:
    def setup() -> None:
        os.closerange(0, 2)

    return setup


def _streams(place: Place, setup: Callable[[], None]) -> str:
    place.reference()
    place.bring()
    outcome = place.train(setup=setup).run(WAIT_SECONDS)
    if outcome.code not in (0, 1, 3) or "Unexpected" in outcome.stderr:
        return f"exit code: {outcome.code}, signal {outcome.signal}: {outcome.stderr[-200:]}"
    return place.resumed()


def full_stderr(place: Place) -> str:
    """Nothing more can be written to stderr."""
    return _streams(place, _onto_full(2))


def full_stdout(place: Place) -> str:
    """Nothing more can be written to stdout."""
    return _streams(place, _onto_full(1))


def full_streams(place: Place) -> str:
    """Nothing more can be written to either."""
    return _streams(place, _onto_full(1, 2))


def closed_streams(place: Place) -> str:
    """Standard input and output are closed, as some services start programs."""
    return _streams(place, _closed())


def _to_a_closed_pipe(*streams: int) -> Callable[[], None]:
    def setup() -> None:
        read, write = os.pipe()
        os.close(read)
        for stream in streams:
            os.dup2(write, stream)

    return setup


def gone_readers(place: Place) -> str:
    """The reader of stdout and stderr went away: `2>&1 | head`."""
    return _streams(place, _to_a_closed_pipe(1, 2))


# -- folders --------------------------------------------------------------------------------------

COMMANDS_THAT_WRITE = (
    ("prepare", "new", "--source", "story.txt", "--tokenizer", "char"),
    ("resume", "base"),
    ("train", "--model", "vanilla", "--data", "tiny", "--steps", "2"),
    ("export", "base", "--to", "weights"),
    ("export", "base", "--to", "dir", "--out", "out"),
    ("visualize", "training", "base"),
    ("new-model", "mine"),
    ("bench", "compare", "--plan", "plan.toml", "--report-only"),
)


def read_only_folder(place: Place) -> str:
    """A folder that one may only read: every command that writes says so in a sentence."""
    place.bring("checkpoints", "data", "runs", "story.txt", "plan.toml")
    for path in [place.folder, *place.folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        before = digests(place.folder)
        for arguments in COMMANDS_THAT_WRITE:
            outcome = place.holo(*arguments, setup=as_nobody).run(WAIT_SECONDS)
            if found := clean(outcome, 0, 1, 2):
                return f"{found} ({' '.join(arguments)})"
        changed = digests(place.folder) != before
        return "changed: a file in a read-only folder" if changed else ""
    finally:
        for path in [place.folder, *place.folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def folders_deleted(place: Place) -> str:
    """The folders of runs and checkpoints are deleted while a run is being trained."""
    place.reference()
    place.bring()
    with place.train().start() as child:
        wait_until(child, lambda: saves(child) >= 2)
        shutil.rmtree(place.folder / "runs", ignore_errors=True)
        shutil.rmtree(place.folder / "checkpoints", ignore_errors=True)
        outcome = child.wait(WAIT_SECONDS)
    return clean(outcome, 0, 1) or place.resumed(log=False)


def set_deleted(place: Place) -> str:
    """The prepared set is deleted while a run is trained on it."""
    place.bring("data")
    command = ("train", "--model", "vanilla", "--data", "tiny", "--steps", "40", "--run", "r",
               "--set", "model.width=16", "--set", "model.heads=2", "--context", "16", "--json",
               "--eval-every", "10", "--set", "training.sample_tokens=0")  # fmt: skip
    with place.holo(*command).start() as child:
        wait_until(child, lambda: saves(child) >= 1)
        shutil.rmtree(place.folder / "data", ignore_errors=True)
        outcome = child.wait(WAIT_SECONDS)
    return clean(outcome, 0, 1)


# -- other processes ------------------------------------------------------------------------------


def two_trainings(place: Place) -> str:
    """A second training of the same name is refused, and the first one is not disturbed."""
    place.reference()
    place.bring()
    with place.train().start() as first:
        wait_until(first, lambda: saves(first) >= 1)
        os.kill(first.pid, signal.SIGSTOP)
        try:
            second = place.train("--force").run()
            third = place.holo("resume", "r").run()
        finally:
            os.kill(first.pid, signal.SIGCONT)
        outcome = first.wait(WAIT_SECONDS)
    found = clean(second, 1, 2) or clean(third, 1, 2)
    return found or _named(second, "being written") or clean(outcome, 0) or place.resumed()


def _named(outcome: Outcome, words: str) -> str:
    return "" if words in outcome.stderr else f"silent: no '{words}' in {outcome.stderr[-200:]}"


def two_preparations(place: Place) -> str:
    """A second preparation of the same set is refused, and the first one finishes."""
    place.bring()
    text = str(place.pristine / "story.txt")
    command = place.holo("prepare", "new", "--source", text, "--tokenizer", "bpe")
    with command.start() as first:
        wait_until(first, (place.folder / "data/new/.building").exists)
        os.kill(first.pid, signal.SIGSTOP)
        try:
            second = command.run()
        finally:
            os.kill(first.pid, signal.SIGCONT)
        outcome = first.wait(WAIT_SECONDS)
    return clean(second, 1) or clean(outcome, 0) or _opens(place.folder / "data/new")


# -- clocks ---------------------------------------------------------------------------------------


def _clock(shift: Callable[[], float]) -> Callable[[], None]:
    def setup() -> None:
        real = time.time
        time.time = lambda: real() + shift()

    return setup


def clock_jumps(place: Place) -> str:
    """The clock jumps by years at every look, back and forth."""
    place.reference()
    place.bring()
    rng = random.Random(0)
    jumping = _clock(lambda: rng.uniform(-40, 40) * YEAR)
    return clean(place.train(setup=jumping).run(WAIT_SECONDS), 0) or place.resumed()


def clock_back(place: Place) -> str:
    """A run is stopped, the clock goes back to 1971, and the run is resumed."""
    place.reference()
    place.bring()
    found = clean(place.train("--stop-at", "5").run(WAIT_SECONDS), 3)
    for path in place.folder.rglob("*"):
        os.utime(path, (4e9, 4e9))  # files of the year 2096
    back = _clock(lambda: (1971 - 2026) * YEAR)
    found = found or clean(place.holo("inspect", setup=back).run(), 0)
    return found or clean(place.holo("resume", setup=back).run(WAIT_SECONDS), 0) or place.resumed()


# -- links ----------------------------------------------------------------------------------------


def linked_checkpoint(place: Place) -> str:
    """The name of the checkpoint is a link to somebody's file: that file is not written to."""
    place.reference()
    place.bring("story.txt")
    (place.folder / "checkpoints").mkdir()
    for kind in ("last", "best"):
        (place.folder / f"checkpoints/r_{kind}.safetensors").symlink_to("../story.txt")
    before = digests(place.folder)["story.txt"]
    outcome = place.train("--force").run(WAIT_SECONDS)
    if digests(place.folder)["story.txt"] != before:
        return "changed: the file that the link pointed to"
    return clean(outcome, 0, 1, 2) or (place.resumed() if outcome.code == 0 else "")


def linked_folders(place: Place) -> str:
    """checkpoints/, runs/ and data/ are links to folders elsewhere."""
    place.reference()
    place.bring()
    for name in ("checkpoints", "runs", "data"):
        (place.folder / "elsewhere" / name).mkdir(parents=True)
        (place.folder / name).symlink_to(f"elsewhere/{name}")
    text = str(place.pristine / "story.txt")
    prepare = place.holo("prepare", "new", "--source", text, "--tokenizer", "char")
    found = clean(prepare.run(WAIT_SECONDS), 0) or _opens(place.folder / "data/new")
    return found or clean(place.train().run(WAIT_SECONDS), 0) or place.resumed()


def circular_links(place: Place) -> str:
    """Links that lead to themselves, as source, checkpoint, config and output."""
    place.bring(*("checkpoints", "data", "story.txt"))
    (place.folder / "texts").mkdir()
    shutil.copy(place.folder / "story.txt", place.folder / "texts/a.txt")
    (place.folder / "texts/again").symlink_to("../texts")
    (place.folder / "loop").symlink_to("loop")
    (place.folder / "texts/loop.txt").symlink_to("loop.txt")
    for arguments in (
        ("prepare", "new", "--source", "texts", "--tokenizer", "char"),
        ("prepare", "other", "--source", "loop", "--tokenizer", "char"),
        ("inspect", "loop"),
        ("generate", "-c", "base", "--file", "loop"),
        ("generate", "-c", "base", "-p", "x", "--memory", "loop"),
        ("train", "--model", "vanilla", "--config", "loop"),
        ("eval", "-c", "base", "--file", "loop"),
        ("visualize", "attention", "base", "--out", "loop"),
        ("export", "base", "--to", "weights", "--out", "loop"),
        ("train", "--model", "vanilla", "--data", "loop"),
    ):
        if found := clean(place.holo(*arguments).run(), 0, 1, 2):
            return f"{found} ({' '.join(arguments)})"
    return ""


SCENARIOS: tuple[Scenario, ...] = (
    disk_full_training, disk_full_preparing, file_size_limit, full_stderr, full_stdout,
    full_streams, closed_streams, gone_readers, read_only_folder, folders_deleted, set_deleted,
    two_trainings, two_preparations, clock_jumps, clock_back, linked_checkpoint, linked_folders,
    circular_links,
)  # fmt: skip
