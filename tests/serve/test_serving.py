"""Many clients at once, clients that leave, a full queue, the end of the server, several models."""

from __future__ import annotations

import gc
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from holo_cli.serve.rows import BatchRow, GenerationJob
from holo_cli.serve.scheduler import Served
from holo_cli.serve.server import Server
from tests.serve.conftest import FAKES, client_of, serving
from tests.serve.test_bad_requests import ask

PATIENCE = 60.0  # seconds for what takes milliseconds on a machine that has nothing else to do
ENDLESS = 20_000  # tokens of a slow model: minutes


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def idle(server: Server) -> bool:
    return server.scheduler.running == 0 and server.scheduler.waiting == 0


def test_many_clients_get_each_their_own_text(tmp_path: Path) -> None:
    prompts = [f"{'x' * (n % 7)}{n}" for n in range(36)]
    models = ["chain", "attentive"]
    with serving(tmp_path, *models, rows=8, queue=100) as server:
        client = client_of(server)

        def one(n: int) -> str:
            stream = client.completions.create(
                model=models[n % 2], prompt=prompts[n], max_tokens=5 + n % 20, temperature=0,
                stream=True,
            )  # fmt: skip
            return "".join(chunk.choices[0].text for chunk in stream)

        with ThreadPoolExecutor(20) as pool:
            said = list(pool.map(one, range(len(prompts))))
        counts = [entry.served.batch.counts for entry in server.pool.entries.values()]  # type: ignore[union-attr]
    loaded = {name: FAKES[name]() for name in models}
    for n, text in enumerate(said):
        assert text == loaded[models[n % 2]].generate(
            prompts[n], max_new_tokens=5 + n % 20, temperature=0, span_penalty=0.0
        )
    assert all(found.rows_read > found.passes for found in counts)  # some were computed together


def test_a_full_queue(tmp_path: Path, held: threading.Event) -> None:
    with serving(tmp_path, "slow", rows=1, queue=2) as server:
        body = {"prompt": ["aa", "bb"], "max_tokens": 5}
        first = threading.Thread(target=ask, args=(server, "/v1/completions", body))
        first.start()
        wait_until(lambda: (server.scheduler.running, server.scheduler.waiting) == (1, 1))
        status, content, headers = ask(server, "/v1/completions", body)
        assert (status, content["error"]["code"]) == (429, "queue_full")
        assert content["error"]["type"] == "rate_limit_error"
        assert 1 <= int(headers["retry-after"]) <= 60
        held.set()
        first.join()


def test_a_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    with serving(tmp_path, "slow", rows=1, queue=2, max_tokens=ENDLESS) as server:
        for stream in ("true", "false"):
            body = b'{"prompt": "a", "max_tokens": %d, "stream": %s}' % (ENDLESS, stream.encode())
            with socket.create_connection(server.socket.getsockname()[:2]) as leaving:
                head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d"
                leaving.sendall(head % len(body) + b"\r\n\r\n" + body)
                wait_until(lambda: server.scheduler.running == 1)
            wait_until(lambda: idle(server))  # all of it would take longer than that waits
        wait_until(lambda: server.service.metrics.disconnected == 2)
        assert next(iter(server.pool.entries.values())).busy == 0


def test_clients_take_turns(
    tmp_path: Path, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One client's many texts do not delay another's one: it is the second to be read of them."""
    with serving(tmp_path, "slow", rows=1, queue=100) as server:
        served = server.pool.entries["slow"].served
        assert served is not None
        admit, order = served.batch.admit, []

        def noting(row: BatchRow) -> None:
            order.append(chr(row.ids[0]))
            admit(row)

        monkeypatch.setattr(served.batch, "admit", noting)
        threads = []
        for user, prompts, waiting in (("many", ["aa"] * 20, 19), ("one", ["bb"], 20)):
            body = {"prompt": prompts, "max_tokens": 8, "user": user}
            threads.append(threading.Thread(target=ask, args=(server, "/v1/completions", body)))
            threads[-1].start()
            wait_until(lambda waiting=waiting: server.scheduler.waiting == waiting)
        held.set()
        for thread in threads:
            thread.join()
    assert len(order) == 21
    assert order.index("b") <= 2


def test_stopping_finishes_what_runs_and_refuses_what_waits(
    tmp_path: Path, held: threading.Event
) -> None:
    answers = {}

    def one(server: Server, name: str) -> None:
        answers[name] = ask(server, "/v1/completions", {"prompt": "aa", "max_tokens": 60})

    with serving(tmp_path, "slow", rows=1, queue=5, grace=60) as server:
        threads = [threading.Thread(target=one, args=(server, n)) for n in ("runs", "waits")]
        threads[0].start()
        wait_until(lambda: server.scheduler.running == 1)
        threads[1].start()
        wait_until(lambda: server.scheduler.waiting == 1)
        server.stop()
        wait_until(lambda: server.scheduler.closing)
        held.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert answers["runs"][0] == 200
    assert answers["runs"][1]["usage"]["completion_tokens"] == 60
    assert (answers["waits"][0], answers["waits"][1]["error"]["code"]) == (503, "shutting_down")


def test_a_checkpoint_that_goes_disturbs_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, "chain", "attentive") as server:
        (tmp_path / "chain.safetensors").unlink()
        client = client_of(server)
        assert client.completions.create(model="chain", prompt="a").choices


def test_a_memory_budget(tmp_path: Path) -> None:
    """Room for one: the other is loaded when it is asked for, and its file may be gone by then."""
    one = max(
        sum(p.numel() * p.element_size() for p in FAKES[name]().model.parameters())
        for name in ("chain", "slow")
    )
    with serving(tmp_path, "chain", "slow", budget=one + 100, max_tokens=ENDLESS) as server:
        client = client_of(server)
        loaded = lambda: [m.id for m in client.models.list() if m.model_dump()["holo"]["loaded"]]  # noqa: E731
        assert loaded() == ["chain"]
        assert client.completions.create(model="slow", prompt="a", max_tokens=2).choices
        assert loaded() == ["slow"]
        with client.completions.create(
            model="slow", prompt="a", max_tokens=ENDLESS, stream=True
        ) as stream:
            next(iter(stream))
            with pytest.raises(openai.InternalServerError, match="models is in use"):
                client.completions.create(model="chain", prompt="a")
        wait_until(lambda: idle(server))
        (tmp_path / "chain.safetensors").unlink()
        wait_until(lambda: server.pool.entries["slow"].busy == 0)
        with pytest.raises(openai.InternalServerError, match="is gone"):
            client.completions.create(model="chain", prompt="a")


def test_nothing_is_kept_of_an_answered_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is freed at once, not when the collector of cycles next runs."""
    seen: list[weakref.ref[BatchRow]] = []
    with serving(tmp_path, "chain") as server:
        submit = server.scheduler.submit

        def noting(job: GenerationJob, served: Served) -> None:
            seen.extend(weakref.ref(row) for row in job.rows)
            submit(job, served)

        monkeypatch.setattr(server.scheduler, "submit", noting)
        gc.disable()
        try:
            for _ in range(3):
                ask(server, "/v1/completions", {"prompt": ["a", "b"], "max_tokens": 3, "n": 2})
            wait_until(lambda: sum(ref() is not None for ref in seen) <= 1)
        finally:
            gc.enable()
    assert len(seen) == 12


def test_metrics_are_prometheus_text(server: Server, client: openai.OpenAI) -> None:
    client.completions.create(model="chain", prompt="abc", max_tokens=3)
    import urllib.request

    with urllib.request.urlopen(f"{server.address}/metrics") as response:
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = response.read().decode().splitlines()
    sample = re.compile(r'^holo_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.e+-]+$')
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    for line in lines:
        assert line.startswith(("# HELP holo_", "# TYPE holo_")) or sample.match(line), line
        if not line.startswith("#"):
            assert re.split(r"[{ ]", line)[0] in typed
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values['holo_new_tokens_total{model="chain"}']) >= 3


def test_a_model_that_fails_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path, "chain", "attentive") as server:
        broken = server.pool.entries["attentive"].served
        assert broken is not None
        for parameter in broken.loaded.model.parameters():
            parameter.data.fill_(float("nan"))
        client = client_of(server)
        with pytest.raises(openai.InternalServerError, match="NaN"):
            client.completions.create(model="attentive", prompt="a")
        assert client.completions.create(model="chain", prompt="a").choices
