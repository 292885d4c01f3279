"""The code speaks the field's language: names and phrases that were replaced do not come back."""

from __future__ import annotations

import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = [
    "Skeleton", "SkeletonState", "TimeCache", "summed_nats", "RunFiles", "rate_share", "held_at",
    "_meet", "Workshop", "workshop", "Packer", "Flow", "Screen", "strand", "give_back",
    "persistently", "Remembering", "remembering", "scored_texts", "StandIn", "Subject",
    "Subjects", "lineup", "Child", "Children", "Crew", "Told", "hear", "carry_out", "Campaign",
    "campaign", "Exam", "examine", "Waves", "waves", "Front", "Reduced", "dial", "_fall",
    "Thought", "awake", "recall_one",
]  # fmt: skip
PHRASES = (
    "left out:",
    "Seed of all chance",
    "of yours",
    "goes on from",
    "Go on with",
    "all is saved",
    "begin anew",
    "begins anew",
    "at home in",
    "nobody weighs",
    "last words",
    "This one is",
    "what is theirs",
    "who comes next",
    "wilder",
    "likeliest",
    "Unusual:",
    "lies in ",
)
KOREAN = ("매개변수", "혼란도", "한 걸음", "다듬기", "견학", "스스로 준비")


def files(
    *suffixes: str, folders: tuple[str, ...] = ("holo_cli", "benchmarks", "docs")
) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    return [
        p for p in [*found, *ROOT.glob("*.md")] if p.suffix in suffixes and "rows" not in p.parts
    ]


@pytest.fixture(scope="module")
def identifiers() -> dict[str, list[str]]:
    """Every name in the code with the lines where it stands."""
    found: dict[str, list[str]] = {}
    for path in files(".py"):
        with path.open("rb") as source:
            for token in tokenize.tokenize(source.readline):
                if token.type == tokenize.NAME:
                    place = f"{path.relative_to(ROOT)}:{token.start[0]}: {token.line.strip()}"
                    found.setdefault(token.string, []).append(place)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_replaced_names_are_gone(identifiers: dict[str, list[str]], name: str) -> None:
    assert not identifiers.get(name), "\n".join(identifiers[name])


@pytest.mark.parametrize("phrase", PHRASES)
def test_replaced_phrases_are_gone(phrase: str) -> None:
    wrong = []
    for path in files(".py", ".md", ".toml"):
        if path.name.startswith("models-20"):
            continue  # superseded results keep their words
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if phrase in line:
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("word", KOREAN)
def test_korean_uses_the_terms_of_the_field(word: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in files(".md", ".toml")
        if word in path.read_text(encoding="utf-8")
    ]
    assert not wrong
