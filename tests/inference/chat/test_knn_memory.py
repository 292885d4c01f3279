"""kNN memory of a conversation: recalls earlier text only when it is close, in one conversation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from holo_cli.errors import HoloError
from holo_cli.inference.chat import conversation_memory
from holo_cli.inference.chat.conversation_memory import (
    encoded,
    read_memory,
    recall_from,
    write_memory,
)
from holo_cli.inference.chat.knn_memory import (
    MAX_GATE,
    MAX_SEGMENTS,
    SEGMENT_TOKENS,
    KNNMemory,
    Neighbours,
    normalized,
)
from holo_cli.inference.chat.session import ChatSession
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.generation.sampling import SamplingConfig
from tests.inference.inference_fakes import Attentive, Chain, make_loaded

SECRET = "the name is zorblax"


def chain(seed: int = 0) -> LoadedModel:
    return make_loaded(Chain(seed=seed, sharpness=1.0))


def plain_chain() -> LoadedModel:
    """A chain that writes ASCII only: text is saved, and half a character would not come back."""
    loaded = chain()
    with torch.no_grad():
        loaded.model.head.weight[128:] = 0
    return loaded


def session_of(loaded: LoadedModel, on: bool = True, tokens: int = 8) -> ChatSession:
    session = ChatSession(loaded, SamplingConfig(temperature=0, max_new_tokens=tokens))
    session.memory.set_on(on)
    return session


def say(session: ChatSession, text: str) -> str:
    return "".join(session.reply(text))


# -- kNN memory -----------------------------------------------------------------------------------


def test_stored_text_is_recalled() -> None:
    """`Chain` sees two tokens: after 'zo' of a stored text its hidden state is the stored one."""
    memory = KNNMemory(chain().engine)
    neighbours = memory.neighbours([SECRET.encode()], b"zo")
    assert neighbours is not None
    prefix = chain().engine.prefill(list(b"xx zo"))
    before = prefix.logits.softmax(1)[0, ord("r")]
    after = neighbours.mix(prefix.logits, prefix.hidden).exp()
    assert after.sum() == pytest.approx(1, abs=1e-5)
    assert after[0, ord("r")] > 0.9 * MAX_GATE > before
    assert (neighbours.mixed_steps, neighbours.steps) == (1, 1)


def test_a_memory_without_close_keys_changes_nothing() -> None:
    torch.manual_seed(0)
    keys = torch.nn.functional.normalize(torch.randn(20, 64), dim=1)
    neighbours = Neighbours(keys, torch.arange(20), torch.zeros(64))
    logits, hidden = torch.randn(3, 30), torch.randn(3, 64)
    assert torch.equal(neighbours.mix(logits, hidden), logits.log_softmax(1))
    assert (neighbours.mixed_steps, neighbours.steps) == (0, 3)


def test_mixing_is_the_formula() -> None:
    torch.manual_seed(0)
    keys, following = normalized(torch.randn(5, 6)), torch.tensor([1, 2, 1, 0, 3])
    centre, hidden, logits = torch.randn(6), torch.randn(2, 6), torch.randn(2, 7)
    hidden[0] = keys[0] * 3 + 0.2 * torch.randn(6) + centre
    mixed = Neighbours(keys, following, centre).mix(logits, hidden).exp()
    for row in range(2):
        h = hidden[row] - centre
        cosine = [float(h @ k / h.norm()) for k in keys]
        weight = torch.tensor([c / 0.05 for c in cosine]).exp()
        store = torch.zeros(7)
        for w, token in zip(weight / weight.sum(), following.tolist(), strict=True):
            store[token] += w
        gate = 0.6 * min(1.0, max(0.0, (max(cosine) - 0.6) / 0.35))
        torch.testing.assert_close(mixed[row], (1 - gate) * logits[row].softmax(0) + gate * store)


def test_the_nearest_episodes_are_asked() -> None:
    memory = KNNMemory(chain().engine)
    texts = [bytes([65 + i]) * 20 for i in range(20)]
    neighbours = memory.neighbours(texts, b"E" * 9)
    assert neighbours is not None
    assert len(neighbours.next_tokens) == 19 * MAX_SEGMENTS
    assert ord("E") in neighbours.next_tokens
    assert memory.neighbours([], b"E") is None
    assert memory.neighbours([b"x"], b"E") is None  # nothing follows its only token


def test_long_texts_become_several_episodes_and_are_read_once() -> None:
    model = Attentive(limit=100)
    memory = KNNMemory(make_loaded(model).engine)
    text = bytes(range(65, 90)) * 10
    segments = memory.segments(text)
    assert [len(s.next_tokens) for s in segments] == [
        SEGMENT_TOKENS,
        SEGMENT_TOKENS,
        SEGMENT_TOKENS,
        57,
    ]
    assert bytes(torch.cat([s.next_tokens for s in segments]).tolist()) == text[1:]
    read = model.tokens_read
    memory.segments(text)
    assert model.tokens_read == read


# -- in a conversation ----------------------------------------------------------------------------


def test_a_turn_outside_the_context_is_recalled() -> None:
    """Out of context for a model with one; with none, further back than it was trained to look."""
    model = Attentive(limit=48)
    session = session_of(make_loaded(model))
    say(session, SECRET)
    assert session.memory.last is None
    for _ in range(3):
        say(session, "and so on and on")
    assert session.turns_outside_context() > 0
    assert session.memory.last is not None
    endless = session_of(chain())
    say(endless, SECRET)
    say(endless, "more")
    assert endless.turns_outside_context() == 0  # `model.context` is 256
    for _ in range(20):
        say(endless, "filler filler")
    assert endless.turns_outside_context() > 0
    recalled = say(endless, "zo")
    assert recalled.startswith("rblax")
    endless.memory.set_on(False)
    assert not "".join(endless.retry()).startswith("rblax")
    endless.memory.set_on(True)
    assert "".join(endless.retry()) == recalled


def test_conversations_never_share_a_memory() -> None:
    loaded = chain()
    first, second = session_of(loaded), session_of(loaded)
    for _ in range(25):
        say(first, SECRET)
    assert first.memory.last is not None
    assert say(second, "zo") == say(session_of(loaded, on=False), "zo")
    assert second.memory.last is None


def test_nothing_is_written_into_the_weights() -> None:
    loaded = chain()
    before = {k: v.clone() for k, v in loaded.model.state_dict().items()}
    session = session_of(loaded)
    for _ in range(25):
        say(session, SECRET)
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_clear_lets_go_and_the_conversation_stays() -> None:
    session = session_of(chain())
    for _ in range(25):
        say(session, SECRET)
    assert session.turns_outside_context() > 0
    session.memory.clear(len(session.turns))
    assert session.turns_outside_context() == 0
    assert len(session.turns) == 25
    say(session, "zo")
    assert session.memory.last is None


def test_it_is_saved_and_loaded_with_the_conversation(tmp_path: Path) -> None:
    loaded = plain_chain()
    session = session_of(loaded)
    for _ in range(25):
        say(session, SECRET)
    session.memory.load(session.memory.save(tmp_path / "m", session.turns[:3]))
    session.memory.set_on(True)
    path = session.save(tmp_path / "talk")
    other = session_of(loaded, on=False)
    other.load(path)
    assert other.memory.saved == session.memory.saved
    assert len(other.memory.saved.texts) == 3
    assert other.turns_outside_context() > 0
    assert say(other, "zo") == say(session, "zo") == "rblax" + session.turns[-1].answer[5:]
    other.clear()
    assert other.memory.saved.texts == ()


def test_a_conversation_saved_without_a_memory_loads(tmp_path: Path) -> None:
    session = session_of(chain())
    say(session, "a")
    path = session.save(tmp_path / "talk")
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["memory"]
    path.write_text(json.dumps(content), encoding="utf-8")
    session.load(path)
    assert session.memory.saved == conversation_memory.SavedMemory(on=False)
    for bad in ([], {"on": 1}, {"on": True, "cleared": 9, "texts": []}, {"on": True, "cleared": 0}):
        path.write_text(json.dumps(content | {"memory": bad}), encoding="utf-8")
        with pytest.raises(HoloError, match="invalid memory"):
            session.load(path)
    assert len(session.turns) == 1


def test_generate_draws_on_a_memory() -> None:
    loaded = chain()
    config = SamplingConfig(temperature=0, max_new_tokens=5)
    mixers = [recall_from(loaded, encoded(loaded, given), "zo") for given in ((), (SECRET,))]
    texts = [list(loaded.write("zo", config, mixer=mixer)) for mixer in mixers]
    plain, drawn = ("".join(piece.text for piece in pieces) for pieces in texts)
    assert drawn == "rblax"
    assert plain != drawn


# -- files ----------------------------------------------------------------------------------------


def test_a_memory_file_of_another_model_is_refused(tmp_path: Path) -> None:
    path = write_memory(tmp_path / "m", chain(), [SECRET, "둘"])
    assert read_memory(path, chain()) == [SECRET, "둘"]
    assert read_memory(tmp_path / "m", chain()) == [SECRET, "둘"]
    session = session_of(chain(seed=1))
    with pytest.raises(HoloError, match=r"checkpoint fake \(run, step 7\), but this one is fake"):
        session.memory.load(path)
    assert session.memory.saved.texts == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON in UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "lacks the key"),
        (b'{"holo_conversation": 1}', "lacks the key"),
        (b'{"holo_memory": true}', "lacks the key"),
        (b'{"holo_memory": 9}', "newer version of holo"),
        (b'{"holo_memory": 1}', "no list of texts"),
        (b'{"holo_memory": 1, "texts": [""]}', "no list of texts"),
        (b'{"holo_memory": 1, "texts": [3]}', "no list of texts"),
        (b'{"holo_memory": 1, "texts": ["a"]}', "was saved with the checkpoint"),
    ],
)
def test_damaged_files_change_nothing(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    session = session_of(chain())
    say(session, "a")
    saved = session.memory.saved
    with pytest.raises(HoloError, match=words):
        session.memory.load(path)
    assert session.memory.saved == saved
    assert path.read_bytes() == content


def test_files_that_cannot_be_read_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(chain())
    with pytest.raises(HoloError, match="no memory file"):
        session.memory.load(tmp_path / "none")
    with pytest.raises(HoloError, match="is a folder"):
        session.memory.load(tmp_path)
    talk = session.save(tmp_path / "talk.json")
    with pytest.raises(HoloError, match="not overwritten"):
        session.memory.save(talk, [])
    path = session.memory.save(tmp_path / "m", [])
    old = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversation_memory, "atomic_write_json", full)
    with pytest.raises(HoloError, match=r"could not be written.*No space left"):
        session.memory.save(path, [])
    assert path.read_bytes() == old
