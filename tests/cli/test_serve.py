"""`holo serve` as a process: the address on stdout, an answer, and an end without a failure."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.checkpoint.conftest import make_run
from tests.cli.conftest import Holo


def test_it_answers_until_it_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("vanilla", "brain-v2"):
        make_run(name, f"s-{name}").save(tmp_path / "checkpoints" / f"s-{name}_best.safetensors")
    command = [sys.executable, "-m", "holo_cli", "serve", "-c", "s-vanilla", "-c", "s-brain-v2"]
    process = subprocess.Popen(
        [*command, "--port", "0"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, encoding="utf-8", env=os.environ | {"HOLO_LANG": "en"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        for path in (tmp_path / "checkpoints").iterdir():
            path.unlink()  # the models need their files no longer
        for name in ("s-vanilla", "s-brain-v2"):
            body = {"model": name, "prompt": "가나다 abc", "max_tokens": 30, "temperature": 0}
            asked = urllib.request.Request(
                f"{address}/completions", json.dumps(body).encode(), method="POST"
            )
            with urllib.request.urlopen(asked, timeout=300) as response:
                answer = json.load(response)
            assert answer["usage"]["completion_tokens"] > 0
        process.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    if os.name != "nt":  # there a process cannot be sent Ctrl-C by another without a console
        assert process.returncode == 0, err
        assert err.splitlines() == [
            "Serving s-vanilla, s-brain-v2. Ctrl-C stops the server.",
            f"Web pages: {address.removesuffix('/v1')}/",
            "The server has stopped.",
        ]


def test_errors_are_one_sentence(holo: Holo) -> None:
    ran = holo("serve", "--host", "0.0.0.0")
    assert (ran.code, ran.err.splitlines()) == (
        2,
        [
            "Error: Without a key the server answers this machine only, not 0.0.0.0.",
            "  Give --api-key KEY, or set HOLO_API_KEY.",
        ],
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = holo("serve", "--port", str(port))
    assert (ran.code, ran.err.splitlines()[0]) == (1, f"Error: Port {port} is in use.")
    assert holo("serve", "-c", "missing", "--port", "0").code == 1


def test_the_key_may_come_from_the_environment(holo: Holo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_API_KEY", "k")
    ran = holo("serve", "--host", "0.0.0.0", "--port", "0", "-c", "missing")
    assert (ran.code, "missing" in ran.err) == (1, True)
