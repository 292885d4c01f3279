"""`holo eval`: its keys, its words, and what it says of bad input."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from holo_cli.checkpoint import DataInfo
from holo_cli.checkpoint.header import ChatFormat
from holo_cli.data.dataset import PreparedData
from tests.cli.checkpoints import make_checkpoint
from tests.cli.conftest import Fake, Holo

KEYS = {
    "loss", "bpb", "text_bpb", "perplexity", "word_perplexity", "tokens", "bytes", "words",
    "documents", "context", "stride", "per_language", "seconds", "model", "run", "step", "data",
    "carry", "dtype",
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


def test_what_is_scored_of_conversations_and_by_a_model_of_them_is_said(
    holo: Holo, text: str
) -> None:
    talk = DataInfo(chat=ChatFormat())
    make_checkpoint(Path("checkpoints/talk_best.safetensors"), "talk", talk)
    lines = []
    for number in range(60):
        said = [("user", "a bad cab"), ("assistant", "a mad" + " cab" * number)]
        row = {"messages": [{"role": role, "content": content} for role, content in said]}
        lines.append(json.dumps(row))
    Path("talks.jsonl").write_text("\n".join(lines), encoding="utf-8")
    ran = holo("prepare", "talks", "--chat", "talks.jsonl", "--tokenizer", "char")
    assert ran.code == 0, ran.err
    answers, plain = "only the answers are scored", "scored as plain text"
    ran = holo("eval", "-c", "talk", "--data", "talks")
    assert ran.code == 0, ran.err
    assert answers in ran.err
    assert plain not in ran.err
    ran = holo("eval", "-c", "talk", "--file", text)
    assert plain in ran.err
    assert answers not in ran.err
    ran = holo("eval", "-c", "small", "--file", text)
    assert plain not in ran.err
    assert answers not in ran.err


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


@pytest.mark.parametrize("size", ["0", "1", "5"])
def test_any_batch_gives_the_same_figures(holo: Holo, text: str, size: str) -> None:
    found = json.loads(holo("eval", "--file", text, "--batch-size", size, "--json").out)
    expected = json.loads(holo("eval", "--file", text, "--json").out)
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)


# -- the set a checkpoint was trained on ----------------------------------------------------------


def prepared(holo: Holo, words: str, name: str = "mine") -> PreparedData:
    Path(f"{name}.txt").write_text("\n\n\n".join(f"{w} a cab" for w in words.split()), "utf-8")
    source = ("--source", f"{name}.txt", "--tokenizer", "char", "--force")
    ran = holo("prepare", name, *source)
    assert ran.code == 0, ran.err
    return PreparedData.open(name)


def of(data: PreparedData, **changes: str) -> DataInfo:
    facts = {"name": data.name, "path": data.path.as_posix(), "fingerprint": data.fingerprint}
    return DataInfo(**facts | changes)  # type: ignore[arg-type]


def test_the_set_that_was_trained_on_is_scored_as_long_as_it_is_the_same(holo: Holo) -> None:
    data = prepared(holo, "ab ba abb bab baa bba aab aba")
    make_checkpoint(Path("checkpoints/small_best.safetensors"), data=of(data))
    ran = holo("eval", "--json")
    assert ran.code == 0, ran.err
    assert "scoring data/mine, the run's training data" in ran.err
    assert "Warning" not in ran.err + holo("eval", "--data", "mine").err
    prepared(holo, "cb bc cbb bcb bcc bbc ccb cbc")
    again = holo("eval", "--json")
    assert (again.code, again.out) == (1, "")
    assert "data/mine has changed since run 'small' was trained on it" in again.err
    assert "--data mine" in again.err
    named = holo("eval", "--data", "mine", "--json")
    assert named.code == 0, named.err
    assert "Warning: data/mine has changed since run 'small'" in named.err
    prepared(holo, "cb bc cbb bcb bcc bbc ccb cbc", "other")
    assert "Warning" not in holo("eval", "--data", "other").err


def test_a_checkpoint_that_does_not_say_what_its_set_held(holo: Holo) -> None:
    data = prepared(holo, "ab ba abb bab baa bba aab aba")
    make_checkpoint(Path("checkpoints/small_best.safetensors"), data=of(data, fingerprint=""))
    ran = holo("eval")
    assert ran.code == 0, ran.err
    assert "Warning: The checkpoint names its training data data/mine" in ran.err


# -- encodings ------------------------------------------------------------------------------------

KOREAN = "가나다 라마\n" * 40


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    # as the command line sets it up: bytes that are not UTF-8 do not stop a reader
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8", "replace"))


def test_a_text_in_another_encoding(holo: Holo, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("old.txt").write_bytes(KOREAN.encode("euc-kr"))
    Path("new.txt").write_text(KOREAN, encoding="utf-8")
    ran = holo("eval", "--file", "old.txt")
    assert (ran.code, ran.out) == (1, "")
    assert "old.txt is not UTF-8." in ran.err
    assert "add --encoding cp949" in ran.err
    stdin(monkeypatch, KOREAN.encode("euc-kr"))
    ran = holo("eval", "--file", "-")
    assert (ran.code, ran.out) == (1, "")
    assert "Standard input is not UTF-8." in ran.err
    assert "add --encoding cp949" in ran.err
    expected = json.loads(holo("eval", "--file", "new.txt", "--json").out)["loss"]
    read = json.loads(holo("eval", "--file", "old.txt", "--encoding", "cp949", "--json").out)
    assert read["loss"] == pytest.approx(expected)
    stdin(monkeypatch, KOREAN.encode("euc-kr"))
    read = json.loads(holo("eval", "--file", "-", "--encoding", "euc-kr", "--json").out)
    assert read["loss"] == pytest.approx(expected)
    stdin(monkeypatch, KOREAN.replace("\n", "\r\n").encode("utf-8-sig"))
    read = json.loads(holo("eval", "--file", "-", "--json").out)
    assert read["loss"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TEXT.encode() + b"\xff" + TEXT.encode(), "bad.txt is not valid UTF-8: "),
        (b"ab\0c" * 9, "bad.txt is a binary file, not text."),
    ],
)
def test_what_is_not_text_throughout(holo: Holo, text: str, data: bytes, message: str) -> None:
    Path("bad.txt").write_bytes(data)
    ran = holo("eval", "--file", "bad.txt")
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err
    assert "--encoding" in ran.err


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--file", "empty.txt"), 1, "empty.txt contains no text"),
        (("--file", "nope.txt"), 1, "There is no file 'nope.txt'"),
        (("--file", "text.txt", "--context", "25"), 2, "does not support a context of 25 tokens"),
        (("--file", "text.txt", "--context", "0"), 2, "--context must be at least 1"),
        (("--file", "text.txt", "--stride", "99"), 2, "--stride must be from 1"),
        (("--file", "text.txt", "--carry"), 2, "does not support --carry"),
        (("--file", "text.txt", "--data", "x"), 2, "cannot be combined"),
        (("--file", "text.txt", "--context", "-3"), 2, "--context must be at least 1, not -3"),
        (("--file", "text.txt", "--stride", "0"), 2, "--stride must be at least 1"),
        (("--file", "text.txt", "--max-docs", "0"), 2, "--max-docs must be at least 1"),
        (("--file", "text.txt", "--batch-size", "-1"), 2, "--batch-size must be at least 0"),
        (("--tasks", "x", "--batch-size", "-1"), 2, "--batch-size must be at least 0"),
        (("--tasks", "x", "--shots", "-1"), 2, "--shots must be at least 0"),
        (("--file", "text.txt", "--split", "val"), 2, "a file has no splits"),
        (("--data", "x", "--encoding", "cp949"), 2, "--encoding needs --file"),
        (("--file", "text.txt", "--encoding", "cp9490"), 2, "no encoding 'cp9490'"),
        (("--file", "text.txt", "--limit", "3"), 2, "These options need --tasks: --limit"),
        (("--tasks", "x", "--file", "text.txt"), 2, "--tasks does not use"),
        (("--data", "nope"), 1, "no prepared set 'nope'"),
        ((), 2, "does not name its training data"),
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


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (("--context", "8"), "--context"),
        (("--lang", "ko", "--max-docs", "3"), "--lang, --max-docs"),
        (("--stride", "5"), "--stride"),
        (("--carry",), "--carry"),
        (("--file", "text.txt", "--encoding", "cp949"), "--file, --encoding"),
        (("--data", "x", "--split", "train"), "--data, --split"),
    ],
)
def test_flags_that_tasks_have_no_use_for(
    holo: Holo, text: str, arguments: tuple[str, ...], flags: str
) -> None:
    ran = holo("eval", "--tasks", "x", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert f"--tasks does not use: {flags}" in ran.err


def test_flags_that_tasks_do_use(holo: Holo, text: str, fake: Fake) -> None:
    called: dict[str, Any] = {}

    def run_tasks(loaded: object, names: list[str], **options: Any) -> dict[str, Any]:
        called.update(options, names=names)
        options["warn"]("the model's alphabet lacks x.")
        return {"tasks": {"a": {"acc": 0.5, "acc_stderr": 0.25}}, "lm_eval": "0"}

    fake("holo_cli.inference.evaluation.lm_eval_adapter", run_tasks=run_tasks)
    flags = ("--limit", "3", "--shots", "0", "--task-folder", "own", "--batch-size", "4")
    ran = holo("eval", "--tasks", "a, b", *flags)
    assert ran.code == 0, ran.err
    assert "0.2500" in ran.out
    assert "Warning: the model's alphabet lacks x." in ran.err
    called.pop("warn")
    assert called == {
        "names": ["a", "b"], "folder": Path("own"), "limit": 3, "shots": 0, "rows": 4,
    }  # fmt: skip


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


def test_what_weights_in_int8_cost(holo: Holo, text: str) -> None:
    stored = json.loads(holo("eval", "--file", text, "--json").out)
    ran = holo("eval", "--file", text, "--weights", "int8", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert set(found) == KEYS | {"weights", "stored", "weights_cost"}
    assert found["stored"]["loss"] == pytest.approx(stored["loss"], abs=1e-6)
    cost = found["weights_cost"]["loss"]
    assert cost == pytest.approx(found["loss"] - stored["loss"], abs=1e-6)
    assert 0 < abs(cost) < 0.1
    assert "Weights in int8 cost" in holo("eval", "--file", text, "--weights", "int8").err


def test_weights_that_do_not_exist(holo: Holo, text: str) -> None:
    ran = holo("eval", "--file", text, "--weights", "int4")
    assert ran.code == 2
    assert "--weights must be one of stored, int8, not 'int4'." in ran.err
