"""Requests to stop, and runs whose readers have gone."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from holo_cli.__main__ import main
from holo_cli.checkpoint import read_header
from holo_cli.training.stopping import StopRequest
from tests.test_streams import unread

hangup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")


@hangup
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_requests_a_stop(name: str) -> None:
    outside = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    try:
        stop = StopRequest()
        with stop.on_signals():
            signal.raise_signal(getattr(signal, name))
            assert stop.reason == "signal"
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, outside)


@hangup
def test_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = StopRequest()
        with stop.on_signals():
            signal.raise_signal(signal.SIGHUP)
        assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("verbosity", ["--verbose", "--json"])
def test_a_run_goes_on_without_readers(
    verbosity: str, prepared: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = "--model vanilla --preset tiny --steps 6 --eval-every 3 --batch-size 2 --context 16"
    given += " --set model.layers=1 --set model.width=16 --dtype float32 --device cpu --run quiet"
    for variable in [v for v in os.environ if v.startswith("HOLO_")]:
        monkeypatch.delenv(variable)
    with unread() as out, unread() as err, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        assert main(["train", *given.split(), "--data", str(prepared), verbosity]) == 0
    assert read_header("checkpoints/quiet_last.safetensors").step == 6
