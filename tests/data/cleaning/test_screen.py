"""The screen never passes a document that a rule drops, and passes nearly all good ones."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from benchmarks import synthetic_junk
from holo_cli.data.cleaning import CleaningSettings, screen
from holo_cli.data.cleaning.document_filter import DocumentFilter
from holo_cli.data.cleaning.thresholds import limits
from holo_cli.data.document import Document
from holo_cli.data.normalize import normalize
from holo_cli.data.sources.stories.grammar import tell_story

LANGUAGES = ("en", "ko", "de", "", "ja", "fr")
PIECES = [
    "the", "The", "of", "it's", "(and", "word", "word.", "학교에", "학교는,", "갔다.", "가", "다",
    "x" * 40, "1234", "--", "•", "#", "...", "…", "...\n", "…\n", "<b>", "&amp;",
    "var x = 1;", "création", "Ã©",
    "뷁", "괋", "\U00020000", "\U0001f600", "\ufffd", "lorem ipsum", "-", "*", "i", "a" * 5, "’",
]  # fmt: skip
SPACES = [" ", " ", " ", " ", "  ", "\n", "\n\n", "\t", "\u3000", "\x85", "\n \n", ""]


def made(rng: random.Random) -> str:
    """A document that is near the limits of many rules."""
    pieces = rng.sample(PIECES, rng.randint(1, len(PIECES)))
    spaces = rng.sample(SPACES, rng.randint(1, 4))
    parts = [
        rng.choice(pieces) + rng.choice(spaces) for _ in range(rng.choice((0, 1, 19, 25, 90, 400)))
    ]
    if rng.random() < 0.3:  # lines and phrases again
        parts += parts[: rng.randint(0, len(parts))] * rng.randint(1, 3)
    return "".join(parts)


def numbered(rng: random.Random) -> str:
    """Good words with some phrases repeated, about as often as the limits allow."""
    words = [f"{rng.choice(('the', 'see', '그는', '있다.'))}{rng.randint(0, 300)}a"[:9]
             for _ in range(rng.randint(20, 300))]  # fmt: skip
    for _ in range(rng.randint(0, 12)):
        at, size = rng.randrange(len(words)), rng.randint(1, 12)
        words[rng.randrange(len(words)) :][:0] = words[at : at + size]
        words += words[at : at + size]
    for at in range(rng.randint(4, 30), len(words), rng.randint(5, 30)):
        words[at] += rng.choice((".", "", "\n", ".\n"))
    return " ".join(["the of and 는 을 다", *words])


def documents(seed: int, count: int) -> Iterator[Document]:
    rng = random.Random(seed)
    for number in range(count):
        text = (made, numbered)[number % 2](rng)
        yield Document(normalize(text, Counter()), rng.choice(LANGUAGES))
    for kind in synthetic_junk.KINDS:
        for number in range(3):
            text = normalize(synthetic_junk.make(kind, number, seed), Counter())
            yield Document(text, rng.choice(LANGUAGES))


@pytest.mark.parametrize("filters", ["default", "strict"])
def test_the_screen_changes_nothing(filters: str) -> None:
    judges = DocumentFilter(CleaningSettings.parse(filters))
    found = list(documents(seed=3, count=60))
    one_by_one = [judges.judge(document) for document in found]
    assert judges.judge_all(found) == one_by_one
    assert len(set(one_by_one)) > 8


OFF = {name: 0.0 if name.startswith("min_") else 1e6 for name in limits()} | {
    "judged_words": 0, "judged_lines": 0, "min_words": 1,
    **{f"max_top_{n}_grams": 1 for n in (2, 3, 4)},
    **{f"max_duplicate_{n}_grams": 1 for n in (5, 10)},
}  # fmt: skip
EVERY = [name for name in OFF if name not in ("min_words", "max_words", "judged_words")]


@pytest.mark.parametrize("name", EVERY)
def test_each_limit_alone(name: str) -> None:
    """With all other rules off, documents on both sides of a limit."""
    given = [Document(d.text, d.language or "ko") for d in documents(seed=5, count=24)]
    broken: Counter[str] = Counter()
    for value in (2.0, 4.0, 7.0) if "mean_word" in name else (0.02, 0.1, 0.4):
        changed = {**OFF, name: value}
        text = ",".join(f"{key}={number}" for key, number in changed.items())
        judges = DocumentFilter(CleaningSettings.parse(f"default,{text}"))
        one_by_one = [judges.judge(document) for document in given]
        assert judges.judge_all(given) == one_by_one
        broken.update(one_by_one)
    assert name == "judged_lines" or (len(broken) > 2 and broken[""] > 5)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    judges = DocumentFilter(CleaningSettings())
    found = list(documents(seed=4, count=60))
    together = judges.judge_all(found)
    monkeypatch.setattr(screen, "BLOCK_CHARACTERS", 2000)
    monkeypatch.setattr(screen, "BLOCK_DOCUMENTS", 3)
    assert judges.judge_all(found) == together


def test_runs_at_the_end_of_a_block() -> None:
    text = " ".join(f"w{number} the" for number in range(30)) + " a bb ccc" * 9
    judges = DocumentFilter(CleaningSettings())
    for after in ([], [Document("", "en")], [Document("a b", "en"), Document("\n", "en")]):
        judged = judges.judge_all([Document(text, "en"), *after])
        assert judged[0] == judges.judge(Document(text, "en")) != ""


@pytest.mark.parametrize("language", ["en", "ko"])
def test_good_text_passes_without_being_measured(language: str) -> None:
    judges = DocumentFilter(CleaningSettings())
    texts = [tell_story(number, language).text for number in range(40)]
    assert sum(judges._screen(language).passes(texts)) >= 38


def test_long_documents_and_those_without_spaces_are_measured() -> None:
    judges = DocumentFilter(CleaningSettings())
    assert judges._screen("en").passes(["the word is of it. " * 9000]) == [False]
    assert judges._screen("ja").passes(["私は 学校に 行きます。" * 5]) == [False]
