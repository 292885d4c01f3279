"""`holo train` and `holo resume`: flags into the config, events onto the streams, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holo_cli.cli import progress
from holo_cli.config.model_schema import ModelConfig, Stage
from holo_cli.errors import Stopped
from holo_cli.inference.generation.samples import sample_text
from tests.cli.conftest import Fake, Holo

DONE = {
    "event": "done",
    "best": "checkpoints/r_best.safetensors",
    "last": "checkpoints/r_last.safetensors",
    "val_loss": 1.25,
    "bpb": 0.9,
    "steps": 20,
    "tokens": 20_480,
    "train_seconds": 3.0,
    "eval_seconds": 1.0,
    "tokens_per_second": 6827.0,
    "peak_rss_bytes": 10**9,
    "parameters": 12345,
    "stopped_by": "steps",
}
EVENTS: list[dict[str, Any]] = [
    {"event": "start", "run": "r", "model": "vanilla", "parameters": 12345},
    {"event": "stage", "step": 0, "stage": 1, "stages": 5, "layers": 1, "parameters": 800_000},
    {"event": "stage", "step": 10, "stage": 2, "stages": 5, "layers": 4, "parameters": 1_200_000,
     "loss_before": 2.0, "loss_after": 2.5},
    {"event": "train", "step": 10, "steps": 20, "tokens": 10_240, "loss": 2.0, "lr": 0.02,
     "grad_norm": 1.0, "tokens_per_second": 7000.0, "seconds": 1.5, "eta_seconds": 1.5},
    {"event": "eval", "step": 20, "val_loss": 1.25, "bpb": 0.9, "seconds": 1.0,
     "sample": "한 마을에\n소년이", "best": True},
    {"event": "save", "path": "checkpoints/r_best.safetensors", "step": 20, "kind": "best"},
    {"event": "warning", "message": "no compiler here"},
    DONE,
]  # fmt: skip

TRAIN = next(event for event in EVENTS if event["event"] == "train")


class Trained(SimpleNamespace):
    """What the fake training was called with."""


@pytest.fixture
def trained(fake: Fake, configs: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    seen = Trained(calls=[], error=None)
    monkeypatch.setattr(
        "holo_cli.cli.schedule.fitted", lambda resolved, out, **given: (resolved, None)
    )

    def run(kind: str) -> Callable[..., dict[str, Any]]:
        def call(what: Any, *, events: Callable[[dict[str, Any]], None], **kwargs: Any) -> Any:
            seen.calls.append((kind, what, kwargs))
            for event in EVENTS[:-1]:
                events(event)
            if seen.error:
                raise seen.error
            events(DONE)
            return DONE

        return call

    fake("holo_cli.training.run", train=run("train"), resume=run("resume"))
    fake("holo_cli.cli.expectations", expecting=lambda show, path, out: show)
    fake(
        "holo_cli.training.memory_estimate",
        estimate=lambda r, v, force=False: {"parameters": v, "train_bytes": 2e9, "total_bytes": 1},
    )
    return seen


def prepared(*names: str) -> None:
    for name in names:
        folder = Path("data") / name
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text("{}", encoding="utf-8")


def test_flags_reach_the_config_with_their_names(holo: Holo, trained: Trained) -> None:
    ran = holo(
        *("train", "--model", "vanilla", "--data", "mine", "--steps", "20", "--lr", "0.5"),
        *("--batch-size", "3", "--grad-accum", "2", "--context", "32", "--eval-every", "5"),
        *("--target-loss", "1.5", "--time-limit", "60", "--grad-checkpoint", "--no-compile"),
        *("--seed", "7", "--device", "cpu", "--dtype", "float32", "--recipe", "classic"),
        *("--set", "model.layers=1", "--run", "r", "--stop-at", "9", "--force"),
    )
    assert ran.code == 0, ran.err
    _, resolved, kwargs = trained.calls[0]
    flags = {
        "data.path": ("mine", "--data"),
        "training.steps": (20, "--steps"),
        "training.lr": (0.5, "--lr"),
        "training.batch_size": (3, "--batch-size"),
        "training.grad_accum": (2, "--grad-accum"),
        "model.context": (32, "--context"),
        "training.eval_every": (5, "--eval-every"),
        "training.target_loss": (1.5, "--target-loss"),
        "training.time_limit": (60.0, "--time-limit"),
        "training.grad_checkpoint": (True, "--grad-checkpoint"),
        "training.compile": (False, "--compile"),
        "training.seed": (7, "--seed"),
        "training.device": ("cpu", "--device"),
        "training.dtype": ("float32", "--dtype"),
        "model.layers": (1, "--set"),
        "training.optimizer": ("adamw", "recipe classic"),
        "model.width": (32, "preset tiny (configs/vanilla/tiny.toml)"),
    }
    for key, (value, source) in flags.items():
        assert (resolved.values()[key], resolved.provenance[key]) == (value, source), key
    assert kwargs.pop("sampler") is sample_text
    given = {"run": "r", "stop_at": 9, "force": True, "force_memory": True, "start": None}
    assert kwargs == given | {"expected_seconds": None}
    assert "No --preset was given: using the preset 'tiny'." in ran.err


def test_results_on_stdout_and_progress_on_stderr(holo: Holo, trained: Trained) -> None:
    ran = holo("train", "--model", "vanilla", "--data", "mine", "--preset", "tiny")
    assert ran.code == 0
    assert "validation loss 1.2500" in ran.out
    assert "r_best.safetensors" in ran.out
    for part in ("12.3k parameters", "step 10/20", "7k tokens/s", "val loss 1.2500", "소년이"):
        assert part in ran.err
        assert part not in ran.out
    assert "Warning: no compiler here" in ran.err
    assert "\x1b" not in ran.out + ran.err
    assert ran.err.splitlines()[-1].startswith("Next: holo generate -c checkpoints/r_best")


def test_a_model_of_conversations_is_tried_in_a_chat(
    holo: Holo, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DONE, "only_continues", False)
    ran = holo("train", "--model", "vanilla", "--data", "mine", "--preset", "tiny")
    assert ran.err.splitlines()[-1].startswith("Next: holo chat -c checkpoints/r_best")


def test_json_is_one_object_a_line_and_ends_with_done(holo: Holo, trained: Trained) -> None:
    ran = holo("train", "--model", "vanilla", "--data", "mine", "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == EVENTS


def test_quiet_leaves_only_results_and_warnings(holo: Holo, trained: Trained) -> None:
    ran = holo("train", "--model", "vanilla", "--data", "mine", "-q")
    assert ran.err == "Warning: no compiler here\n"
    assert "validation loss" in ran.out


def test_stopped_on_request_ends_with_3(holo: Holo, trained: Trained) -> None:
    trained.error = Stopped("Stopped at step 10; saved.", next_step="holo resume r")
    ran = holo("train", "--model", "vanilla", "--data", "mine")
    assert ran.code == 3
    assert "Stopped at step 10; saved.\n  holo resume r\n" in ran.err
    assert "Error" not in ran.err


def test_of_several_processes_the_first_one_says_that_it_stopped(
    holo: Holo, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.error = Stopped("Stopped at step 10; saved.")
    monkeypatch.setenv("RANK", "1")
    ran = holo("train", "--model", "vanilla", "--data", "mine")
    assert (ran.code, ran.out, ran.err) == (3, "", "")


def test_without_data_the_only_prepared_set_is_used(holo: Holo, trained: Trained) -> None:
    prepared("ko")
    ran = holo("train", "--model", "vanilla")
    assert trained.calls[0][1].data.path == str(Path("data/ko"))
    assert "the only prepared set" in ran.err


def test_without_data_several_sets_are_a_question(holo: Holo, trained: Trained) -> None:
    prepared("ko", "en")
    ran = holo("train", "--model", "vanilla")
    assert ran.code == 2
    assert "There are 2 prepared sets: en, ko." in ran.err
    assert "--data en" in ran.err


def test_without_any_data_the_stories_are_prepared(
    holo: Holo, trained: Trained, fake: Fake
) -> None:
    asked = []

    def prepare(names: list[str], **_: Any) -> SimpleNamespace:
        asked.append(names)
        return SimpleNamespace(data=Path("data/stories"))

    fake("holo_cli.data.prepare.prepare", prepare=prepare)
    ran = holo("train", "--model", "vanilla")
    assert (ran.code, asked) == (0, [["stories"]])
    assert trained.calls[0][1].data.path == str(Path("data/stories"))
    assert "preparing the embedded stories" in ran.err


def test_resume(holo: Holo, trained: Trained) -> None:
    ran = holo("resume", "r", "--steps", "40", "--stop-at", "30", "--time-limit", "9")
    assert ran.code == 0, ran.err
    given = {
        "run": None,
        "steps": 40,
        "stop_at": 30,
        "overrides": {"training.time_limit": 9.0},
        "force_memory": False,
        "sampler": sample_text,
    }
    assert trained.calls == [("resume", "r", given)]
    assert holo("resume").code == 0
    none = {
        "run": None,
        "steps": None,
        "stop_at": None,
        "overrides": {},
        "force_memory": False,
        "sampler": sample_text,
    }
    assert trained.calls[1] == ("resume", None, none)
    assert holo("resume", "r", "--run", "r-2").code == 0
    assert trained.calls[2][2]["run"] == "r-2"


def test_verbose_says_where_settings_come_from_and_every_line_of_metrics(
    holo: Holo, trained: Trained
) -> None:
    command = ("train", "--model", "vanilla", "--data", "mine", "--steps", "20")
    plain, ran = holo(*command), holo(*command, "-v")
    for line in ("training.steps = 20 (--steps)", "training.lr = 0.02 (recipe modern)"):
        assert line in ran.err.splitlines()
        assert line not in plain.err
    assert "training.clip" not in ran.err  # a default
    assert "rate 0.02  gradient norm 1  after 1.5 s" in ran.err
    assert "gradient norm" not in plain.err
    assert re.search(r"^Took \d+\.\d s\.$", ran.err, re.MULTILINE)
    assert "Took" not in plain.err
    assert ran.out == plain.out


def test_stages_of_growth_are_lines(holo: Holo, trained: Trained) -> None:
    ran = holo("train", "--model", "vanilla", "--data", "mine")
    assert "Stage 2 of 5 from step 10: 4 blocks, 1.2M parameters (loss on a sample" in ran.err
    assert "2.0000 -> 2.5000)" in ran.err
    assert "Stage 1 of 5 from step 0: 1 block, 800k parameters\n" in ran.err


# -- dry run --------------------------------------------------------------------------------------


def test_dry_run_shows_every_key_with_its_origin_and_trains_nothing(
    holo: Holo, trained: Trained
) -> None:
    ran = holo("train", "--model", "vanilla", "--lr", "0.5", "--dry-run")
    assert ran.code == 0, ran.err
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in ran.out.splitlines() if line}
    assert rows["training.lr"] == ["0.5", "--lr"]
    assert rows["model.layers"] == ["2", "preset tiny (configs/vanilla/tiny.toml)"]
    assert rows["training.clip"] == ["1.0", "default"]
    assert "2 GB" in ran.out
    assert not trained.calls
    assert not Path("data").exists()


def test_dry_run_as_json(holo: Holo, trained: Trained) -> None:
    ran = holo("train", "--model", "vanilla", "--dry-run", "--json", "-q")
    document = json.loads(ran.out)
    keys = {"model", "preset", "recipe", "config", "estimate", "expected_seconds"}
    assert set(document) == keys
    assert document["config"]["training.lr"] == {"value": 0.02, "from": "recipe modern"}
    assert document["estimate"]["train_bytes"] == 2e9


def test_dry_run_shows_the_stages_of_a_model_that_grows(
    holo: Holo, trained: Trained, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def estimate(resolved: Any, vocab_size: int, force: bool = False) -> dict[str, float]:
        layers = resolved.model.layers
        return {"parameters": layers * 1e6, "total_bytes": layers * 1e9}

    fake("holo_cli.training.memory_estimate", estimate=estimate)
    command = ("train", "--model", "vanilla", "--steps", "10", "--dry-run")
    assert "stages" not in json.loads(holo(*command, "--json", "-q").out)
    monkeypatch.setattr(ModelConfig, "stages", lambda self: (Stage(0.0, 1), Stage(0.25, 2)))
    ran = holo(*command)
    shown = [line.split() for line in ran.out.splitlines()]
    assert ["stage", "from", "step", "blocks", "parameters", "memory"] in shown
    assert ["1", "0", "1", "1M", "1", "GB"] in shown
    assert ["2", "3", "2", "2M", "2", "GB"] in shown
    document = json.loads(holo(*command, "--json", "-q").out)
    assert document["stages"][1] == {
        "step": 3, "layers": 2, "parameters": 2e6, "total_bytes": 2e9
    }  # fmt: skip
    assert document["config"]["model.layers"]["value"] == 2


# -- the events' renderer -------------------------------------------------------------------------


def test_plain_lines_are_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    from holo_cli.cli.output import Output

    with progress.TrainingDisplay(Output()) as show:
        for step in range(1, 501):
            show({**TRAIN, "step": step, "steps": 500})
    assert len(capsys.readouterr().err.splitlines()) == 2  # the first and the last


def test_an_event_it_does_not_know_is_passed_on_in_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from holo_cli.cli.output import Output

    with progress.TrainingDisplay(Output(json=True)) as show:
        show({"event": "novel", "x": 1})
    assert json.loads(capsys.readouterr().out) == {"event": "novel", "x": 1}


@pytest.mark.parametrize(
    ("change", "share"),
    [
        ({}, 0.5),
        ({"seconds": 9.0, "eta_seconds": 1.0}, 0.9),  # a time limit comes before the last step
        ({"step": 20, "eta_seconds": 0.0, "seconds": 0.0}, 1.0),
        ({"eta_seconds": None}, 0.5),
    ],
)
def test_the_bar_follows_steps_or_time_whichever_is_further(
    change: dict[str, Any], share: float
) -> None:
    assert progress.share_done({**TRAIN, **change}) == share


def test_bars_move_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from holo_cli.cli.output import Output

    assert progress.TrainingDisplay(Output())._bar is None
    monkeypatch.setattr(progress, "is_terminal", lambda stream: True)
    assert progress.TrainingDisplay(Output())._bar is not None
    assert progress.TrainingDisplay(Output(json=True))._bar is None
    assert progress.TrainingDisplay(Output(verbosity=False))._bar is None


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_bar_on_a_terminal_is_removed_and_lines_stay() -> None:
    import pty
    import struct
    import termios
    from fcntl import ioctl

    main, side = pty.openpty()
    ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    code = (
        "import time\nfrom holo_cli.cli.output import Output\nfrom holo_cli.cli import progress\n"
        "with progress.Counting(Output(), 'Scoring') as count:\n"
        "    count(1, 4)\n    time.sleep(0.3)\n    count(2, 4)\n"
    )
    environment = {**os.environ, "TERM": "xterm"}
    subprocess.run(
        [sys.executable, "-c", code], stdout=side, stderr=side, env=environment, check=True,
        timeout=300,
    )  # fmt: skip
    os.close(side)
    shown = os.read(main, 65536).decode("utf-8")
    os.close(main)
    assert "25% Scoring" in shown
    assert "50% Scoring" in shown
    assert shown.split("\r")[-2].strip() == ""  # the bar is overwritten with spaces
    assert "\n" not in shown


def test_progress_of_preparing_data(capsys: pytest.CaptureFixture[str]) -> None:
    from holo_cli.data.prepare.prepare import PrepareProgress

    now = PrepareProgress("packing", 1200, 3_000_000, 9_000_000, 2.0)
    facts = "Tokenizing  1,200 documents  3 MB  1.5 MB/s  4.0 s left"
    assert progress.prepare_facts(now) == facts
