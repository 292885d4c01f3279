"""`holo inspect`: headers that say less than today's."""

from __future__ import annotations

from holo_cli.cli.inspect import tokenizer_line


def test_a_vocabulary_of_unknown_size_is_not_a_number() -> None:
    assert tokenizer_line({"kind": "char", "vocab_size": 1234}) == "char of 1,234 tokens"
    assert tokenizer_line({"kind": "char", "vocab_size": None}) == "char"
