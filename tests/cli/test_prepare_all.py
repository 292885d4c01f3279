"""`holo prepare all`: what can be had is kept, what fails is named at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holo_cli.data.sources import table
from tests.cli.conftest import Holo

SMALL = ("--max-bytes", "60000", "--vocab-size", "300", "--offline")


@pytest.fixture(autouse=True)
def two_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that needs nothing, and one that is in no cache here."""
    rows = tuple(row for row in table.ROWS if row.name in ("stories", "wikipedia"))
    monkeypatch.setattr(table, "ROWS", rows)
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_what_fails_is_named_and_the_rest_is_kept(holo: Holo) -> None:
    ran = holo("prepare", "all", *SMALL, "--json")
    assert ran.code == 1
    found = json.loads(ran.out)
    assert [one["data"] for one in found["sets"]] == [str(Path("data/stories"))]
    assert sum(found["sets"][0]["bytes"].values()) <= 60_000
    assert "cache" in found["failed"]["wikipedia"]  # and not its --lang, which it gets
    assert "1 of 2 datasets could not be prepared: wikipedia." in ran.err.splitlines()[-1]
    assert Path("data/stories/meta.json").exists()
    again = holo("prepare", "all", *SMALL)  # the set that is there stays
    assert again.code == 1
    assert "data/stories" in again.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("all", "stories"), "'all' means every dataset"),
        (("all", "--mix", "balanced"), "--mix cannot be combined with 'all'"),
        (("all", "--subset", "x"), "--subset cannot be combined with 'all'"),
    ],
)
def test_what_all_does_not_take(holo: Holo, arguments: tuple[str, ...], says: str) -> None:
    ran = holo("prepare", *arguments)
    assert (ran.code, says in ran.err) == (2, True)


def test_a_text_may_be_called_all(holo: Holo) -> None:
    Path("a.txt").write_text("One line of text that is long enough.\n" * 50, encoding="utf-8")
    assert holo("prepare", "all", "--source", "a.txt", "--tokenizer", "char").code == 0
    assert Path("data/all/meta.json").exists()
