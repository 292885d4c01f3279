"""The commands of both READMEs run, in their order, and the two READMEs say the same."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from holo_cli.__main__ import main
from tests.forked_workers import forked_workers

__all__ = ["forked_workers"]  # the fixture

ROOT = Path(__file__).resolve().parent.parent
READMES = [ROOT / "README.md", ROOT / "README_KO.md"]

# the same runs, small enough for a test
SMALL = {
    "HOLO_TRAINING_STEPS": "4",
    "HOLO_TRAINING_WARMUP": "1",
    "HOLO_TRAINING_EVAL_EVERY": "2",
    "HOLO_TRAINING_BATCH_SIZE": "2",
    "HOLO_MODEL_LAYERS": "1",
    "HOLO_MODEL_WIDTH": "32",
    "HOLO_MODEL_CONTEXT": "32",
    "HOLO_TRAINING_SAMPLE_TOKENS": "0",
}


def shell_lines(readme: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def test_both_readmes_give_the_same_commands_links_and_figures() -> None:
    english, korean = READMES

    def links(readme: Path) -> set[str]:
        found = re.findall(r"\]\(([^)#]+)", readme.read_text(encoding="utf-8"))
        same = {link.replace("docs/ko/", "docs/") for link in found}  # Korean pages of the docs
        return same - {"README.md", "README_KO.md"}

    def figures(readme: Path) -> list[str]:
        rows = [x for x in readme.read_text(encoding="utf-8").splitlines() if x.startswith("|")]
        return re.findall(r"\d[\d.,]*\d", "\n".join(rows))

    prompts = re.compile(r'--prompt "[^"]*"')
    assert [prompts.sub("", x) for x in shell_lines(english)] == [
        prompts.sub("", x) for x in shell_lines(korean)
    ]
    assert links(english) == links(korean)
    assert figures(english) == figures(korean)
    headings = [
        len(re.findall(r"^#+ ", r.read_text(encoding="utf-8"), re.MULTILINE)) for r in READMES
    ]
    assert headings[0] == headings[1]


@pytest.mark.usefixtures("forked_workers")
def test_the_commands_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    commands = [line for line in shell_lines(READMES[0]) if line.startswith("holo ")]
    assert len(commands) >= 10
    (tmp_path / "notes.txt").write_text("One day, a fox ran to the river.\n", encoding="utf-8")
    for line in commands:
        arguments = shlex.split(line)[1:]
        if arguments[:2] == ["prepare", "stories"]:
            arguments += ["--max-docs", "60"]  # the same set, smaller
        if arguments[0] == "train":
            arguments += ["--stop-at", "2"]  # the Ctrl-C of the comment
        if arguments[:2] == ["bench", "speed"]:
            arguments += ["--repeats", "1", "--seconds", "0.1"]
        expected = 3 if arguments[0] == "train" else 0
        if arguments[0] == "chat":  # reads what is typed
            done = subprocess.run(
                [sys.executable, "-m", "holo_cli", *arguments],
                input="안녕\n/exit\n", capture_output=True, text=True, encoding="utf-8",
            )  # fmt: skip
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        else:
            assert main(arguments) == expected, f"{line}\n{capsys.readouterr()}"
    assert (tmp_path / "checkpoints/vanilla-stories_best.safetensors").exists()


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in shell_lines(READMES[0]):
        if line.startswith("make "):
            assert f"\n{line.split()[1]}:" in makefile
