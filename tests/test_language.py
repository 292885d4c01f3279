"""The code speaks the field's language: names and phrases that were replaced do not come back.

Words that are right in one place and were wrong in another cannot be listed as names: `Part` of
a table, `sweep` of learning rates, `exits` of an early-exit model, `planted` effects, `reach` of a
model in its contract."""

from __future__ import annotations

import re
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
    "Thought", "awake", "recall_one", "Duplicates", "Free", "Loaded", "Loop", "Prefix", "Reach",
    "Writing", "broad", "narrow", "compiled", "episodes", "flow", "harness", "inward",
    "junk", "pace", "physics", "saving", "silence", "skeleton", "think",
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
    "goes on",
    "go on to",
    "going on from",
    " anew",
    "moves on by",
    "bring back what",
    "A setting of all",
    "become their means",
    "0 is greedy; higher",
)
# Files whose names were replaced; the folders they were in keep other names of the same words.
FILES = (
    "skeleton.py", "lineup.py", "children.py", "crew.py", "campaign.py", "exam.py", "junk.py",
    "pace.py", "workshop.py", "packer.py", "flow.py", "waves.py", "dial.py", "physics.py",
    "reach.py", "winners.py", "two_four.py", "silence.py", "remembering.py", "episodes.py",
    "scored_texts.py", "harness.py", "saving.py",
)  # fmt: skip
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
    """Every replaced name that is in the code, with the lines where it stands."""
    found: dict[str, list[str]] = {}
    anywhere = re.compile(rf"\b({'|'.join(NAMES)})\b")
    for path in files(".py"):
        if not anywhere.search(path.read_text(encoding="utf-8")):
            continue  # most files: to take them apart takes seconds
        with path.open("rb") as source:
            for token in tokenize.tokenize(source.readline):
                if token.type == tokenize.NAME:
                    place = f"{path.relative_to(ROOT)}:{token.start[0]}: {token.line.strip()}"
                    found.setdefault(token.string, []).append(place)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_replaced_names_are_gone(identifiers: dict[str, list[str]], name: str) -> None:
    assert not identifiers.get(name), "\n".join(identifiers[name])


def test_replaced_files_are_gone() -> None:
    assert not [path for path in files(".py") if path.name in FILES]


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
