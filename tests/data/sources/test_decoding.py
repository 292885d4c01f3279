"""Strict decoding of whole texts."""

from __future__ import annotations

import pytest

from holo_cli.data.sources.decoding import whole_text
from holo_cli.errors import DataError

KOREAN = "옛 글이다.\n둘째 줄.\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
def test_the_text_is_decoded_unchanged(encoding: str) -> None:
    data = KOREAN.replace("\n", "\r\n").encode(encoding)
    assert whole_text(data, "a.txt", "cp949") == KOREAN


def test_a_wrong_encoding_names_the_text_and_the_flag() -> None:
    with pytest.raises(DataError, match=r"old\.txt is not UTF-8\.") as error:
        whole_text(KOREAN.encode("cp949"), "old.txt", None)
    assert error.value.next_step == "It is valid cp949: add --encoding cp949."


@pytest.mark.parametrize("given", [None, "cp949"])
def test_one_bad_byte_is_refused_wherever_it_is(given: str | None) -> None:
    text = ("plain text, " * 10_000).encode()
    bad = text + b"\xff" + text
    with pytest.raises(DataError, match=r"a\.txt is not valid (UTF-8|CP949): .*position 120000"):
        whole_text(bad, "a.txt", given)
