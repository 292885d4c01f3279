"""A process killed at any moment while saving leaves a whole checkpoint of one moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from holo_cli.checkpoint import Header, TensorFile, save

# The tensors of save number n all hold n, and so does the header. Only layout and files matter
# here, so the model is a few plain tensors. Torch is imported once; each line of input starts a
# child that saves without end, and prints its number.
WRITERS = """
import os, sys, torch
from pathlib import Path
from holo_cli.checkpoint import Header, save
path = Path(sys.argv[1])
for line in sys.stdin:
    child = os.fork()
    if child:
        print(child, flush=True)
        os.waitpid(child, 0)
        print("dead", flush=True)
        continue
    for step in range(int(line), 10**9):
        header = Header(model="x", config={"model": {}}, tokenizer={}, step=step, run="x")
        save(path, header, {f"model/{i}": torch.full((200_000,), float(step)) for i in range(4)})
"""
ROUNDS = 12


def identity(path: Path) -> tuple[int, int] | None:
    """Another one for each file that takes the place of the last."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, to kill many writers quickly")
def test_a_killed_writer_leaves_one_whole_moment(tmp_path: Path) -> None:
    path = tmp_path / "x_last.safetensors"
    draw = random.Random(0)
    step, steps = 0, []
    with subprocess.Popen(
        [sys.executable, "-c", WRITERS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        for _ in range(ROUNDS):
            writers.stdin.write(f"{step + 1}\n")
            writers.stdin.flush()
            child = int(writers.stdout.readline())
            for _ in range(draw.randrange(3)):  # so many saves, however long the disk takes
                before = identity(path)
                while identity(path) == before:
                    time.sleep(0.002)
            time.sleep(draw.uniform(0.0, 0.05))
            os.kill(child, signal.SIGKILL)
            assert writers.stdout.readline() == "dead\n"
            with TensorFile(path) as file:
                found = file.header.step
                tensors = file.read_all()
            assert found >= step
            assert len(tensors) == 4
            assert all(torch.equal(t, torch.full_like(t, found)) for t in tensors.values())
            step = found
            steps.append(step)
        writers.stdin.close()
    assert len(set(steps)) > ROUNDS // 3  # in most rounds some saves were waited for
    header = Header(model="x", config={"model": {}}, tokenizer={}, run="x")
    save(path, header, {"model/0": torch.zeros(2)})
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
