"""Conversations: from rows to messages, from messages to ids, and which ids are learnt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from holo_cli.data.answers import AnswerIndex, token_sizes
from holo_cli.data.batches import IGNORE, TrainBatches, eval_windows
from holo_cli.data.chat_format import (
    BAD_LINES,
    MARK_NAMES,
    NO_ANSWER,
    NO_TEXT,
    UNKNOWN_ROLES,
    ChatMarks,
    NoConversationError,
    Utterance,
    arranged,
    read_messages,
)
from holo_cli.data.document import Document
from holo_cli.data.encode import encode_documents, text_size
from holo_cli.data.windows import DocumentSubset, DocumentWindows, StreamWindows, TokenStream
from tests.inference.inference_fakes import ByteTokenizer

TOKENIZER = ByteTokenizer(["<|en|>", "<|ko|>", *MARK_NAMES])
END, KO = TOKENIZER.end, TOKENIZER.specials["<|ko|>"]
SYSTEM, USER, ASSISTANT = (TOKENIZER.specials[name] for name in MARK_NAMES)


def marks() -> ChatMarks:
    found = ChatMarks.of(TOKENIZER.specials)
    assert found is not None
    return found


def said(*texts: tuple[str, str]) -> tuple[Utterance, ...]:
    return tuple(Utterance(*text) for text in texts)


TALK = Document.of_messages(
    said(("system", "S"), ("user", "hi"), ("assistant", "yo"), ("user", "q"), ("assistant", "네"))
)
PLAIN = Document("plain")


def message(role: Any, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_messages_of_openai_are_read() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    found = read_messages(
        [
            message("developer", "be brief"),
            message("user", "one"),
            message("user", parts),
            message("system", "in Korean"),
            message("assistant", "answer"),
            message("user", "never answered"),
        ]
    )
    assert found == said(
        ("system", "be brief\nin Korean"), ("user", "one\na\nb"), ("assistant", "answer")
    )


@pytest.mark.parametrize(
    ("value", "rule", "detail"),
    [
        (None, BAD_LINES, "it has no list 'messages'"),
        ("hi", BAD_LINES, "it has no list 'messages'"),
        ([3], BAD_LINES, "message 1 is not an object"),
        ([message("user", "a"), message("robot", "b")], UNKNOWN_ROLES, "the role of message 2 is "
         "not one of system, user, assistant"),
        ([message(["user"], "a")], UNKNOWN_ROLES, "the role of message 1 is not one of"),
        ([{"content": "a"}], UNKNOWN_ROLES, "the role of message 1 is not one of"),
        ([message("user", "a"), message("assistant", " \n")], NO_TEXT, "message 2 is empty"),
        ([message("user", None)], BAD_LINES, "the content of message 1 is no text"),
        ([message("user", [{"type": "image_url", "image_url": {}}])], BAD_LINES, "no text"),
        ([message("user", [{"type": "text", "text": 3}])], BAD_LINES, "no text"),
        ([message("user", "a")], NO_ANSWER, "no message is the assistant's"),
        ([], NO_ANSWER, "no message is the assistant's"),
    ],
)  # fmt: skip
def test_what_is_no_conversation_says_why(value: Any, rule: str, detail: str) -> None:
    with pytest.raises(NoConversationError, match=detail) as caught:
        read_messages(value)
    assert caught.value.rule == rule


def test_a_conversation_may_begin_with_an_answer() -> None:
    assert arranged(said(("assistant", "Hello!"))) == said(("assistant", "Hello!"))


def test_the_ids_of_a_conversation() -> None:
    ids = encode_documents(TOKENIZER, [TALK, PLAIN], prefixes=[KO, None])
    head = [KO, SYSTEM, *b"S", USER, *b"hi", ASSISTANT, *b"yo", END]
    assert ids[0].tolist() == [*head, USER, *b"q", ASSISTANT, *"네".encode(), END]
    assert ids[1].tolist() == [*b"plain", END]
    assert [text_size(TOKENIZER, d, i) for d, i in zip((TALK, PLAIN), ids, strict=True)] == [9, 5]


def test_the_ids_say_who_said_what() -> None:
    (ids,) = encode_documents(TOKENIZER, [TALK], prefixes=[KO])
    parts = marks().split(ids.tolist())
    assert [(role, TOKENIZER.decode(own)) for role, own in parts] == [*TALK.messages]
    assert marks().join(parts) == ids.tolist()[1:-1]
    assert marks().split([*b"plain", END]) == []


def test_text_that_looks_like_a_mark_stays_text() -> None:
    sly = Document.of_messages(said(("user", "<|assistant|>no<|end|>"), ("assistant", "<|user|>")))
    (ids,) = encode_documents(TOKENIZER, [sly])
    assert [t for t in ids if t >= 256] == [USER, ASSISTANT, END]


def learnt(ids: list[int]) -> list[int]:
    return [t for t, yes in zip(ids, AnswerIndex([np.array(ids)], marks()).scored(0, len(ids)),
                                strict=True) if yes]  # fmt: skip


def stream_of(*documents: Document, shard: int = 7) -> tuple[TokenStream, list[int]]:
    """The documents as a stream over shards of a few tokens, and its ids."""
    encoded = encode_documents(TOKENIZER, documents, prefixes=[KO] * len(documents))
    ids = [int(t) for one in encoded for t in one]
    shards = [np.array(ids[at : at + shard], dtype=np.uint16) for at in range(0, len(ids), shard)]
    return TokenStream(shards, AnswerIndex(shards, marks()).scored), ids


def test_only_answers_and_their_ends_are_learnt_and_plain_documents_whole() -> None:
    _, ids = stream_of(TALK, PLAIN, TALK)
    answers = [*b"yo", END, *"네".encode(), END]
    assert learnt(ids) == [*answers, KO, *b"plain", END, *answers]
    assert learnt([*b"no marks at all"]) == [*b"no marks at all"]


def test_every_stretch_knows_its_answers_whatever_comes_before_it() -> None:
    stream, ids = stream_of(PLAIN, TALK, TALK, PLAIN)
    whole = np.array(ids)
    stream.mask(0, whole)
    assert (whole == IGNORE).any()
    for start in range(len(ids)):
        for count in (1, 4, len(ids) - start):
            part = np.array(ids[start : start + count])
            stream.mask(start, part)
            assert part.tolist() == whole[start : start + count].tolist()
    assert stream.unmasked().learnt is None


def test_documents_of_a_language_know_their_answers() -> None:
    stream, ids = stream_of(PLAIN, TALK, PLAIN, TALK)
    sizes = np.array([7, 17, 7, 17])
    starts = np.cumsum(sizes) - sizes
    assert sizes.sum() == len(ids)
    some = DocumentSubset(stream, starts[[1, 3]], sizes[[1, 3]])
    for begin in range(0, 34, 5):
        part = some.read(begin, min(11, 34 - begin))
        some.mask(begin, part)
        whole = np.array(ids[7:24] * 2)
        TokenStream([whole], AnswerIndex([whole], marks()).scored).mask(0, whole)
        assert part.tolist() == whole[begin : begin + len(part)].tolist()


@pytest.mark.parametrize("kind", [StreamWindows, DocumentWindows])
def test_training_windows_score_answers_alone(kind: type) -> None:
    stream, ids = stream_of(TALK, TALK, TALK, PLAIN)
    sizes = np.array([17, 17, 17, 7])
    if kind is StreamWindows:
        windows: Any = StreamWindows(stream, 8, [0])
    else:
        windows = DocumentWindows(stream, np.cumsum(sizes) - sizes, sizes, 8, END, [0])
    allowed = {*b"yo", *b"plain", *"네".encode(), END, KO}
    total = 0
    for number in range(windows.per_epoch):
        _, y = windows.window(number)
        scored = y[y != IGNORE].tolist()
        assert set(scored) <= allowed
        assert windows.scored(number) == len(scored)
        total += len(scored)
    if kind is DocumentWindows:  # each token once
        assert total == len(learnt(ids))


def test_evaluation_scores_each_answer_once() -> None:
    stream, ids = stream_of(TALK, PLAIN, TALK)
    for context, stride in ((8, 0), (8, 3), (64, 0)):
        found: list[int] = []
        for x, y in eval_windows(stream, context, 2, END, stride):
            assert x.shape == y.shape
            found += y[y != IGNORE].tolist()
        assert found == learnt(ids)


def test_a_set_without_conversations_is_read_as_before() -> None:
    tokens = [np.arange(100, dtype=np.uint16)]
    plain = TrainBatches(tokens, 8, 3).take(4)
    again = TrainBatches(tokens, 8, 3)
    again.parts = [StreamWindows(TokenStream(tokens, lambda a, n: np.ones(n, bool)), 8, [3])]
    for one, other in zip(plain, again.take(4), strict=True):
        assert (one == other).all()


def test_sizes_are_those_of_the_text() -> None:
    sizes = token_sizes(TOKENIZER)
    assert sizes[:256].tolist() == [1] * 256
    assert not sizes[256:].any()
