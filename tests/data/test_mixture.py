"""Mixing sources: shares by bytes, the end, and positions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from holo_cli.data.document import Document
from holo_cli.data.mixture import ROUND_ROBIN, Mixture, parse_mix
from holo_cli.data.sources.base import Source, Stream, numbered_chunks
from holo_cli.errors import UsageError


def stream(name: str, count: int, size: int, language: str = "") -> Stream:
    def documents(counts: Counter[str]) -> Iterator[Document]:
        for number in range(count):
            if number % 10 == 0:
                counts["bad lines"] += 1
            yield Document(f"{name}{number}".ljust(size, "."), language, name)

    return Stream(numbered_chunks(documents), name, language, count * size)


def source(name: str, *streams: Stream, balanced: bool = False) -> Source:
    return Source(name, streams, {}, balanced=balanced)


def read(mixture: Mixture) -> list[Document]:
    found = []
    while (entry := mixture.next()) is not None:
        found.append(entry[2])
    return found


def shares(documents: list[Document]) -> Counter[str]:
    total: Counter[str] = Counter()
    for document in documents:
        total[document.source] += len(document.text)
    return total


def two() -> list[Source]:
    return [source("a", stream("a", 300, 20, "ko")), source("b", stream("b", 90, 100, "en"))]


def test_without_a_mix_one_follows_the_other() -> None:
    found = read(Mixture(two()))
    assert [d.source for d in found] == ["a"] * 300 + ["b"] * 90


@pytest.mark.parametrize(
    ("mix", "share"),
    [
        ("balanced", 0.5),
        ("a=0.25,b=0.75", 0.25),
        ("a=1,b=3", 0.25),
        ("ko=0.25", 0.25),  # what is not named has the rest
        ("ko=0.9,en=0.1", 0.9),
    ],
)
def test_weights_hold_everywhere_and_end_with_the_first(mix: str, share: float) -> None:
    found = read(Mixture(two(), parse_mix(mix)))
    for end in (30, len(found) // 2, len(found)):
        total = shares(found[:end])
        assert total["a"] / sum(total.values()) == pytest.approx(
            share, abs=110 / sum(total.values())
        )
    total = shares(found)
    assert total["a"] == 6000 or total["b"] == 9000


def test_in_proportion_to_their_sizes_all_of_it_is_read() -> None:
    found = read(Mixture(two(), "proportional"))
    assert shares(found) == {"a": 6000, "b": 9000}
    assert shares(found[: len(found) // 3])["a"] == pytest.approx(2000, abs=150)


def test_streams_of_one_source_take_turns() -> None:
    several = source("s", stream("x", 100, 10), stream("y", 10, 50))
    found = read(Mixture([several]))
    assert shares(found) == {"x": 1000, "y": 500}
    assert shares(found[:24])["x"] == pytest.approx(shares(found[:24])["y"], abs=60)
    short = source("s", *several.streams, balanced=True)
    assert shares(read(Mixture([short]))) == {"x": 510, "y": 500}  # its end shows at the 11th


def test_turns_give_as_much_of_each_and_all_of_it() -> None:
    found = read(Mixture(two(), ROUND_ROBIN))
    assert shares(found) == {"a": 6000, "b": 9000}
    assert shares(found[:120])["a"] == pytest.approx(shares(found[:120])["b"], abs=110)


def test_refunded_bytes_are_made_up_for() -> None:
    mixture = Mixture(two(), "balanced")
    kept: Counter[str] = Counter()
    while (entry := mixture.next()) is not None:
        stream_number, _, document = entry
        if document.source == "a" and len(kept) and int(document.text.strip("a.") or 0) % 2:
            mixture.refund(stream_number, len(document.text))  # every second one is dropped
        else:
            kept[document.source] += len(document.text)
    assert kept["a"] == pytest.approx(kept["b"], abs=130)


def test_a_source_that_has_given_enough() -> None:
    mixture = Mixture(two())
    for _ in range(5):
        mixture.next()
    mixture.end(0)
    assert {d.source for d in read(mixture)} == {"b"}
    mixture = Mixture(two(), "balanced")
    mixture.end(1)
    assert read(mixture) == []


@pytest.mark.parametrize("mix", ["sequence", "balanced", "proportional", "a=0.3,b=0.7"])
def test_a_mixture_resumes_from_any_position(mix: str) -> None:
    how: Any = mix if mix == "sequence" else parse_mix(mix)
    whole = Mixture(two(), how)
    found = read(whole)
    for stop in [*range(0, len(found), 29), len(found)]:
        begun = Mixture(two(), how)
        for _ in range(stop):
            begun.next()
        state = json.loads(json.dumps(begun.state()))
        again = Mixture(two(), how, state)
        assert read(again) == found[stop:]
        assert again.counts == whole.counts


@pytest.mark.parametrize(
    ("mix", "says"),
    [
        ("even", "is not valid"),
        ("a=0", "is not valid"),
        ("a=0.5,b", "is not valid"),
        ("a=nan,b=1", "is not valid"),
    ],
)
def test_invalid_mixes(mix: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_mix(mix)


@pytest.mark.parametrize(
    ("mix", "says"),
    [
        ("a=0.5,c=0.5", "names 'c', which is not in this mixture"),
        ("fr=0.5", "names 'fr'"),
        ("a=1", "leaves no share for b"),
    ],
)
def test_mixes_that_do_not_fit(mix: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Mixture(two(), parse_mix(mix))


def test_a_text_of_unknown_language_has_no_weight_by_language() -> None:
    with pytest.raises(UsageError, match="language of 'mine' is unknown"):
        Mixture([source("mine", stream("mine", 3, 9))], parse_mix("ko=0.5"))
