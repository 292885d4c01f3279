"""`holo eval`: its keys, its words, and what it says of bad input."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from .checkpoints import make_checkpoint
from .conftest import Holo

KEYS = {
    "loss", "bpb", "perplexity", "word_perplexity", "tokens", "bytes", "words", "documents",
    "context", "stride", "per_language", "seconds", "model", "run", "step", "data", "carry",
    "dtype",
}  # fmt: skip
TEXT = "a bad cab made a mad cabal\n" * 20


@pytest.fixture
def text(holo: Holo) -> str:
    """A checkpoint and a text in the working folder."""
    make_checkpoint(Path("checkpoints/small_best.safetensors"))
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    return "text.txt"


def test_a_text(holo: Holo, text: str) -> None:
    ran = holo("eval", "--file", text, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert set(found) == KEYS
    assert found["tokens"] == len(TEXT) + 1
    assert found["bytes"] == len(TEXT)
    assert found["words"] == 20 * 8
    assert (found["context"], found["stride"]) == (24, 24)
    assert (found["model"], found["run"], found["dtype"]) == ("vanilla", "small", "float32")
    strided = json.loads(holo("eval", "--file", text, "--stride", "5", "--json").out)
    assert strided["stride"] == 5
    assert strided["tokens"] == found["tokens"]


def test_for_a_reader(holo: Holo, text: str) -> None:
    Path("ko.txt").write_text("가나다 라마\n" * 40, encoding="utf-8")
    ran = holo("eval", "-c", "small", "--file", text, "--file", "ko.txt")
    assert ran.code == 0, ran.err
    for part in ("bits per byte", "word perplexity", "2 documents", "stride 24"):
        assert part in ran.out
    languages = [line.split()[0] for line in ran.out.splitlines() if line[:3] in ("ko ", "en ")]
    assert "ko" in languages
    assert "tokens/s" in ran.err


def test_a_prepared_set_is_scored_by_name(holo: Holo, text: str) -> None:
    Path("other.txt").write_text("\n\n\n".join(f"가 bad {n}" for n in "abcdefghi"), "utf-8")
    assert holo("prepare", "other", "--source", "other.txt", "--tokenizer", "char").code == 0
    ran = holo("eval", "--data", "other", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["data"] == "data/other, val"
    assert "prepared with another tokenizer" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--file", "empty.txt"), 1, "empty.txt holds no text"),
        (("--file", "nope.txt"), 1, "There is no file 'nope.txt'"),
        (("--file", "text.txt", "--context", "25"), 2, "cannot take a context of 25 tokens"),
        (("--file", "text.txt", "--context", "0"), 2, "--context must be at least 1"),
        (("--file", "text.txt", "--stride", "99"), 2, "--stride must be from 1"),
        (("--file", "text.txt", "--carry"), 2, "cannot carry its state"),
        (("--file", "text.txt", "--data", "x"), 2, "exclude each other"),
        (("--tasks", "x", "--file", "text.txt"), 2, "--tasks bring their own"),
        (("--data", "nope"), 1, "no prepared set 'nope'"),
        ((), 2, "does not say what it was trained on"),
        (("-c", "vanilla"), 1, "is a model, not a checkpoint"),
        (("-c", "smal"), 1, "Did you mean 'small'?"),
    ],
)
def test_what_cannot_be_scored(
    holo: Holo, text: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    Path("empty.txt").write_text(" \n", encoding="utf-8")
    ran = holo("eval", *arguments)
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert message in ran.err


# -- tasks ----------------------------------------------------------------------------------------

installed = importlib.util.find_spec("lm_eval") is not None


@pytest.mark.skipif(installed, reason="lm-evaluation-harness is installed")
def test_tasks_without_the_harness(holo: Holo, text: str) -> None:
    ran = holo("eval", "--tasks", "lambada")
    assert ran.code == 2
    assert "pip install 'holo-cli[eval]'" in ran.err


TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
"""
CHOICE = """doc_to_choice: ["a", "b"]
metric_list: [{metric: acc}]"""
ROLLING = """metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]"""
WRITTEN = """generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}
metric_list: [{metric: exact_match}]"""


@pytest.mark.skipif(not installed, reason="lm-evaluation-harness (the extra eval) is not installed")
def test_tasks_of_ones_own(holo: Holo, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(Path("hub").resolve()))
    folder = Path("tasks")
    folder.mkdir()
    rows = [
        {"question": f"{w} cab", "answer": a, "page": TEXT}
        for w, a in zip("bade", "abab", strict=True)
    ]
    data = (folder / "rows.jsonl").resolve()
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, kind, more in (
        ("own_choice", "multiple_choice", CHOICE),
        ("own_page", "loglikelihood_rolling", ROLLING),
        ("own_written", "generate_until", WRITTEN),
    ):
        task = TASK.format(name=name, data=data.as_posix(), kind=kind, more=more)
        if kind == "loglikelihood_rolling":
            task = task.replace('doc_to_text: "{{question}}"', 'doc_to_text: ""')
            task = task.replace("{{answer}}", "{{page}}")
        (folder / f"{name}.yaml").write_text(task, encoding="utf-8")
    ran = holo(
        "eval", "--tasks", "own_choice,own_page,own_written", "--task-folder", "tasks", "--json"
    )
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)["tasks"]
    assert 0 <= found["own_choice"]["acc"] <= 1
    assert found["own_page"]["bits_per_byte"] > 0
    assert found["own_written"]["exact_match"] == 0
    shown = holo("eval", "--tasks", "own_choice", "--task-folder", "tasks")
    assert "acc" in shown.out
    assert (
        "Did you mean 'own_choice'?"
        in holo("eval", "--tasks", "own_choise", "--task-folder", "tasks").err
    )
