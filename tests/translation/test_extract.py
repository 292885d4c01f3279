"""Every message of the code has a Korean form, and every Korean form a message."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from holo_cli.translation import FOLDER, PLACEHOLDER, extract
from holo_cli.translation.particles import FORMS

ENTRIES = {
    key: (value, path.name)
    for path in sorted((FOLDER / "ko").glob("*.toml"))
    for key, value in tomllib.loads(path.read_text(encoding="utf-8")).items()
}


def keys(code: str, all_strings: bool = False) -> list[str]:
    return [key for _, key in extract._messages(ast.parse(code), all_strings)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("DataError('No file.', next_step='Try it.')", ["No file.", "Try it."]),
        ("DataError(f'No {name} in {place!r}.')", ["No {0} in {1}."]),
        ('out.note(f\'{n} run{"" if n == 1 else "s"} left\')', ["{0} run left", "{0} runs left"]),
        ("out.warn('a b' if x else f'c {d}')", ["a b", "c {0}"]),
        ("out.table(['model', 'loss'], rows)", ["model", "loss"]),
        ("out.note(f'at most {counted(n, \"entry\")} of {m}')", ["at most {0} entries of {1}"]),
        ("out.note(counted(n, 'run'))", ["{0} runs"]),
        ("out.note('left: ' + name)", ["left: {0}"]),
        ("def f(debug): 'What it does.\\n\\nExamples'", ["What it does.", "Examples"]),
        ("other('not a message')", []),
        ("SourceRow(name='x', size='2 GB of text')", ["2 GB of text"]),
        ("class C:\n    mechanism: ClassVar[str] = 'two words'", ["two words"]),
    ],
)
def test_templates_of_code(code: str, expected: list[str]) -> None:
    assert keys(code) == expected


def test_sentence_modules_give_every_string() -> None:
    code = '"""Docstring here."""\nX = ["two words", "one", f"better by {x} nats"]'
    assert keys(code, all_strings=True) == ["two words", "better by {0} nats"]


def test_nothing_is_missing() -> None:
    lacking = extract.missing()
    assert not lacking, "\n".join(f"{place}: {key}" for key, place in lacking.items())


def test_nothing_is_left_over() -> None:
    """Only what Typer prints, and what the code puts together, has no place in the code."""
    known, exempt = extract.of_code(), ("typer.toml", "words.toml")
    left = [key for key, (_, name) in ENTRIES.items() if name not in exempt and key not in known]
    assert not left


def test_entries_are_sound() -> None:
    wrong = []
    for key, (value, name) in ENTRIES.items():
        numbers = {int(n) for n, _ in PLACEHOLDER.findall(key)}
        used = {int(n) for n, _ in PLACEHOLDER.findall(value)}
        particles = {p for _, p in PLACEHOLDER.findall(value) if p}
        # what is typed, an option or a command, must survive translation
        typed = re.findall(r"(?<!\w)--[a-z-]+|`[^`{}]+`", key)
        if not (
            value.strip()
            and used <= numbers
            and particles <= set(FORMS)
            and all(text in value for text in typed)
        ):
            wrong.append(f"{name}: {key} = {value}")
    assert not wrong, "\n".join(wrong)


def test_no_message_is_in_two_files() -> None:
    pairs = [
        key
        for path in (FOLDER / "ko").glob("*.toml")
        for key in tomllib.loads(path.read_text(encoding="utf-8"))
    ]
    assert len(pairs) == len(ENTRIES)
