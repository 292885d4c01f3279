"""A conversation: kept state, turns dropped and retried, options, saving, breaking off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from holo_cli.errors import HoloError, UsageError
from holo_cli.inference.chat import conversation as conversation_module
from holo_cli.inference.chat.conversation import Turn, encode_turns
from holo_cli.inference.chat.session import ChatSession
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.models.vanilla.config import Config
from holo_cli.models.vanilla.model import Modern
from tests.inference.inference_fakes import Attentive, ByteTokenizer, Chain, Scripted, make_loaded

MARKED = ByteTokenizer(["<|en|>", "<|ko|>"])
NEWLINE = [10]


def say(session: ChatSession, text: str) -> str:
    return "".join(session.reply(text))


def chain() -> LoadedModel:
    return make_loaded(Chain())


def attentive(limit: int = 64, **data: object) -> LoadedModel:
    return make_loaded(Attentive(vocab=262, limit=limit), MARKED, **data)


def session_of(loaded: LoadedModel, system: str = "", **options: object) -> ChatSession:
    options = {"seed": 1, "max_new_tokens": 8} | options
    return ChatSession(loaded, SamplingConfig.from_options(options), system)


def answers(session: ChatSession) -> list[str]:
    return [turn.answer for turn in session.turns]


# -- the template ---------------------------------------------------------------------------------


def test_template() -> None:
    form = make_loaded(Chain(), MARKED).prompts
    first = Turn("ab", user_ids=(1, 2), answer_ids=(3,))
    second = Turn("cd", user_ids=(4,))
    assert encode_turns(form, "", [first]) == [1, 2, 3]
    assert encode_turns(form, "", [first, second]) == [1, 2, 3, *NEWLINE, 4]
    assert encode_turns(form, "sys", [second]) == [*b"sys", *NEWLINE, 4]
    assert encode_turns(form, "", [Turn("?")]) == NEWLINE  # nothing of it is in the alphabet


def test_a_new_language_starts_like_a_new_document() -> None:
    form = make_loaded(Chain(), MARKED, markers=True, documents=9).prompts
    english = Turn("a", language="en", user_ids=(1,), answer_ids=(2,))
    korean = Turn("나", language="ko", user_ids=(3,), answer_ids=(4,))
    found = encode_turns(form, "s", [english, english, korean, korean])
    wanted = [256, 257, *b"s\n", 1, 2, 10, 1, 2, 256, 258, 3, 4, 10, 3, 4]
    assert found == wanted
    assert encode_turns(form, "s", [korean])[:4] == [256, 258, *b"s\n"]


def test_languages_of_turns() -> None:
    session = session_of(attentive(markers=True))
    for text in ("hi", "안녕", "1 + 1", "ok"):
        say(session, text)
    assert [turn.language for turn in session.turns] == ["en", "ko", "ko", "en"]
    session.set_lang("ko")
    say(session, "hi")
    assert session.turns[-1].language == "ko"
    with pytest.raises(UsageError, match="language 'xx'"):
        session.set_option("lang", "xx")


# -- state kept between turns ---------------------------------------------------------------------


@pytest.mark.parametrize("limit", [48, 64, 1000])
def test_kept_state_equals_reading_everything_again(limit: int) -> None:
    """Also where turns are dropped and where an answer slides out of the context."""
    kept, fresh = (session_of(attentive(limit), max_new_tokens=30) for _ in range(2))
    for number in range(8):
        fresh._caches = []
        text = f"text {number} " * (number % 3 + 1)
        assert say(kept, text) == say(fresh, text)
    assert answers(kept) == answers(fresh)


def test_only_new_tokens_are_read() -> None:
    session = session_of(chain())
    assert isinstance(session.loaded.model, Chain)
    say(session, "hello")
    session.loaded.model.tokens_read = 0
    say(session, "you")
    # the last token of the answer was not read yet; then the line end, the text, and the decoding
    assert session.statistics.read_tokens == 1 + 1 + 3
    assert session.loaded.model.tokens_read == 1 + 1 + 3 + 7


def test_answer_is_what_generate_gives() -> None:
    loaded = chain()
    session = ChatSession(loaded, SamplingConfig(temperature=0, max_new_tokens=20))
    assert say(session, "hello") == loaded.generate("hello", temperature=0, max_new_tokens=20)
    assert session.turns[0].finish == "length"


# -- history and the context ----------------------------------------------------------------------


def test_oldest_turns_are_dropped_whole_and_the_system_stays() -> None:
    session = session_of(attentive(64), system="SYS", max_new_tokens=8)
    for number in range(12):
        say(session, f"turn {number:02}.")
        dropped = session.statistics.dropped_turns
        seen = encode_turns(session.loaded.prompts, "SYS", session.turns[dropped:])
        assert seen[:4] == [*b"SYS\n"]
        assert len(seen) <= 64
        assert session.statistics.context_used == len(seen)
    assert session.statistics.dropped_turns == 9  # 3 of 16 tokens beside 4 of the system
    assert len(session.turns) == 12  # what was dropped from the context is still in the record


def test_as_many_turns_as_fit_are_kept() -> None:
    session = session_of(attentive(64), max_new_tokens=8)
    for _ in range(10):
        say(session, "a" * 7)
        used, dropped = session.statistics.context_used, session.statistics.dropped_turns
        assert not dropped or used + 16 > 64 - 16
    assert session.statistics.dropped_turns == 6


def test_a_long_conversation_is_not_encoded_once_for_each_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = session_of(attentive(64), max_new_tokens=8)
    say(session, "a" * 7)
    session.turns *= 500
    calls = []

    def counted(*given: Any) -> list[int]:
        calls.append(len(given[2]))
        return encode_turns(*given)

    monkeypatch.setattr("holo_cli.inference.chat.session.encode_turns", counted)
    say(session, "a" * 7)
    assert session.statistics.dropped_turns == 497
    assert len(calls) < 10
    assert max(calls) < 10


def test_a_text_longer_than_the_context_loses_its_beginning() -> None:
    session = session_of(attentive(32), system="SYS", max_new_tokens=8)
    say(session, "x" * 100 + "the end")
    assert session.statistics.cut
    ids = encode_turns(session.loaded.prompts, "SYS", session.turns)
    assert bytes(ids[:24]) == b"SYS\n" + b"x" * 13 + b"the end"
    assert session.turns[0].user == "x" * 100 + "the end"
    say(session, "short")
    assert not session.statistics.cut


def test_system_text_may_not_fill_the_context() -> None:
    with pytest.raises(UsageError, match=r"has 9 tokens, but at most 8 of.*context of 32"):
        session_of(attentive(32), system="s" * 9)
    session_of(chain(), system="s" * 1000)  # no limit


def test_no_limit_drops_nothing() -> None:
    session = session_of(make_loaded(Scripted([], prompt=0)))
    for _ in range(20):
        say(session, "a" * 50)
    assert session.statistics.dropped_turns == 0
    assert session.statistics.context_used == 20 * (50 + 8) + 19


# -- retry, seeds, stopping -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [chain, attentive])
def test_retry_replaces_the_last_answer(make: Callable[[], LoadedModel]) -> None:
    session = session_of(make(), max_new_tokens=12, temperature=3)
    first = say(session, "one")
    second = say(session, "two")
    again = "".join(session.retry())
    assert again != second
    assert answers(session) == [first, again]
    assert session.statistics.read_tokens == 0  # the state before the answer was kept
    session.sampling = SamplingConfig(temperature=0, max_new_tokens=12)
    greedy = "".join(session.retry())
    assert greedy == "".join(session.retry())
    fresh = ChatSession(make(), session.sampling)
    fresh.turns = session.turns[:1]
    assert greedy == say(fresh, "two")


def test_seeded_conversations_repeat() -> None:
    first, second = session_of(chain()), session_of(chain())
    for session in (first, second):
        say(session, "a")
        say(session, "a")
        list(session.retry())
    assert answers(first) == answers(second)
    other = session_of(chain(), seed=3)
    assert say(other, "a") != answers(first)[0]


@pytest.mark.parametrize("how", ["closed", "interrupted"])
def test_an_answer_broken_off_is_kept_as_far_as_shown(how: str) -> None:
    script = "가나다라마바사"
    loaded = make_loaded(Scripted([*script.encode()], prompt=2))
    model = loaded.model
    session = session_of(loaded, max_new_tokens=100, temperature=0)
    pieces = session.reply("hi")
    shown = [next(pieces), next(pieces)]
    if how == "closed":
        pieces.close()
    else:
        model.step_hidden = _interrupt  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            next(pieces)
        del model.step_hidden
    turn = session.turns[0]
    assert (turn.answer, turn.finish) == ("가나", "stopped")
    assert "".join(shown) == "가나"
    assert list(turn.answer_ids) == [*"가나".encode()]
    say(session, "and on")
    assert len(session.turns) == 2


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_after_an_interruption_the_conversation_equals_one_read_anew() -> None:
    session = session_of(attentive(), max_new_tokens=20)
    pieces = session.reply("one")
    next(pieces)
    pieces.close()
    fresh = session_of(attentive(), max_new_tokens=20)
    fresh.turns, fresh._answers = list(session.turns), 1
    assert say(session, "two") == say(fresh, "two")


def test_a_stop_string_leaves_the_history_clean() -> None:
    loaded = make_loaded(Scripted([*b"fine.\nUSER: and"], prompt=2))
    session = session_of(loaded, stop="\nUSER:", max_new_tokens=50, temperature=0)
    assert say(session, "hi") == "fine."
    assert list(session.turns[0].answer_ids) == [*b"fine."]
    assert session.turns[0].finish == "stop"


def test_nothing_to_answer() -> None:
    session = session_of(chain())
    with pytest.raises(UsageError, match="text is empty"):
        session.reply(" \n ")
    with pytest.raises(UsageError, match="no answer to retry"):
        session.retry()


# -- options --------------------------------------------------------------------------------------


def test_options() -> None:
    session = ChatSession(chain(), SamplingConfig(num_samples=4))
    assert session.sampling.num_samples == 1
    session.set_option("max-new-tokens", "3")
    say(session, "a")
    assert session.statistics.tokens == 3
    with pytest.raises(UsageError, match="--top-p"):
        session.set_option("top-p", "2")
    with pytest.raises(UsageError, match="one answer at a time"):
        session.set_option("num-samples", "2")
    assert session.sampling.top_p == 1


def test_clear_forgets_turns_and_keeps_the_rest() -> None:
    session = session_of(chain(), system="s")
    first = say(session, "a")
    session.clear()
    assert (session.turns, session.context_used(), session.state_bytes()) == ([], 0, 0)
    assert session.system == "s"
    assert say(session, "a") == first  # seeds begin anew as well


# -- saving ---------------------------------------------------------------------------------------


def test_save_and_load(tmp_path: Path) -> None:
    session = session_of(attentive(markers=True), system="짧게")
    say(session, "안녕 👋")
    say(session, 'and "you"?\nwell')
    path = session.save(tmp_path / "talk")
    assert path == tmp_path / "talk.json"
    text = path.read_text(encoding="utf-8")
    assert "안녕 👋" in text
    assert json.loads(text)["model"] == "fake"
    session.save(path)  # over itself

    other = session_of(attentive(markers=True))
    other.load(tmp_path / "talk")
    assert other.system == "짧게"
    for new, old in zip(other.turns, session.turns, strict=True):
        assert (new.user, new.answer, new.language) == (old.user, old.answer, old.language)


def test_loading_goes_on_as_the_saved_conversation_would(tmp_path: Path) -> None:
    loaded = make_loaded(Scripted([*"알았어".encode(), 256], prompt=3))
    session = session_of(loaded, temperature=0)
    say(session, "one")
    other = session_of(loaded, temperature=0)
    other.load(session.save(tmp_path / "a.json"))
    assert other.turns == session.turns


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON in UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "lacks the key"),
        (b"{}", "lacks the key"),
        (b'{"holo_conversation": 9}', "newer version of holo"),
        (b'{"holo_conversation": 1}', "system text"),
        (b'{"holo_conversation": 1, "system": ""}', "no list of turns"),
        (b'{"holo_conversation": 1, "system": "", "turns": [3]}', "turn 1 is not an object"),
        (b'{"holo_conversation": 1, "system": "", "turns": [{"user": 3}]}', "turn 1 lacks"),
        (b'{"holo_conversation": 1, "system": "", "turns": [{"answer": "a"}]}', "turn 1 lacks"),
        (b'{"holo_conversation": 1, "system": "", "lang": "xx", "turns": []}', "language 'xx'"),
    ],
)
def test_damaged_files_change_nothing(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    session = session_of(attentive(markers=True), system="s")
    say(session, "a")
    before = list(session.turns)
    with pytest.raises(HoloError, match=words):
        session.load(path)
    assert (session.turns, session.system, session.lang) == (before, "s", None)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    session = session_of(chain())
    with pytest.raises(HoloError, match="no conversation file"):
        session.load(tmp_path / "none.json")
    with pytest.raises(HoloError, match="is a folder"):
        session.load(tmp_path)
    mine = tmp_path / "notes.json"
    mine.write_text('{"my": "notes"}', encoding="utf-8")
    with pytest.raises(HoloError, match="not overwritten"):
        session.save(mine)
    assert mine.read_text(encoding="utf-8") == '{"my": "notes"}'


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(chain())
    path = session.save(tmp_path / "a.json")
    old = path.read_bytes()
    say(session, "more")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversation_module, "atomic_write_json", full)
    with pytest.raises(HoloError, match=r"could not be written.*No space left"):
        session.save(path)
    assert path.read_bytes() == old


# -- the suffix memory of a model -----------------------------------------------------------------


def proposing(limit: int = 48) -> LoadedModel:
    """A model that writes what followed the same bytes before."""
    torch.manual_seed(0)
    keys = {"vocab_size": 262, "layers": 1, "heads": 2, "width": 32, "context": limit}
    model = Modern(Config.model_validate({**keys, "suffix": True, "soft_cap": 0}))
    assert model.suffix is not None
    model.suffix.bias.data.fill_(50.0)
    torch.nn.init.normal_(model.embedding.token.weight)
    return make_loaded(model.eval())


def test_a_suffix_memory_recalls_dropped_turns(tmp_path: Path) -> None:
    session = session_of(proposing(), temperature=0, max_new_tokens=4)
    assert session.memory.saved.on
    said = "name=zorb"
    say(session, said)
    for number in range(4):
        say(session, f"{number}" * 12)
    assert session.statistics.dropped_turns >= 1
    assert say(session, "name=") == "zorb"
    assert session.statistics.dropped_turns >= 2
    # the state is kept while the same can be recalled
    session.memory.set_on(False)
    assert "".join(session.retry()) != "zorb"
    session.memory.set_on(True)
    assert "".join(session.retry()) == "zorb"
    path = session.memory.save(tmp_path / "kept", session.turns)
    session.memory.clear(len(session.turns))
    assert "".join(session.retry()) != "zorb"
    other = session_of(session.loaded, temperature=0, max_new_tokens=4)
    assert say(other, "name=") != "zorb"
    other.memory.load(path)
    assert "".join(other.retry()) == "zorb"
