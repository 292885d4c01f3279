"""The chat's commands, in both languages, and what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holo_cli.errors import UsageError
from holo_cli.inference.chat.commands import COMMANDS, CommandOutcome, parse_command, plain_text
from holo_cli.inference.chat.session import ChatSession
from holo_cli.inference.generation.sampling import SamplingConfig
from tests.inference.inference_fakes import Attentive, Chain, make_loaded


@pytest.fixture
def session() -> ChatSession:
    return ChatSession(make_loaded(Chain()), SamplingConfig(max_new_tokens=5, seed=1))


def run(session: ChatSession, line: str) -> CommandOutcome:
    parsed = parse_command(line)
    assert parsed is not None
    command, argument = parsed
    return command.run(session, argument)


@pytest.mark.parametrize("line", ["hello", "", "1/2", "//path", "and /help"])
def test_text_is_no_command(line: str) -> None:
    assert parse_command(line) is None


def test_doubled_slash_is_text() -> None:
    assert plain_text("//etc/hosts") == "/etc/hosts"
    assert plain_text("a//b") == "a//b"


def test_both_languages_name_every_command() -> None:
    english = [c.name for c in COMMANDS]
    korean = [c.korean for c in COMMANDS]
    assert " ".join(english) == "help clear set show save load retry system memory exit"
    assert " ".join(korean) == "도움말 지우기 설정 보기 저장 불러오기 다시 시스템 기억 종료"
    for name, alias in zip(english, korean, strict=True):
        assert parse_command(f"/{name}") == parse_command(f" /{alias} ")
        assert parse_command(f"/{name.upper()}") == parse_command(f"/{name}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/hepl", "no command '/hepl'. Did you mean 'help'"),
        ("/나가기", "no command '/나가기'. Known: 기억, 다시"),
        ("/", "no command '/'"),
        ("/exit now", "/exit takes no argument"),
    ],
)
def test_wrong_commands(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_command(line)


def test_help_lists_all(session: ChatSession) -> None:
    message = run(session, "/help").message
    assert all(f"/{c.name}" in message and f"/{c.korean}" in message for c in COMMANDS)


def test_set_and_show(session: ChatSession) -> None:
    assert "temperature 0.3" in run(session, "/set temperature 0.3").message
    assert "top-k 4" in run(session, "/설정 top_k=4").message
    assert (session.sampling.temperature, session.sampling.top_k) == (0.3, 4)
    assert "settings: " in run(session, "/set").message
    assert "span-penalty 0.0" in run(session, "/show").message
    assert "span-penalty 0.8" in run(session, "/set temperature 0").message  # the default of greedy
    run(session, "/set temperature 0.3")
    assert "None" not in run(session, "/show").message
    message = run(session, "/show").message
    for words in ("fake", "step 7", "base model", "0 tokens (unlimited)", "system: (none)"):
        assert words in message
    with pytest.raises(UsageError, match="Did you mean 'temperature'"):
        run(session, "/set temprature 1")


def test_clear_and_retry(session: ChatSession) -> None:
    list(session.reply("a"))
    pieces = run(session, "/retry").pieces
    assert isinstance(pieces, Iterator)
    assert "".join(pieces) == session.turns[-1].answer
    assert len(session.turns) == 1
    run(session, "/clear")
    assert session.turns == []


def test_system(session: ChatSession) -> None:
    assert run(session, "/system Be brief.").message == "system: Be brief."
    assert run(session, "/system").message == "system: Be brief."
    assert run(session, '/system ""').message == "system: (none)"


def test_save_and_load(session: ChatSession, tmp_path: Path) -> None:
    list(session.reply("a"))
    assert run(session, f"/save {tmp_path}/my talk").message == f"Saved to {tmp_path}/my talk.json."
    run(session, "/clear")
    assert "Loaded 1 turn from" in run(session, f"/load {tmp_path}/my talk").message
    assert session.turns[0].user == "a"
    for line in ("/save", "/load"):
        with pytest.raises(UsageError, match=f"{line} needs a file name"):
            run(session, line)


def test_memory(session: ChatSession, monkeypatch: pytest.MonkeyPatch) -> None:
    message = run(session, "/memory").message
    assert message.startswith("state: 0 bytes")
    assert "memory: off\ncan be recalled: 0 turns outside the context, 0 loaded texts" in message
    limited = ChatSession(make_loaded(Attentive(limit=32)))
    assert "the last 32 tokens" in run(limited, "/기억").message
    assert "memory: on" in run(session, "/memory on").message
    assert "memory: off" in run(session, "/memory off").message
    monkeypatch.setattr(Chain, "has_memory", True)
    remembers = ChatSession(session.loaded, SamplingConfig(max_new_tokens=5, seed=1))
    list(remembers.reply("a"))
    message = run(remembers, "/memory").message
    assert "state: 8 bytes" in message
    assert "memory: on" in message


def test_memory_files(session: ChatSession, tmp_path: Path) -> None:
    list(session.reply("a"))
    assert run(session, f"/memory save {tmp_path}/m").message == f"Saved to {tmp_path}/m.json."
    loaded = run(session, f"/memory load {tmp_path}/m").message
    assert (
        loaded
        == f"Loaded 1 text from {tmp_path}/m.\nThe memory is off. Turn it on with: /memory on"
    )
    assert "1 loaded text" in run(session, "/memory").message
    assert "0 loaded texts" in run(session, "/memory clear").message
    assert len(session.turns) == 1
    for line in ("/memory save", "/memory load"):
        with pytest.raises(UsageError, match=f"{line} needs a file name"):
            run(session, line)
    for line in ("/memory forget", "/memory on x"):
        with pytest.raises(UsageError, match="has no action"):
            run(session, line)


def test_exit(session: ChatSession) -> None:
    assert run(session, "/종료").leave
