"""Several processes judge as one does, and none outlives its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from holo_cli.data.cleaning import Cleaner, CleaningSettings, judging
from holo_cli.data.document import Document
from holo_cli.errors import DataError
from tests.data.cleaning.test_screen import documents

DEFAULT = CleaningSettings()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "START_CHARACTERS", 0)


def children() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # another test's, which ends just now or has ended
            if "cleaning.worker" in " ".join(process.cmdline()):
                found.append(process)
    return found


def is_running(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE  # ended, nobody collects it
    except psutil.NoSuchProcess:
        return False


@pytest.mark.usefixtures("at_once")
def test_documents_order_and_counts_are_the_same(tmp_path: Path) -> None:
    hostile = list(documents(seed=8, count=60))
    hostile += [hostile[3], Document("the word " * 30_000, "en"), Document("\U0001f600", "en")]
    one, three = Cleaner(DEFAULT, tmp_path / "1"), Cleaner(DEFAULT, tmp_path / "3", processes=3)
    for at in (0, 20, 21, 21, 23):  # batches of more, one, none and two documents
        batch = hostile[at : {0: 20, 20: 21, 21: 21, 23: None}[at]]
        kept = three.check_batch(batch)
        assert kept == one.check_batch(batch)
        assert all(a is None or a is b for a, b in zip(kept, batch, strict=True))
    assert three.counts == one.counts
    assert three.state() == one.state()
    first, second = ((tmp_path / name / "fingerprints.bin").read_bytes() for name in "13")
    assert first == second
    assert len(children()) == 3
    three.close()
    assert not children()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_are_all_documents_in_order(count: int) -> None:
    for texts in ([], [""], ["", "", ""], ["a" * 90, "b", "", "c"], ["a", "b" * 90], ["x"] * 20):
        given = [Document(text) for text in texts]
        parts = list(judging._parts(given, count))
        assert [one for part in parts for one in part] == given
        assert len(parts) <= count
        assert all(parts)


@pytest.mark.usefixtures("at_once")
def test_a_killed_process_is_an_error_that_ends_the_others() -> None:
    pool = judging.JudgingProcesses(DEFAULT, 2)
    pool.judge([Document("a b c")] * 4)
    victim, other = pool._workers
    victim.kill()
    victim.wait()
    with pytest.raises(DataError, match="ended unexpectedly"):
        pool.judge([Document("a b c")] * 4)
    assert other.poll() is not None
    assert not children()


@pytest.mark.usefixtures("at_once")
def test_an_interrupt_ends_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = judging.JudgingProcesses(DEFAULT, 2)
    pool.judge([Document("a b c")] * 4)

    def interrupted(worker: object) -> judging.Judged:
        raise KeyboardInterrupt

    monkeypatch.setattr(judging, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.judge([Document("a b c")] * 4)
    assert not children()


@pytest.mark.usefixtures("at_once")
def test_an_error_of_a_process_keeps_its_words(tmp_path: Path) -> None:
    reference = tmp_path / "text.txt"
    reference.write_text("too little", encoding="utf-8")
    settings = CleaningSettings.parse(f"none,reference={reference}")
    pool = judging.JudgingProcesses(settings, 2)
    with pytest.raises(DataError, match="too short") as caught:
        pool.judge([Document("a b c")] * 4)
    assert caught.value.next_step.startswith("Use at least 20,000 characters")
    assert not children()


PARENT = """
import sys, time
from holo_cli.data.cleaning import CleaningSettings, judging
from holo_cli.data.document import Document
judging.START_CHARACTERS = 0
pool = judging.JudgingProcesses(CleaningSettings(), 2)
pool.judge([Document("a b c")] * 4)
print(*(worker.pid for worker in pool._workers), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_no_process_survives_a_killed_caller() -> None:
    caller = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    workers = [int(number) for number in caller.stdout.readline().split()]
    assert len(workers) == 2
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    until = time.monotonic() + 120
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, workers))
