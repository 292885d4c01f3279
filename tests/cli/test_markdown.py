"""Markdown of results: a table that any renderer reads, numbers to the right."""

from __future__ import annotations

import pytest

from holo_cli.cli import markdown
from holo_cli.cli.output import Output


def test_a_table() -> None:
    rows = [["a|b", "1.50x (1 to 2)", "", "–"], ["나", "+0.1 ± 0.2", "", "x4"]]
    assert markdown.markdown_table(["model", "ratio", "empty", "rate"], rows).splitlines() == [
        "| model | ratio | empty | rate |",
        "|---|---:|---|---:|",
        "| a\\|b | 1.50x (1 to 2) |  | – |",
        "| 나 | +0.1 ± 0.2 |  | x4 |",
    ]
    assert markdown.markdown_table(["a", "b"], []).splitlines() == ["| a | b |", "|---|---|"]


def test_words_among_numbers_keep_a_column_to_the_left() -> None:
    assert "|---|" in markdown.markdown_table(["a"], [["1"], ["not run"]])


def test_a_command_s_results(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(markdown=True)
    out.heading("Copying", "Repeat it.")
    out.table(("model", "n"), [("vanilla", 3)])
    out.sentences(["It did.", "It did not."])
    assert capsys.readouterr().out.split("\n") == [
        "### Copying", "", "Repeat it.",
        "", "| model | n |", "|---|---:|", "| vanilla | 3 |", "",
        "- It did.", "- It did not.", "",
    ]  # fmt: skip
    out = Output()
    out.heading("Copying", "Repeat it.")
    out.sentences([])
    out.sentences(["It did."])
    assert capsys.readouterr().out == "Copying (Repeat it.)\nIt did.\n"
