"""Conversations with a model that was trained on conversations: ids as in training, and answers."""

from __future__ import annotations

import pytest

from holo_cli.checkpoint.header import ChatFormat
from holo_cli.data.chat_format import MARK_NAMES, Utterance
from holo_cli.data.document import Document
from holo_cli.data.encode import encode_documents
from holo_cli.inference.chat.conversation import Turn, encode_turn, encode_turns
from holo_cli.inference.chat.session import ChatSession
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.serve.encoding import conversation_ids
from holo_cli.serve.prefixes import Prefixes
from holo_cli.serve.requests import Message
from tests.inference.inference_fakes import Attentive, ByteTokenizer, Scripted, make_loaded

TOKENIZER = ByteTokenizer(["<|en|>", "<|ko|>", *MARK_NAMES])
END, EN, KO = (TOKENIZER.specials[name] for name in ("<|end|>", "<|en|>", "<|ko|>"))
SYSTEM, USER, ASSISTANT = (TOKENIZER.specials[name] for name in MARK_NAMES)
GREEDY = SamplingConfig.from_options({"temperature": 0, "span_penalty": 0, "max_new_tokens": 40})


def chat_model(model=None) -> LoadedModel:  # type: ignore[no-untyped-def]
    return make_loaded(
        model or Attentive(vocab=TOKENIZER.vocab_size, limit=96),
        TOKENIZER,
        markers=True,
        documents=100,
        chat=ChatFormat(),
    )


def ids_of(*turns: Turn, system: str = "") -> list[int]:
    form = chat_model().prompts
    encoded: list[Turn] = []
    for turn in turns:
        previous = encoded[-1].language if encoded else None
        encoded.append(encode_turn(form, turn, previous, None))
    return encode_turns(form, system, encoded)


def test_the_ids_are_those_that_training_saw() -> None:
    said = [("system", "Be kind."), ("user", "Who is it?"), ("assistant", "It is Mia."),
            ("user", "Where?"), ("assistant", "At home.")]  # fmt: skip
    document = Document.of_messages([Utterance(*one) for one in said])
    (trained,) = encode_documents(TOKENIZER, [document], prefixes=[EN])
    asked = ids_of(Turn("Who is it?", "It is Mia."), Turn("Where?"), system="Be kind.")
    # what is left to the model is the answer and its end
    assert [*asked, *b"At home.", END] == [END, *trained.tolist()]


def test_another_language_begins_like_another_document() -> None:
    ids = ids_of(Turn("Who are you all?", "A model."), Turn("너는 누구야?"))
    begun = [END, EN, USER, *b"Who are you all?", ASSISTANT, *b"A model.", END]
    assert ids == [*begun, KO, USER, *"너는 누구야?".encode(), ASSISTANT]


def test_a_longer_conversation_begins_with_the_shorter_one() -> None:
    short = ids_of(Turn("Who is it?"))
    longer = ids_of(Turn("Who is it?", "It is Mia."), Turn("Where?"))
    assert longer[: len(short)] == short


def test_an_answer_ends_with_the_end_and_the_next_turn_goes_on() -> None:
    text = "It is 미나."
    first = len(ids_of(Turn("Who is it?")))
    loaded = chat_model(Scripted([*text.encode(), END], first, vocab=TOKENIZER.vocab_size))
    session = ChatSession(loaded, GREEDY)
    pieces = list(session.reply("Who is it?"))
    assert "".join(pieces) == text
    assert session.turns[0].finish == "end"
    assert not session.only_continues


def test_the_state_of_the_first_turn_serves_the_second() -> None:
    loaded = chat_model(Attentive(vocab=TOKENIZER.vocab_size, limit=400))
    session = ChatSession(loaded, GREEDY)
    list(session.reply("Who is it?"))
    before = len(ids_of(Turn("Who is it?")))
    list(session.reply("Where?"))
    assert session.statistics.read_tokens < before + 12
    whole = ChatSession(loaded, GREEDY)
    whole.turns = [session.turns[0]]
    assert "".join(whole.reply("Where?")) == session.turns[1].answer


def test_the_server_encodes_the_same() -> None:
    loaded = chat_model()
    messages = [
        Message(role="system", content="Be kind."),
        Message(role="user", content="Who is it?"),
        Message(role="assistant", content="It is Mia."),
        Message(role="user", content="Where?"),
    ]
    found = conversation_ids(loaded, messages, Prefixes(0))
    turns = (Turn("Who is it?", "It is Mia."), Turn("Where?"))
    assert found == ids_of(*turns, system="Be kind.")
    # an answer that the client began is continued
    begun = conversation_ids(loaded, messages[1:3], Prefixes(0))
    assert begun == ids_of(Turn("Who is it?", "It is Mia."))
    assert begun[-len(b"It is Mia.") :] == [*b"It is Mia."]


def test_marks_are_never_written() -> None:
    loaded = chat_model()
    weights = loaded.model.head.weight.data
    weights[EN:] = 10 * weights.abs().max()
    answer = loaded.answer("hi", temperature=2.0, max_new_tokens=30, seed=1)
    session = ChatSession(loaded, SamplingConfig.from_options({"max_new_tokens": 30, "seed": 1}))
    list(session.reply("hi"))
    assert isinstance(answer, str)
    assert all(token < END or token == END for token in session.turns[0].answer_ids)


@pytest.mark.parametrize("tokens", range(1, 9))
def test_an_unfinished_korean_character_is_never_shown(tokens: int) -> None:
    """An answer that is cut after any byte shows whole characters alone."""
    text = "네, 미나예요."
    first = len(ids_of(Turn("누구의 이야기야?")))
    model = Scripted([*text.encode(), END], first, vocab=TOKENIZER.vocab_size)
    session = ChatSession(
        chat_model(model),
        SamplingConfig.from_options({"temperature": 0, "max_new_tokens": tokens}),
    )
    pieces = list(session.reply("누구의 이야기야?"))
    assert not any("\ufffd" in piece for piece in pieces)
    assert "\ufffd" not in session.turns[0].answer
