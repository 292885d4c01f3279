"""`prepare --chat`: conversations from JSON lines, in the shards and in their checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holo_cli.data.answers import AnswerIndex
from holo_cli.data.chat_format import MARK_NAMES
from holo_cli.data.dataset import PreparedData
from holo_cli.data.meta import read_meta
from holo_cli.data.prepare.prepare import merge, prepare
from holo_cli.errors import DataError, UsageError
from tests.data.prepared import content, corpus

FRUIT = ("pear", "plum", "fig", "lime", "kiwi", "date")


def row(*texts: tuple[str, Any], **more: Any) -> str:
    messages = [{"role": role, "content": text} for role, text in texts]
    return json.dumps({"messages": messages, **more}, ensure_ascii=False)


def talk(number: int) -> str:
    fruit = FRUIT[number % len(FRUIT)]
    return row(
        ("user", f"What is in basket {number}?"),
        ("assistant", f"A {fruit} for {number}."),
        ("user", "Thank you!"),
        ("assistant", "You are welcome."),
    )


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    path = tmp_path / "talks.jsonl"
    path.write_text("\n".join(map(talk, range(60))) + "\n", encoding="utf-8")
    return path


def made(tmp_path: Path, **options: Any) -> PreparedData:
    out = tmp_path / "set"
    prepare(out=out, vocab_size=400, **options)
    return PreparedData.open(out)


def decoded(data: PreparedData) -> list[list[tuple[str, str]]]:
    """The conversations of the training part as roles and texts; plain documents as none."""
    assert data.chat is not None
    found = []
    for tokens, ends in zip(data.split("train"), data.document_ends("train"), strict=True):
        for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            parts = data.chat.split(tokens[int(start) : int(end)].tolist())
            found.append([(role, data.tokenizer.decode(own)) for role, own in parts])
    return found


def test_the_set_holds_the_conversations(tmp_path: Path, talks: Path) -> None:
    data = made(tmp_path, chat=str(talks))
    assert data.has_chat
    assert set(MARK_NAMES) <= data.tokenizer.specials.keys()
    found = decoded(data)
    assert len(found) == data.document_count("train")
    for parts in found:
        assert [role for role, _ in parts] == ["user", "assistant"] * 2
        assert parts[0][1].startswith("What is in basket")
        assert parts[3][1] == "You are welcome."
    # bytes are those of the messages, without anything between them
    spoken = sum(len(text.encode()) for parts in found for _, text in parts)
    assert data.byte_count("train") == spoken
    index = AnswerIndex(data.split("train"), data.chat)  # type: ignore[arg-type]
    tokens = np.concatenate(data.split("train"))
    learnt = tokens[index.scored(0, len(tokens))]
    text = data.tokenizer.decode(learnt.tolist())
    assert "You are welcome." in text
    assert "basket" not in text
    assert "Thank you" not in text


def test_plain_text_and_conversations_in_one_set(tmp_path: Path, talks: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text(corpus(40), encoding="utf-8")
    data = made(tmp_path, names=["both"], source=str(plain), chat=str(talks))
    found = decoded(data)
    assert {bool(parts) for parts in found} == {True, False}
    assert data.meta.settings["chat"] == [False, True]


def test_what_is_no_conversation_is_counted_and_told_once(tmp_path: Path, talks: Path) -> None:
    bad = [
        "{broken",
        '"text"',
        '{"text": "no messages"}',
        row(("user", "hi"), ("wizard", "abracadabra")),
        row(("user", ""), ("assistant", "Hello.")),
        row(("user", "hi"), ("assistant", None)),
        row(("user", "is anybody there?")),
    ]
    talks.write_text("\n".join([*bad, *map(talk, range(60))]), encoding="utf-8")
    told: list[str] = []
    data = made(tmp_path, chat=str(talks), notice=told.append)
    assert sum(map(data.document_count, ("train", "val"))) == 60
    assert data.meta.dropped == {
        "bad lines": 4,
        "conversations with an unknown role": 1,
        "conversations with an empty message": 1,
        "conversations without an answer": 1,
    }
    assert told == ["In talks.jsonl, row 1: it is not a JSON object. Such rows are dropped."]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{broken\n", "row 1: it is not a JSON object"),
        ('{"text": "hi"}\n', "row 1: it has no list 'messages'"),
        (row(("user", "a"), ("wizard", "b")), "the role of message 2 is not one of system, user"),
        (row(("user", "a"), ("assistant", " ")), "message 2 is empty"),
        (row(("user", "a")), "no message is the assistant's"),
        ("", "is empty"),
    ],
)
def test_a_file_without_any_conversation_is_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=match):
        made(tmp_path, chat=str(path))


def test_other_files_are_refused(tmp_path: Path, talks: Path) -> None:
    path = tmp_path / "plain.txt"
    path.write_text("hello there\n")
    with pytest.raises(DataError, match="--chat reads JSON lines") as caught:
        made(tmp_path, chat=str(path))
    assert '"messages"' in caught.value.next_step
    with pytest.raises(UsageError, match=r"--chat names .* twice"):
        made(tmp_path, chat=[str(talks), str(talks)])
    with pytest.raises(UsageError, match="'stories' is the name of a dataset"):
        made(tmp_path, names=["stories"], chat=str(talks))


def test_too_few_conversations_are_not_divided(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(talk(1), encoding="utf-8")
    with pytest.raises(DataError, match="too few conversations"):
        made(tmp_path, chat=str(path))
    path.write_text(f"{talk(1)}\n{talk(2)}", encoding="utf-8")
    data = made(tmp_path, chat=str(path))
    assert [data.document_count(split) for split in ("train", "val")] == [1, 1]


def test_a_limit_keeps_conversations_whole(tmp_path: Path, talks: Path) -> None:
    data = made(tmp_path, chat=str(talks), max_bytes=1_000)
    total = sum(map(data.byte_count, ("train", "val")))
    assert 800 < total <= 1_000
    assert all(parts[-1] == ("assistant", "You are welcome.") for parts in decoded(data))


def test_another_field_and_the_tokenizer_of_another_set(tmp_path: Path, talks: Path) -> None:
    first = made(tmp_path, chat=str(talks))
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_text(talks.read_text().replace('"messages"', '"turns"'))
    prepare(out=tmp_path / "again", chat=str(renamed), text_field="turns",
            tokenizer=str(tmp_path / "set"))  # fmt: skip
    again = PreparedData.open(tmp_path / "again")
    assert again.fingerprint == first.fingerprint
    # plain text with the same tokenizer is no chat, and may be trained on together with it
    plain = tmp_path / "plain.txt"
    plain.write_text(corpus(40), encoding="utf-8")
    prepare(out=tmp_path / "plain", source=str(plain), tokenizer=str(tmp_path / "set"))
    assert not PreparedData.open(tmp_path / "plain").has_chat


def test_portions_are_the_same_set(tmp_path: Path, talks: Path) -> None:
    whole = made(tmp_path, chat=str(talks), filter="default")
    parts = tmp_path / "parts"
    for number in (1, 2):
        prepare(out=parts, vocab_size=400, chat=str(talks), filter="default", shard=f"{number}/2")
    merge(out=parts)
    assert content(parts) == content(tmp_path / "set")
    assert read_meta(parts).chat
    assert PreparedData.open(parts).fingerprint == whole.fingerprint


def test_dialogues_are_a_dataset(tmp_path: Path) -> None:
    data = made(tmp_path, names=["dialogues"], max_docs=60)
    assert data.languages == {"en": 30, "ko": 30}
    assert data.has_markers
    assert data.has_chat
    with pytest.raises(UsageError, match="There are no dialogues in 'de'"):
        prepare(["dialogues"], out=tmp_path / "de", lang=["de"])
