"""Exact and near duplicates are found, in batches of any size and after a kill."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.near_duplicates import altered
from holo_cli.data.cleaning import Cleaner, CleaningSettings
from holo_cli.data.cleaning import deduplicator as module
from holo_cli.data.document import Document
from holo_cli.data.sources.stories.grammar import tell_story
from holo_cli.errors import DataError

ONLY = CleaningSettings.parse("rules=off")


def made(count: int, seed: int = 0) -> list[str]:
    """Texts that are long enough to be altered finely and share no paragraphs."""
    return [
        " ".join(tell_story(5 * n + k, ("en", "ko")[n % 2], seed).text for k in range(5))
        for n in range(count)
    ]


def mixed(count: int) -> list[str]:
    """Originals, copies with other white space, and copies of many similarities, shuffled."""
    rng = random.Random(7)
    texts = made(count)
    texts += ["\n".join(text.upper().split()) for text in texts[::5]]
    texts += [
        altered(t, texts[0].split(), rng.choice((0.9, 0.7, 0.8)), rng) for t in texts[:count:3]
    ]
    rng.shuffle(texts)
    return texts


def kept(cleaner: Cleaner, texts: list[str], sizes: list[int]) -> list[bool]:
    found: list[bool] = []
    at = 0
    while at < len(texts):
        for size in sizes:
            found += [
                d is not None
                for d in cleaner.check_batch(list(map(Document, texts[at : at + size])))
            ]
            at += size
    return found


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return mixed(60)


@pytest.fixture(scope="module")
def expected(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[bool]:
    cleaner = Cleaner(ONLY, tmp_path_factory.mktemp("once"))
    return kept(cleaner, texts, [len(texts)])


def test_exact_copies_are_dropped_and_counted(tmp_path: Path) -> None:
    cleaner = Cleaner(ONLY, tmp_path)
    assert cleaner.check(Document("The same text.")) is not None
    assert cleaner.check(Document("the SAME\n text.")) is None
    assert cleaner.check(Document("Another text altogether.")) is not None
    assert cleaner.counts == {"exact duplicates": 1}


def test_near_copies_are_found_and_others_are_not(tmp_path: Path) -> None:
    rng = random.Random(3)
    originals = made(100)
    others = made(30, seed=1)[7].split()
    cleaner = Cleaner(ONLY, tmp_path)
    assert all(cleaner.check_batch(list(map(Document, originals))))
    copies = [altered(text, others, 0.8, rng) for text in originals]
    assert sum(d is None for d in cleaner.check_batch(list(map(Document, copies)))) >= 95
    assert all(cleaner.check_batch(list(map(Document, made(100, seed=2)))))
    half = [altered(text, others, 0.5, rng) for text in originals]
    assert sum(d is None for d in cleaner.check_batch(list(map(Document, half)))) <= 1


def test_in_batches_of_any_size(texts: list[str], expected: list[bool], tmp_path: Path) -> None:
    assert 10 < expected.count(False) < 40
    assert kept(Cleaner(ONLY, tmp_path / "a"), texts, [1]) == expected
    assert kept(Cleaner(ONLY, tmp_path / "b"), texts, [7, 3, 19]) == expected


def test_while_the_index_grows(
    texts: list[str], expected: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_CAPACITY", 64)
    monkeypatch.setattr(module.Index.__init__, "__defaults__", (64,))
    monkeypatch.setattr(module, "_CHUNK", 5)
    assert kept(Cleaner(ONLY, tmp_path), texts, [11]) == expected


@pytest.mark.parametrize("further", [0, 1, 30])
def test_back_to_an_earlier_moment(
    texts: list[str], expected: list[bool], tmp_path: Path, further: int
) -> None:
    cleaner = Cleaner(ONLY, tmp_path)
    first = kept(cleaner, texts[:40], [8])
    state = cleaner.state()
    kept(cleaner, texts[40 : 40 + further], [3])  # written after the last checkpoint
    again = Cleaner(ONLY, tmp_path)  # as after a kill: nobody closed the first
    again.restore(state)
    assert first + kept(again, texts[40:], [9]) == expected
    assert again.counts.total() == expected.count(False)


def test_a_fresh_start_over_old_files(
    texts: list[str], expected: list[bool], tmp_path: Path
) -> None:
    kept(Cleaner(ONLY, tmp_path), made(50, seed=9), [50])
    cleaner = Cleaner(ONLY, tmp_path)
    assert kept(cleaner, texts[:30], [10]) == expected[:30]
    state = cleaner.state()
    again = Cleaner(ONLY, tmp_path)
    again.restore(state)
    assert kept(again, texts[30:], [10]) == expected[30:]


def test_lost_records_are_an_error(tmp_path: Path) -> None:
    cleaner = Cleaner(ONLY, tmp_path)
    kept(cleaner, made(3), [3])
    state = cleaner.state()
    cleaner.close()
    (tmp_path / "fingerprints.bin").write_bytes(b"")
    again = Cleaner(ONLY, tmp_path)
    with pytest.raises(DataError, match=r"fingerprints\.bin"):
        again.restore(state)
    again.close()


CHILD = """
import json, sys
from pathlib import Path
from holo_cli.data.cleaning import Cleaner, CleaningSettings
from holo_cli.data.document import Document
texts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
cleaner = Cleaner(CleaningSettings.parse("rules=off"), Path(sys.argv[2]))
noted, place = Path(sys.argv[3]), 0
if noted.exists():
    state = json.loads(noted.read_text(encoding="utf-8"))
    cleaner.restore(state["cleaner"])
    place = state["place"]
while place < len(texts):
    cleaner.check_batch([Document(t) for t in texts[place : place + 2]])
    place += 2
    if place % 6 == 0 or place >= len(texts):
        fresh = noted.with_suffix(".new")
        fresh.write_text(json.dumps({"cleaner": cleaner.state(), "place": place}), encoding="utf-8")
        fresh.replace(noted)
        print(place, flush=True)
print("done", cleaner.counts.total(), flush=True)
"""


def test_killed_again_and_again(texts: list[str], expected: list[bool], tmp_path: Path) -> None:
    import json

    data = tmp_path / "texts.json"
    data.write_text(json.dumps(texts), encoding="utf-8")
    command = [
        sys.executable,
        "-c",
        CHILD,
        str(data),
        str(tmp_path / "c"),
        str(tmp_path / "noted.json"),
    ]
    rng = random.Random(1)
    for attempt in range(4):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if attempt == 3:
            output, _ = process.communicate(timeout=600)
            assert output.split()[-2:] == ["done", str(expected.count(False))]
            return
        process.stdout.readline()  # it is at work
        time.sleep(rng.random() * 0.01)
        process.kill()
        process.communicate()
