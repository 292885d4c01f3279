"""A real server on a free port of this machine, with small fake models, and real clients of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import openai
import pytest

from holo_cli.checkpoint.header import ChatFormat
from holo_cli.data.chat_format import MARK_NAMES
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.serve.server import Server
from holo_cli.serve.settings import ServeSettings
from tests.inference.inference_fakes import Attentive, ByteTokenizer, Chain, Scripted, make_loaded

SETTINGS = ServeSettings(port=0, rows=4, queue=16, max_tokens=400, grace=5)
KOREAN = "달이 뜬 밤에 토끼가 노래했다. 🐇"


class Slow(Chain):
    """Takes its time for every token, so that a test can act in between.

    Thousands of tokens are asked for where a text must not end meanwhile, however busy the machine
    is; where something has to happen before the next token, see `held`.
    """

    pause = 0.01
    go_on = threading.Event()  # set: it waits no more

    def step_hidden(self, tokens, state):  # type: ignore[no-untyped-def]
        if tokens.shape[1] == 1:
            self.go_on.wait(self.pause)
        return super().step_hidden(tokens, state)


FAKES: dict[str, Callable[[], LoadedModel]] = {
    "chain": lambda: make_loaded(Chain()),
    "attentive": lambda: make_loaded(Attentive(limit=64)),
    "korean": lambda: make_loaded(Scripted([*KOREAN.encode(), 256], 3)),
    "slow": lambda: make_loaded(Slow()),
    "chat": lambda: make_loaded(
        Attentive(limit=64, vocab=260), ByteTokenizer(MARK_NAMES), chat=ChatFormat()
    ),
}


def load(path: Path) -> LoadedModel:
    """The fake that a file is named after; as of a checkpoint, the file must be there."""
    from holo_cli.errors import CheckpointError

    if not path.exists():
        raise CheckpointError(f"The checkpoint {path.name} is gone.")
    loaded = FAKES[path.stem]()
    loaded.header.run = path.stem
    return loaded


@contextmanager
def serving(folder: Path, *names: str, **changes: object) -> Iterator[Server]:
    """A running server."""
    paths = []
    for name in names or tuple(FAKES):
        path = folder / f"{name}.safetensors"
        path.touch()
        paths.append(str(path))
    server = Server(replace(SETTINGS, **changes), paths, load)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run_until_stopped)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


def client_of(server: Server, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key=key, timeout=120, max_retries=0)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A slow model stops where it reads a single token, until this is set."""
    go_on = threading.Event()
    monkeypatch.setattr(Slow, "pause", 600.0)
    monkeypatch.setattr(Slow, "go_on", go_on)
    yield go_on
    go_on.set()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture(scope="session")
def client(server: Server) -> openai.OpenAI:
    return client_of(server)
