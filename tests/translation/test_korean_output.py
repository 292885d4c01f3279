"""What the commands print in Korean: no English left, and nothing translated that a user types."""

from __future__ import annotations

import re

import pytest

from holo_cli.__main__ import main

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
    shown = printed(capsys, "train", "--model", "brain-v2", "--preset", "tiny", "--dry-run")
    assert re.search(r"^model\.memory +delta +기본값$", shown, re.MULTILINE)
    assert re.search(r"^training\.seed +0 ", shown, re.MULTILINE)
    assert "메모리: 합계" in shown
