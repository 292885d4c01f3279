"""`holo runs`: what is there, unfinished runs first; renaming and deleting whole runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from holo_cli.checkpoint import (
    DataInfo,
    Header,
    RunLock,
    TensorFile,
    load_model,
    model_tensors,
    save,
)
from holo_cli.cli import runs as command
from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.registry import build_model, config_class
from tests.cli.conftest import Holo


def make_run(
    root: Path, run: str, step: int = 7, steps: int = 20, lr: float = 0.01, best: float = 2.5
) -> None:
    """Both files of a run that was trained up to a step, and its log."""
    tokenizer = CharTokenizer("\n abcdef가나다")
    config = config_class("vanilla")(
        vocab_size=tokenizer.vocab_size, layers=1, heads=1, width=8, context=8
    )
    torch.manual_seed(0)
    model = build_model("vanilla", config)
    training = {"steps": steps, "lr": lr}
    for kind in ("best", "last"):
        header = Header(
            model="vanilla", run=run, kind=kind, step=step, tokenizer=tokenizer.to_dict(),
            config={"model": config.model_dump(mode="json"), "training": training, "data": {}},
            data=DataInfo(name="stories"),
            history=[{"step": 3, "val_loss": 3.0, "bpb": 2.0}, {"step": step, "val_loss": best}],
        )  # fmt: skip
        path = root / "checkpoints" / f"{run}_{kind}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save(path, header, model_tensors(model))
    log = root / "runs" / run / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"event": "start", "model": "vanilla", "data": "stories"}\n', encoding="utf-8")


def aged(root: Path, run: str, seconds: float) -> None:
    for path in (*root.glob(f"checkpoints/{run}_*"), *root.glob(f"runs/{run}/*")):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def listed(holo: Holo) -> list[dict[str, object]]:
    ran = holo("runs", "--json")
    assert ran.code == 0, ran.err
    found: list[dict[str, object]] = json.loads(ran.out)["runs"]
    return found


def test_an_empty_folder_has_none(holo: Holo) -> None:
    ran = holo("runs")
    assert ran.code == 0
    assert ran.out == ""
    assert "no runs" in ran.err
    assert listed(holo) == []


def test_unfinished_runs_come_first_then_the_newest(holo: Holo, tmp_path: Path) -> None:
    for run, step in (("done", 20), ("older", 20), ("open", 7)):
        make_run(tmp_path, run, step)
    aged(tmp_path, "open", 5000)
    aged(tmp_path, "older", 900)
    logged = tmp_path / "runs" / "gone" / "metrics.jsonl"
    logged.parent.mkdir()
    logged.write_text('{"event": "start", "model": "ngt", "data": "mine"}\n', encoding="utf-8")
    aged(tmp_path, "gone", 9000)
    (tmp_path / "checkpoints" / "broken_last.safetensors").write_bytes(b"no checkpoint")
    aged(tmp_path, "broken", 99000)
    found = listed(holo)
    assert [(run["run"], run["state"]) for run in found] == [
        ("open", "unfinished"), ("done", "complete"), ("older", "complete"), ("gone", "log only"),
        ("broken", "damaged"),
    ]  # fmt: skip
    assert (found[0]["step"], found[0]["steps"], found[0]["best_val"]) == (7, 20, 2.5)
    assert found[0]["best_bpb"] == 2.0
    assert (found[3]["model"], found[3]["data"]) == ("ngt", "mine")
    shown = holo("runs", "list")
    assert shown.out.splitlines()[1].split()[:6] == [
        "open",
        "unfinished",
        "vanilla",
        "stories",
        "7",
        "/",
    ]
    assert "holo resume open" in shown.err


def test_one_run_is_shown_with_its_evaluations(holo: Holo, tmp_path: Path) -> None:
    make_run(tmp_path, "open")
    ran = holo("runs", "show", "open")
    assert ran.code == 0
    assert "open_last.safetensors" in ran.out
    assert "3.0000" in ran.out
    assert "holo resume open" in ran.err
    assert (
        json.loads(holo("runs", "show", "open", "--json").out)["config"]["training"]["lr"] == 0.01
    )
    missing = holo("runs", "show", "opne")
    assert missing.code == 2
    assert "Did you mean 'open'?" in missing.err


def test_a_comparison_names_the_settings_that_differ(holo: Holo, tmp_path: Path) -> None:
    make_run(tmp_path, "one")
    make_run(tmp_path, "two", lr=0.02, best=2.25)
    found = json.loads(holo("runs", "compare", "one", "two", "--json").out)
    assert found["differing"] == {"training.lr": [0.01, 0.02]}
    assert [run["best_val"] for run in found["runs"]] == [2.5, 2.25]
    table = holo("runs", "compare", "one", "two").out
    assert "training.lr" in table
    assert "2.2500" in table
    assert holo("runs", "compare", "one").code == 2


def test_a_renamed_run_is_whole_under_its_new_name(holo: Holo, tmp_path: Path) -> None:
    make_run(tmp_path, "old")
    before = TensorFile(tmp_path / "checkpoints/old_last.safetensors").read_all()
    ran = holo("runs", "rename", "old", "새-이름")
    assert ran.code == 0, ran.err
    assert [(run["run"], run["state"]) for run in listed(holo)] == [("새-이름", "unfinished")]
    assert not list(tmp_path.glob("checkpoints/old*"))
    assert (tmp_path / "runs/새-이름/metrics.jsonl").exists()
    path = tmp_path / "checkpoints/새-이름_last.safetensors"
    with TensorFile(path) as file:
        assert file.header.run == "새-이름"
        assert not file.verify().damaged
        after = file.read_all()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    load_model(path)


def test_a_name_that_is_taken_or_impossible_is_refused(holo: Holo, tmp_path: Path) -> None:
    make_run(tmp_path, "one")
    make_run(tmp_path, "two")
    for new, message in (("two", "exists already"), ("a/b", "cannot name a run")):
        ran = holo("runs", "rename", "one", new)
        assert ran.code == 2
        assert message in ran.err
    assert {run["run"] for run in listed(holo)} == {"one", "two"}


def test_a_damaged_checkpoint_is_not_renamed(holo: Holo, tmp_path: Path) -> None:
    make_run(tmp_path, "one")
    (tmp_path / "checkpoints/one_best.safetensors").write_bytes(b"damaged")
    ran = holo("runs", "rename", "one", "two")
    assert ran.code == 1
    assert (tmp_path / "checkpoints/one_last.safetensors").exists()
    assert not list(tmp_path.glob("checkpoints/two*"))


def test_deleting_asks_and_never_touches_a_run_in_training(holo: Holo, tmp_path: Path) -> None:
    make_run(tmp_path, "one")
    make_run(tmp_path, "two")
    asked = holo("runs", "delete", "one")
    assert asked.code == 2
    assert "--yes" in asked.err
    with RunLock(tmp_path / "checkpoints", "one"):
        assert {run["run"]: run["state"] for run in listed(holo)}["one"] == "running"
        for words in (("delete", "two", "one", "--yes"), ("rename", "one", "three")):
            refused = holo("runs", *words)
            assert refused.code == 1
            assert f"process {os.getpid()}" in refused.err
    assert len(list(tmp_path.glob("checkpoints/*.safetensors"))) == 4
    ran = holo("runs", "delete", "one", "--yes", "--json")
    assert ran.code == 0, ran.err
    assert len(json.loads(ran.out)["deleted"]) == 3
    assert [run["run"] for run in listed(holo)] == ["two"]
    assert not (tmp_path / "runs/one").exists()


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 2), ("\n", 2)])
def test_on_a_terminal_the_answer_decides(
    holo: Holo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    make_run(tmp_path, "one")
    monkeypatch.setattr(command, "is_terminal", lambda stream: True)
    monkeypatch.setattr(sys, "stdin", open_text(tmp_path, answer))
    ran = holo("runs", "delete", "one")
    assert ran.code == (0 if not left else 1)
    assert "one_last.safetensors" in ran.err
    assert len(list(tmp_path.glob("checkpoints/*.safetensors"))) == left


def open_text(folder: Path, text: str):  # type: ignore[no-untyped-def]
    path = folder / "answer"
    path.write_text(text, encoding="utf-8")
    return path.open(encoding="utf-8")


def test_a_linked_log_is_unlinked_not_emptied(holo: Holo, tmp_path: Path) -> None:
    make_run(tmp_path, "one")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "runs/one").rename(elsewhere)
    try:
        (tmp_path / "runs/one").symlink_to(elsewhere, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no symbolic links")
    assert holo("runs", "delete", "one", "--yes").code == 0
    assert (elsewhere / "metrics.jsonl").exists()
    assert not (tmp_path / "runs/one").exists()
