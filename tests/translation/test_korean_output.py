"""What the commands print in Korean: no English left, and nothing translated that a user types."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest

from holo_cli.__main__ import main
from holo_cli.cli.help import EXAMPLES
from holo_cli.cli.output import Output
from holo_cli.cli.progress import TrainingDisplay
from holo_cli.translation.command_line import TranslatedStream

ENGLISH = re.compile(r"[a-z]{2,} [a-z]{2,}")  # two words in a row


@pytest.fixture(autouse=True)
def korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_LANG", "ko")
    monkeypatch.setenv("COLUMNS", "100")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["models", "datasets"])
def test_tables_hold_no_english_sentence(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for line in printed(capsys, command).splitlines()[1:]:
        languages = re.sub(r"\b[a-z]{2} [a-z]{2}\b( [a-z]{2}\b)*", "", line)  # "en de fr es"
        assert not ENGLISH.search(languages), line


def test_facts_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "datasets", "wikitext103").splitlines()
    assert "라이선스  CC BY-SA 3.0" in "\n".join(lines)
    assert "설명      영어" in "\n".join(lines)  # two columns a letter, as wide as 라이선스


def test_keys_of_the_config_stay_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "train", "--model", "brain-v2", "--preset", "tiny", "--dry-run",
                    "--context", "16", "--batch-size", "1")  # fmt: skip
    assert re.search(r"^model\.memory +delta +기본값$", shown, re.MULTILINE)
    assert re.search(r"^training\.seed +0 ", shown, re.MULTILINE)
    assert "메모리: 합계" in shown


def test_the_language_may_change_between_two_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = printed(capsys, "models", "--help")
    monkeypatch.setenv("HOLO_LANG", "en")
    second = printed(capsys, "models", "--help")
    monkeypatch.setenv("HOLO_LANG", "ko")
    assert re.search("[가-힣]", first)
    assert not re.search("[가-힣]", second)
    assert printed(capsys, "models", "--help") == first


HELP_OF_ALL = """
import sys
from holo_cli.__main__ import main
for path in sys.argv[1:]:
    print("@", path, flush=True)
    main([*path.split(), "--help"])
"""


def test_no_help_page_holds_an_english_sentence() -> None:
    """In a process of its own: Korean help replaces the texts of the app."""
    ran = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL, *EXAMPLES], capture_output=True, text=True,
        encoding="utf-8", env={**os.environ, "HOLO_LANG": "ko"}, timeout=300, check=True,
    )  # fmt: skip
    pages = ran.stdout.split("@ ")[1:]
    assert len(pages) == len(EXAMPLES)
    for page in pages:
        path = page.partition("\n")[0]
        head, _, examples = page.partition("\n예:\n")
        assert tuple(line.removeprefix("  $ ") for line in examples.splitlines()) == EXAMPLES[path]
        assert "default:" not in head
        for line in head.splitlines()[2:]:
            text = re.sub(r"`[^`]*`|--\S+|\S*[/:]\S*|[A-Z]+ or [A-Z]+", "", line)
            assert not ENGLISH.search(text), f"{path}: {line}"


def test_what_a_model_generates_is_not_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", TranslatedStream(written))
    show = TrainingDisplay(Output())
    sample = "No permission.\nstep 3"
    show({"event": "eval", "step": 3, "val_loss": 2.0, "bpb": None, "sample": sample})
    assert written.getvalue() == "스텝 3  검증 손실 2.0000\n    No permission.\n    step 3\n"
