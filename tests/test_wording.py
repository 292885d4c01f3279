"""Nouns after numbers."""

from __future__ import annotations

import pytest

from holo_cli.wording import counted, plural


@pytest.mark.parametrize(
    ("noun", "several"),
    [("layer", "layers"), ("entry", "entries"), ("day", "days"), ("batch", "batches")],
)
def test_a_noun_agrees_with_its_number(noun: str, several: str) -> None:
    assert counted(1, noun) == f"1 {noun}"
    assert [counted(n, noun) for n in (0, 2, 1000)] == [
        f"{n} {several}" for n in ("0", "2", "1,000")
    ]
    assert counted("?", noun) == f"? {several}"
    assert plural(noun) == several
