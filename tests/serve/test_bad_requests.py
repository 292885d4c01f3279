"""Every bad request has its status and a sentence in OpenAI's form, and disturbs nothing else."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import openai
import pytest

from holo_cli.errors import HoloError, UsageError
from holo_cli.serve.server import Server, check_address, listen
from holo_cli.serve.settings import ServeSettings
from tests.serve.conftest import client_of, load, serving

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


def ask(
    server: Server, path: str, body: bytes | dict[str, Any], method: str = "POST", **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, JSON and headers of a request, sent as it is."""
    connection = http.client.HTTPConnection(*server.socket.getsockname()[:2], timeout=120)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, headers)
    response = connection.getresponse()
    found = json.loads(response.read() or b"{}")
    connection.close()
    return response.status, found, {k.lower(): v for k, v in response.getheaders()}


MODEL = {"model": "chain"}
MESSAGES = {"messages": [{"role": "user", "content": "a"}]}
BAD: dict[str, tuple[str, bytes | dict[str, Any], int, str]] = {
    "broken": (COMPLETIONS, b'{"prompt": "a', 400, "The body is not JSON at line 1"),
    "empty": (COMPLETIONS, b"", 400, "The body is not JSON"),
    "not utf-8": (COMPLETIONS, b'{"prompt": "\xb0\xa1"}', 400, "UTF-8"),
    "a list": (COMPLETIONS, b"[]", 400, "must be a JSON object"),
    "deep": (CHAT, b"[" * 100_000, 400, "nested"),
    "no such model": (COMPLETIONS, {"model": "chian"}, 404, "Did you mean 'chain'?"),
    "prompt of another type": (COMPLETIONS, {**MODEL, "prompt": 5}, 400, "prompt must be a text"),
    "no prompts": (COMPLETIONS, {**MODEL, "prompt": []}, 400, "prompt must not be an empty list"),
    "a token too high": (COMPLETIONS, {**MODEL, "prompt": [1, 9999]}, 400, "Token 9999 is not"),
    "too long": (COMPLETIONS, {"model": "attentive", "prompt": "a" * 65}, 400, "context has 64"),
    "too long a chat": (
        CHAT,
        {"model": "attentive", "messages": [{"role": "user", "content": "a" * 65}]},
        400,
        "and the messages 65",
    ),
    "too many tokens": (COMPLETIONS, {**MODEL, "max_tokens": 401}, 400, "at most 400, not 401"),
    "too hot": (COMPLETIONS, {**MODEL, "temperature": -1}, 400, "temperature must be greater"),
    "text for a number": (COMPLETIONS, {**MODEL, "max_tokens": "9"}, 400, "max_tokens must be"),
    "no mass": (COMPLETIONS, {**MODEL, "top_p": 0}, 400, "top_p must be greater than 0"),
    "too many alternatives": (COMPLETIONS, {**MODEL, "logprobs": 99}, 400, "from 0 to 20"),
    "too many texts": (COMPLETIONS, {**MODEL, "prompt": ["a"] * 17}, 400, "at most 16 texts"),
    "suffix": (COMPLETIONS, {**MODEL, "suffix": "x"}, 400, "suffix is not supported"),
    "penalty": (COMPLETIONS, {**MODEL, "presence_penalty": 1}, 400, "is not supported"),
    "no messages": (CHAT, MODEL, 400, "messages is missing"),
    "no role": (CHAT, {**MODEL, "messages": [{"content": "a"}]}, 400, "messages.0.role is missing"),
    "a strange role": (
        CHAT,
        {**MODEL, "messages": [{"role": "robot", "content": "a"}]},
        400,
        "messages.0.role must be",
    ),
    "a picture": (
        CHAT,
        {**MODEL, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        400,
        "'image_url' is not supported",
    ),
    "tools": (CHAT, {**MODEL, **MESSAGES, "tools": [{}]}, 400, "tools is not supported"),
    "an unknown language": (COMPLETIONS, {"model": "ko", "prompt": "a"}, 404, "no model 'ko'"),
    "a large body": (COMPLETIONS, b" " * 4_000_001, 413, "larger than 4,000,000 bytes"),
    "nowhere": ("/v1/embeddings", {}, 404, "There is nothing at /v1/embeddings."),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests(server: Server, name: str) -> None:
    path, body, status, words = BAD[name]
    found, content, _ = ask(server, path, body)
    assert found == status, content
    error = content["error"]
    assert words in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


def test_a_wrong_method(server: Server) -> None:
    status, content, _ = ask(server, COMPLETIONS, b"", method="GET")
    assert (status, content["error"]["message"]) == (405, f"{COMPLETIONS} does not take GET.")


def test_the_client_sees_kinds_of_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="There is no model 'x'"):
        client.completions.create(model="x", prompt="a")
    with pytest.raises(openai.BadRequestError, match="context has 64") as told:
        client.completions.create(model="attentive", prompt="a" * 100, stream=True)
    assert told.value.code == "context_length_exceeded"


def test_another_name_for_this_machine_is_not_answered(server: Server) -> None:
    status, content, _ = ask(server, "/v1/models", b"", "GET", Host="evil.example:8000")
    assert (status, content["error"]["code"]) == (403, "wrong_host")


def test_keys(tmp_path: Path) -> None:
    with serving(tmp_path, "chain", key="secret-열쇠") as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            status, content, more = ask(server, COMPLETIONS, MODEL, **headers)
            assert (status, content["error"]["code"]) == (401, "invalid_api_key")
            assert more["www-authenticate"] == "Bearer"
        assert ask(server, "/health", b"", "GET")[0] == 200
        with pytest.raises(openai.AuthenticationError):
            client_of(server, "wrong").models.list()
    with serving(tmp_path, "chain", key="secret") as server:
        assert client_of(server, "secret").models.list().data


def test_an_address_beyond_this_machine_needs_a_key() -> None:
    with pytest.raises(UsageError, match=r"this machine only, not 0\.0\.0\.0"):
        check_address(ServeSettings(host="0.0.0.0"))
    check_address(ServeSettings(host="0.0.0.0", key="k"))


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HoloError, match=f"Port {port} is in use"):
            Server(ServeSettings(port=port), [str(tmp_path)], load)
    with pytest.raises(HoloError, match=r"The address 203\.0\.113\.1 cannot be opened"):
        listen(ServeSettings(host="203.0.113.1", port=0))
