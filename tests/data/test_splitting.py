"""The split depends on the text alone, and neither part is empty."""

from __future__ import annotations

import pytest

from holo_cli.data import splitting
from holo_cli.data.document import Document
from holo_cli.data.splitting import DocumentStats, SplitPlan, hash_fraction, peek
from holo_cli.errors import DataError


def plan(begun: list[Document], complete: bool, fraction: float) -> SplitPlan:
    stats = [DocumentStats.of(document) for document in begun]
    return splitting.plan_split(stats, complete, fraction)


def places(documents: list[Document], chosen: SplitPlan) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"train": [], "val": []}
    for document in documents:
        for split, part in chosen.assign(document):
            found[split].append(part.text)
    return found


def documents(count: int) -> list[Document]:
    return [Document(f"document number {i}") for i in range(count)]


def test_the_share_is_about_the_requested_one() -> None:
    found = places(documents(5000), plan(documents(1000), False, 0.05))
    assert len(found["val"]) == pytest.approx(250, rel=0.25)


def test_order_and_company_do_not_matter() -> None:
    many = documents(2000)
    one_way = places(many, plan(many[:1000], False, 0.05))
    other = places(many[::-1], plan(many[::-1][:1000], False, 0.05))
    assert set(one_way["val"]) == set(other["val"])


@pytest.mark.parametrize("count", [2, 3, 5, 20])
@pytest.mark.parametrize("fraction", [1e-9, 0.05, 0.999999])
def test_neither_side_is_empty(count: int, fraction: float) -> None:
    many = documents(count)
    found = places(many, plan(many, True, fraction))
    assert found["train"]
    assert found["val"]
    if fraction == 1e-9:
        smallest = min(many, key=lambda d: hash_fraction(d.text))
        assert found["val"] == [smallest.text]


def test_the_same_text_never_lies_on_both_sides() -> None:
    many = documents(30) * 2
    found = places(many, plan(many, True, 0.2))
    assert not set(found["train"]) & set(found["val"])


def test_a_single_text_is_cut() -> None:
    one = [Document("one two three four five six seven eight nine ten")]
    found = places(one, plan(one, True, 0.2))
    assert "".join(found["train"] + found["val"]) == one[0].text
    assert all(found.values())


def test_a_source_that_decides_itself_is_followed() -> None:
    own = [Document("a", split="train"), Document("b", split="val")]
    assert places(own, plan(own, True, 0.5)) == {"train": ["a"], "val": ["b"]}
    half = [Document("text of one side", split="train")]
    assert all(places(half, plan(half, True, 0.3)).values())


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match="too short"):
        plan([Document("a")], True, 0.1)


def test_peek_is_bounded_and_detects_the_end() -> None:
    begun, complete = peek(documents(5))
    assert (len(begun), complete) == (5, True)
    begun, complete = peek(documents(5000))
    assert (len(begun), complete) == (1000, False)


@pytest.mark.parametrize("lengths", [[8000, 2000], [8000] * 3, [5000, 100, 9000], [300_000, 40]])
def test_a_few_long_documents_are_shared_out_fairly(lengths: list[int]) -> None:
    """Most of a small file, split into a few pieces, must be training text."""
    texts = [f"{i} " + "word " * (n // 5) for i, n in enumerate(lengths)]
    many = [Document(text) for text in texts]
    found = places(many, plan(many, True, 0.05))
    total = sum(map(len, texts))
    assert 0.02 * total < sum(map(len, found["val"])) < 0.11 * total


def test_a_giant_document_at_the_beginning_does_not_decide_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Were only the first document read, it and every text with a smaller hash would validate."""
    monkeypatch.setattr(splitting, "PEEK_CHARACTERS", 1000)
    giant = next(text for n in range(9) if hash_fraction(text := f"{n} " + "word " * 500) > 0.5)
    for count in (3, 400):
        many = [Document(giant), *documents(count)]
        begun, complete = peek(many)
        assert (len(begun), complete) == ((4, True) if count == 3 else (100, False))
        found = places(many, splitting.plan_split(begun, complete, 0.05))
        size = {split: sum(map(len, texts)) for split, texts in found.items()}
        assert giant not in found["val"]
        assert 0 < size["val"] < 0.11 * size["train"], count
