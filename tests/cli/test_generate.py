"""`holo generate`, `holo inspect`, `holo export` and `holo chat` on a real small checkpoint."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from holo_cli.checkpoint import DataInfo
from holo_cli.checkpoint.header import ChatFormat
from tests.cli.checkpoints import make_checkpoint
from tests.cli.conftest import Holo

SHORT = ("--max-new-tokens", "8", "--seed", "3")


@pytest.fixture
def run(holo: Holo) -> str:
    """The name of a run with a checkpoint in the current folder."""
    make_checkpoint(Path("checkpoints/small_best.safetensors"))
    return "small"


@pytest.fixture
def talk(run: str) -> str:
    """The name of a second run, which was trained on conversations."""
    path = Path("checkpoints/talk_best.safetensors")
    make_checkpoint(path, "talk", DataInfo(chat=ChatFormat()))
    return "talk"


def text_of(holo: Holo, *words: str) -> str:
    ran = holo("generate", *SHORT, *words)
    assert ran.code == 0, ran.err
    return ran.out


def test_the_text_goes_to_stdout_and_the_figures_to_stderr(holo: Holo, run: str) -> None:
    ran = holo("generate", "-c", run, "--prompt", "abc", *SHORT)
    assert ran.code == 0, ran.err
    assert ran.out.endswith("\n")
    assert len(ran.out) <= 9
    assert re.search(r"^[1-8] tokens", ran.err)
    assert "prompt: 3 tokens" in ran.err
    assert ran.err.splitlines()[-1] == "Next: holo chat -c small"


def test_a_model_that_answers_is_said_to_continue_the_prompt_here(
    holo: Holo, run: str, talk: str
) -> None:
    told = "The prompt is continued as plain text; `holo chat` answers it."
    ran = holo("generate", "-c", talk, "--prompt", "abc", *SHORT)
    assert told in ran.err
    assert ran.err.splitlines()[-1] == "Next: holo chat -c talk"
    assert "conversations" not in holo("generate", "-c", talk, "-p", "abc", "-q", *SHORT).err
    assert "conversations" not in holo("generate", "-c", run, "-p", "abc", *SHORT).err


@pytest.mark.parametrize("command", ["generate", "compare", "chat", "eval", "serve"])
def test_a_text_or_a_name_without_its_option_is_told_the_option(
    holo: Holo, run: str, command: str
) -> None:
    words = (run, run) if command == "compare" else ("-c", run)
    ran = holo(command, *words, "Who is it about?")
    assert ran.code == 2
    if command != "compare":  # its checkpoints are arguments
        assert f"Unexpected argument of holo {command}: 'Who is it about?'." in ran.err
        assert f"holo {command} -c NAME" in ran.err
    assert ('-p "TEXT"' in ran.err) is (command == "generate")


def test_inspect_shows_the_chat_format_and_the_command_that_uses_it(
    holo: Holo, run: str, talk: str
) -> None:
    ran = holo("inspect", talk)
    assert re.search(
        r"^chat format +<\|system\|> <\|user\|> <\|assistant\|> <\|end\|>$", ran.out, re.M
    )
    assert "Next: holo chat -c checkpoints/talk_best" in ran.err
    ran = holo("inspect", run)
    assert "chat format" not in ran.out
    assert "Next: holo generate -c checkpoints/small_best" in ran.err


def test_it_is_told_which_checkpoint_writes_when_none_was_named(holo: Holo, run: str) -> None:
    told = "using the newest, "
    assert f"{told}{run} (" in holo("generate", "--prompt", "a", "--max-new-tokens", "2").err
    named = holo("generate", "-c", run, "--prompt", "a", "--max-new-tokens", "2")
    assert told not in named.err


def test_json_has_the_documented_keys_and_the_same_text(holo: Holo, run: str) -> None:
    plain = text_of(holo, "--prompt", "abc")
    document = json.loads(text_of(holo, "--prompt", "abc", "--json"))
    assert set(document) == {"samples", "prompt_tokens"}
    (sample,) = document["samples"]
    assert set(sample) == {"text", "tokens", "tokens_per_second", "finish"}
    assert sample["text"].removesuffix("\n") == plain.removesuffix("\n")
    assert 1 <= sample["tokens"] <= 8
    assert document["prompt_tokens"] == 3


def test_a_prompt_comes_from_a_flag_a_file_or_standard_input_alike(
    holo: Holo, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("p.txt").write_text("가나 abc\n", encoding="utf-8")
    expected = text_of(holo, "--prompt", "가나 abc")
    assert text_of(holo, "--file", "p.txt") == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO("가나 abc\n"))
    assert text_of(holo) == expected


def test_several_samples_are_told_apart(holo: Holo, run: str) -> None:
    lines = text_of(holo, "--prompt", "a", "--num-samples", "3").splitlines()
    assert [line for line in lines if line.startswith("---")] == [
        "--- sample 1",
        "--- sample 2",
        "--- sample 3",
    ]
    document = json.loads(text_of(holo, "--prompt", "a", "--num-samples", "3", "--json"))
    assert len(document["samples"]) == 3


def test_every_sampling_flag_is_taken(holo: Holo, run: str) -> None:
    words = (
        *("--temperature", "0.7", "--top-k", "5", "--top-p", "0.9", "--min-p", "0.01"),
        *("--repetition-penalty", "1.1", "--no-repeat-ngram-size", "3"),
        *("--stop", "zz", "--stop", "yy", "--device", "cpu", "--dtype", "float32"),
    )
    assert text_of(holo, "--prompt", "a", *words)


def test_greedy_needs_no_seed(holo: Holo, run: str) -> None:
    words = ("generate", "--prompt", "a", "--temperature", "0", "--max-new-tokens", "8")
    assert holo(*words).out == holo(*words).out


def test_letters_outside_the_alphabet_are_named(holo: Holo, run: str) -> None:
    ran = holo("generate", "--prompt", "aZ", *SHORT)
    assert ran.code == 0
    assert "tokenizer cannot encode: Z" in ran.err


def test_a_missing_checkpoint(holo: Holo, run: str) -> None:
    ran = holo("generate", "-c", "smal", "--prompt", "a")
    assert ran.code == 1
    assert "Did you mean 'small'?" in ran.err
    ran = holo("generate", "--file", "missing.txt")
    assert ran.code == 1
    assert "There is no file 'missing.txt'" in ran.err


def test_inspect(holo: Holo, run: str) -> None:
    ran = holo("inspect", run)
    assert ran.code == 0, ran.err
    for part in ("vanilla", "step", "char of", "[model]", "width", "history", "val_loss"):
        assert part in ran.out
    assert "blocks." not in ran.out
    assert "blocks." in holo("inspect", "-v").out
    document = json.loads(holo("inspect", "--json").out)
    assert {
        "model", "config", "step", "val_loss", "parameters", "tokenizer", "format",
    } <= set(document)  # fmt: skip


@pytest.mark.parametrize("form", ["weights", "dir"])
def test_export(holo: Holo, run: str, form: str) -> None:
    target = "out.safetensors" if form == "weights" else "out"
    ran = holo("export", run, "--to", form, "--out", target, "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert set(document) == {"path", "bytes"}
    assert document["path"] == target
    again = holo("export", run, "--to", form, "--out", target)
    assert again.code == 1
    assert "--force" in again.err
    forced = holo("export", run, "--to", form, "--out", target, "--force")
    assert forced.out.strip() == target
    assert text_of(holo, "-c", target, "--prompt", "a")


def test_export_to_what_there_is_not(holo: Holo, run: str) -> None:
    ran = holo("export", "--to", "hff")
    assert ran.code == 2
    assert "Did you mean 'hf'?" in ran.err


def test_chat_takes_piped_lines(holo: Holo, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("abc\n/종료\n"))
    ran = holo("chat", *SHORT)
    assert ran.code == 0, ran.err
    assert ran.out.endswith("\n")
    assert "/help" in ran.err


def test_weights_in_int8(holo: Holo, run: str) -> None:
    words = ("generate", "-c", run, "--prompt", "abc", "--temperature", "0", *SHORT)
    eight = holo(*words, "--weights", "int8")
    assert eight.code == 0, eight.err
    assert len(eight.out) == len(holo(*words).out)


def test_compiled_decoding_writes_the_same_and_says_what_it_took(
    holo: Holo, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holo_cli.inference.generation.compiled_step.BACKEND", "eager")
    words = ("generate", "-c", run, "--prompt", "abc", *SHORT)
    plain, compiled = holo(*words), holo(*words, "--compile")
    assert compiled.code == 0, compiled.err
    assert compiled.out == plain.out
    assert re.search(r"Compiled in [0-9.]+ s, which no speed includes", compiled.err)
    assert json.loads(holo(*words, "--compile", "--json").out)["compile_seconds"] > 0
    assert holo(*words, "--compile", "--weights", "int8").code == 0
    refused = holo(*words, "--compile", "--draft-layers", "1")
    assert refused.code == 2
    assert "cannot be combined with --compile" in refused.err


def test_a_conversation_through_compiled_steps(
    holo: Holo, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holo_cli.inference.generation.compiled_step.BACKEND", "eager")
    said = []
    for more in ((), ("--compile",)):
        monkeypatch.setattr(sys, "stdin", io.StringIO("abc\ndef\n/exit\n"))
        ran = holo("chat", *SHORT, *more)
        assert ran.code == 0, ran.err
        said.append(ran.out)
    assert said[0] == said[1]
