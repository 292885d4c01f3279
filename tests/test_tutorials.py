"""Every command and every Python example of the tutorials runs, in order, in a small form."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from holo_cli.cli.app import app
from tests.forked_workers import forked_workers

__all__ = ["forked_workers"]  # the fixture

DOCS = Path(__file__).parents[1] / "docs"
ENGLISH = sorted((DOCS / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# The same commands, small: these values replace those of the page; all else stays.
SMALL_OPTIONS = {
    "--steps": "4",
    "--eval-every": "4",
    "--max-bytes": "40000",
    "--context": "16",
    "--seeds": "2",
    "--max-new-tokens": "8",
}
SMALL_SETTINGS = {"model.width": "32", "model.layers": "1"}
# A comparison tries one learning rate instead of a sweep.
# The confirmation is a second comparison, for which one seed is enough to run.
SMALL_PAIRS = {"--sweep-share 1": "--rates 1", "--seeds 4 --first-seed": "--seeds=1 --first-seed"}
# Needs a browser, which a machine with tests may not have; the page itself is drawn.
WITHOUT = {"--png"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of each code block, in the page's order."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def shell_lines(page: Path) -> list[str]:
    text = "".join(body for language, body in blocks(page) if language == "sh")
    return text.splitlines()


def small(words: list[str]) -> list[str]:
    """The arguments of a command with the page's sizes replaced by those of a test."""
    line = shlex.join(words)
    for pair, replacement in SMALL_PAIRS.items():
        if not (pair.startswith("--sweep") and "--rates-from" in words):
            line = line.replace(pair, replacement)
    words = shlex.split(line)
    changed: list[str] = []
    for previous, word in zip(["", *words], words, strict=False):
        key, _, value = word.partition("=")
        if previous in SMALL_OPTIONS:
            word = SMALL_OPTIONS[previous]
        elif previous == "--set" and key in SMALL_SETTINGS and value.isdigit():
            word = f"{key}={SMALL_SETTINGS[key]}"
        if word not in WITHOUT:
            changed.append(word)
    return changed


def run(line: str) -> None:
    """One line of a page: a holo command, or `echo "TEXT" | holo ...`, which must end well."""
    typed, _, command = line.rpartition(" | ")
    program, *arguments = shlex.split(command)
    assert program == "holo", f"not a command of holo: {line}"
    text = None
    if typed:
        echo, *said = shlex.split(typed)
        assert echo == "echo", f"only echo may feed a command: {line}"
        text = " ".join(said) + "\n"
    done = CliRunner().invoke(app, small(arguments), input=text)
    assert done.exit_code == 0, f"{line}\n{done.output}"


def python_prints(body: str, page: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    exec(compile(body, page.name, "exec"), {"__name__": "example"})
    return capsys.readouterr().out


def test_there_are_five_tutorials() -> None:
    assert len(ENGLISH) == 5


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("page", ENGLISH, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks(page)
    assert {language for language, _ in found} == {"mermaid", "sh", "python", "text"}
    for i, (language, body) in enumerate(found):
        if language == "sh":
            for line in body.splitlines():
                run(line)
        elif language == "python":
            assert found[i + 1] == ("text", python_prints(body, page, capsys))


def test_sizes_are_replaced_and_all_else_is_kept() -> None:
    line = "train --steps 500 --set model.width=96 --set model.radius=3 --run a --png"
    short = "train --steps 4 --set model.width=32 --set model.radius=3 --run a"
    assert small(shlex.split(line)) == shlex.split(short)


@pytest.mark.parametrize("page", ENGLISH, ids=lambda page: page.stem)
def test_no_command_of_a_tutorial_is_hidden_in_another_kind_of_block(page: Path) -> None:
    for language, body in blocks(page):
        if language != "sh":
            assert not re.search(r"^(\$ )?holo ", body, re.MULTILINE)
    assert len(shell_lines(page)) >= 4


@pytest.mark.parametrize("page", ENGLISH, ids=lambda page: page.stem)
def test_pictures_of_tutorials_are_small(page: Path) -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    for picture in pictures:
        size = (page.parent / picture).stat().st_size
        assert size <= 60_000, f"{picture} has {size} bytes"
