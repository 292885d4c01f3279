"""The pages and their JSON: headers, keys, safe paths, logs that grow, and a look inside."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import torch

from holo_cli.registry import build_model, config_class, model_names
from holo_cli.serve.refusal import Refusal
from holo_cli.serve.scheduler import MOST_GUESTS, Scheduler
from holo_cli.serve.server import Server
from holo_cli.serve.web import run_logs, shell, written
from holo_cli.serve.web.inside import look_inside
from holo_cli.translation import PLACEHOLDER
from tests.inference.inference_fakes import ByteTokenizer, Chain, make_loaded
from tests.serve.conftest import SETTINGS, load, serving
from tests.serve.test_bad_requests import ask
from tests.serve.test_serving import wait_until

HOSTILE = "<img src=x onerror=alert(1)>"


def fetch(server: Server, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of a page; the path is sent as it is."""
    connection = http.client.HTTPConnection(*server.socket.getsockname()[:2], timeout=120)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    text = response.read().decode("utf-8")
    connection.close()
    return response.status, text, {k.lower(): v for k, v in response.getheaders()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The server's working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- pages ----------------------------------------------------------------------------------------


def test_pages_load_nothing_from_elsewhere(server: Server) -> None:
    for page in shell.PAGES.values():
        status, text, headers = fetch(server, page.path)
        assert status == 200
        assert headers["content-security-policy"] == shell.POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script>|<style|\bstyle=|\son\w+=", text)
        for name in re.findall(r'(?:src|href)="/assets/([^"]+)"', text):
            assert fetch(server, f"/assets/{name}")[0] == 200, name
    assert "http" not in shell.POLICY
    assert "unsafe" not in shell.POLICY
    for name in shell.known_assets():
        found = re.findall(r"https?://[^\s\"'`)]+", shell.asset_of(name)[0])
        assert set(found) <= {"http://www.w3.org/2000/svg"}, name  # a name, not an address


@pytest.mark.parametrize("name", ["nothing.js", "chat.html", "..%2fshell.py", "../shell.py", ""])
def test_only_known_assets(server: Server, name: str) -> None:
    assert fetch(server, f"/assets/{name}")[0] == 404


def test_every_word_of_the_pages_is_korean_too() -> None:
    words = json.loads(shell.korean_script().removeprefix("holo.korean = ").removesuffix(";\n"))
    same = {word for word, korean in words.items() if word == korean}
    assert same <= {"Top p"}
    assert {"Chat", "Send", "{0} tokens/s"} <= set(words)
    for word, korean in words.items():  # the scripts fill numbers in, and know no particles
        assert set(PLACEHOLDER.findall(korean)) == set(PLACEHOLDER.findall(word)), word


def test_the_page_speaks_the_language_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_LANG", "ko")
    assert '<html lang="ko"' in shell.page_html("chat", key=False)
    monkeypatch.setenv("HOLO_LANG", "en")
    assert '<html lang="en"' in shell.page_html("chat", key=False)


def test_the_key_guards_everything_but_the_pages_themselves(folder: Path) -> None:
    (folder / "runs").mkdir()
    (folder / "runs/a b.html").write_text("<title>A</title>mine", encoding="utf-8")
    with serving(folder, "chain", key="secret") as server:
        given = {"authorization": "Bearer secret"}
        assert 'data-key="yes"' in fetch(server, "/")[1]
        for path in ("/api/pages", "/api/runs", "/api/runs/log?run=a", "/api/runs/settings"):
            assert fetch(server, path)[0] == 401, path
        assert ask(server, "/api/inside", {"prompt": "a"})[0] == 401
        assert fetch(server, "/written/runs/a%20b.html")[0] == 401
        found = json.loads(fetch(server, "/api/pages", **given)[1])["pages"]
        assert [(row["path"], row["title"]) for row in found] == [("runs/a b.html", "A")]
        status, text, headers = fetch(server, found[0]["href"])
        assert (status, text) == (200, "<title>A</title>mine")
        assert headers["content-security-policy"].startswith("sandbox allow-scripts")
        other = found[0]["href"].replace("a%20b", "c")  # a link is good for its own page only
        assert fetch(server, other)[0] == 401


def test_a_link_expires() -> None:
    now = int(time.time())
    written.check_ticket("runs/a.html", written.ticket_of("runs/a.html", "k", now + 9), "k")
    for ticket in (written.ticket_of("runs/a.html", "k", now - 9), "", "9-x", "é" * 9, "1" * 400):
        with pytest.raises(Refusal, match="expired"):
            written.check_ticket("runs/a.html", ticket, "k")


# -- pages that were written ----------------------------------------------------------------------


def test_written_pages_are_found_and_nothing_else(folder: Path) -> None:
    (folder / "runs/x").mkdir(parents=True)
    (folder / "secret.html").write_text("secret", encoding="utf-8")
    (folder / "outside").mkdir()
    (folder / "outside/s.html").write_text("secret", encoding="utf-8")
    (folder / "runs/x/page.html").write_text("<title>&lt;b&gt; x</title>", encoding="utf-8")
    (folder / "runs/x/metrics.jsonl").write_text("{}\n", encoding="utf-8")
    (folder / "runs/link.html").symlink_to(folder / "secret.html")
    (folder / "runs/out").symlink_to(folder / "outside")
    assert [row["path"] for row in written.listed("")] == ["runs/x/page.html"]
    assert written.listed("")[0]["title"] == "<b> x"
    assert written.located("runs/x/page.html") is not None
    for path in (
        "runs/link.html", "runs/out/s.html", "runs/../secret.html", "secret.html", "runs",
        "runs/x/metrics.jsonl", "/secret.html", "runs//x/page.html", "runs/x/../x/page.html",
        "runs\\x\\page.html", "runs/x/page.html/", "runs/x/no.html", "runs/\0.html",
        f"runs/{folder}/secret.html", "runs/x", ".html", "",
    ):  # fmt: skip
        assert written.located(path) is None, path


def test_paths_over_http(folder: Path) -> None:
    (folder / "bench").mkdir()
    (folder / "bench/한글 & <b>.html").write_text("found", encoding="utf-8")
    (folder / "secret.html").write_text("secret", encoding="utf-8")
    with serving(folder, "chain") as server:
        [row] = json.loads(fetch(server, "/api/pages")[1])["pages"]
        assert fetch(server, row["href"])[:2] == (200, "found")
        for path in ("bench/../secret.html", "bench/%2e%2e/secret.html", "bench/..%2fsecret.html"):
            assert fetch(server, f"/written/{path}")[0] == 404, path


# -- runs -----------------------------------------------------------------------------------------


def log(folder: Path, name: str, *events: dict[str, Any]) -> Path:
    path = folder / "runs" / name / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    return path


def train(step: int, loss: float = 2.0) -> dict[str, Any]:
    return {"event": "train", "step": step, "tokens": step * 8, "seconds": step, "loss": loss}


def test_a_log_is_read_on_from_where_it_was(folder: Path) -> None:
    path = log(folder, "a", {"event": "start", "model": "ngt", "secret": "x"}, train(1))
    first = run_logs.log_after("a", "", 0)
    assert first["start"] == {"model": "ngt"}
    assert [row["step"] for row in first["train"]] == [1]
    assert first["whole"]
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(train(2)))  # its line end is still to come
    second = run_logs.log_after("a", first["log"], first["next"])
    assert (second["train"], second["next"]) == ([], first["next"])
    with path.open("a", encoding="utf-8") as file:
        file.write("\nnot json\n" + json.dumps(train(3, float("nan"))) + "\n")
    third = run_logs.log_after("a", second["log"], second["next"])
    assert [(row["step"], row["loss"]) for row in third["train"]] == [(2, 2.0), (3, None)]
    assert (third["damaged"], third["whole"]) == (1, False)
    # resumed: another file takes its place, and all of it is sent
    other = path.with_name("new")
    other.write_text(json.dumps(train(1)) + "\n", encoding="utf-8")
    other.replace(path)
    fourth = run_logs.log_after("a", third["log"], third["next"])
    assert fourth["whole"]
    assert [row["step"] for row in fourth["train"]] == [1]


def test_long_logs_are_thinned(folder: Path) -> None:
    log(folder, "a", *map(train, range(1, 2501)))
    steps = [row["step"] for row in run_logs.log_after("a", "", 0)["train"]]
    assert len(steps) == run_logs.MOST_POINTS
    assert steps[-1] == 2500


@pytest.mark.parametrize("name", ["..", "../a", "a/b", "", "none", "a\0", "out", "x" * 999])
def test_no_other_log_is_read(folder: Path, name: str) -> None:
    log(folder, "a", train(1))
    log(folder.parent, "a", train(1))
    (folder / "runs/out").symlink_to(folder.parent)
    with pytest.raises(Refusal) as refused:
        run_logs.log_after(name, "", 0)
    assert refused.value.status == 404


def test_runs_over_http(folder: Path) -> None:
    log(folder, HOSTILE.replace("/", ""), train(1))
    log(folder, "a", {"event": "start", "model": "ngt"}, train(1))
    with serving(folder, "chain") as server:
        found = json.loads(fetch(server, "/api/runs")[1])["runs"]
        assert {run["run"] for run in found} == {"a", HOSTILE}
        assert not {"files", "log"} & set(found[0])  # no paths of the machine
        status, text, _ = fetch(server, "/api/runs/log?run=a&from=0&log=")
        assert (status, len(json.loads(text)["train"])) == (200, 1)
        for query in ("run=a&from=-1", "run=a&from=%C2%B2", f"run={'x' * 2000}&from=0"):
            assert fetch(server, f"/api/runs/log?{query}")[0] == 400, query
        assert fetch(server, "/api/runs/log?run=b")[0] == 404
        both = f"run=a&run={quote(HOSTILE)}"
        assert json.loads(fetch(server, f"/api/runs/settings?{both}")[1])["differing"] == {}
        assert fetch(server, "/api/runs/settings?run=a")[0] == 400
        assert fetch(server, "/api/runs/settings?run=a&run=nothing")[0] == 404


def test_runs_are_watched_before_there_is_a_checkpoint(folder: Path) -> None:
    from holo_cli.cli.serve import _newest

    assert _newest() == [None]  # nothing at all: the usual error
    log(folder, "a", train(1))
    assert _newest() == []
    server = Server(SETTINGS, _newest(), load)
    thread = threading.Thread(target=server.run_until_stopped)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        assert json.loads(fetch(server, "/v1/models")[1])["data"] == []
        assert len(json.loads(fetch(server, "/api/runs")[1])["runs"]) == 1
        for name in ({}, {"model": "a"}):
            status, body, _ = ask(server, "/v1/completions", {"prompt": "a", **name})
            assert (status, body["error"]["code"]) == (404, "model_not_found")
    finally:
        server.stop()
        thread.join(10)


# -- inside ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", model_names())
def test_every_model_shows_something(name: str) -> None:
    config = config_class(name)(vocab_size=259, width=16, heads=2, layers=2, context=32)
    torch.manual_seed(0)
    loaded = make_loaded(build_model(name, config).eval(), ByteTokenizer(["end"]))
    loaded.header.model = name
    ids = list("The cat 고양이".encode())
    found = look_inside(loaded, ids, "ko")
    assert found["shown"] == found["whole"] == len(ids) == len(found["tokens"])
    assert "\ufffd" not in "".join([*found["tokens"], *found["faces"]])
    assert found["figures"]
    json.dumps(found, allow_nan=False)
    for figure in found["figures"]:
        assert re.search("[가-힣]", figure["title"]), figure["title"]
        for variant in figure["variants"]:
            lengths = [len(row) for row in variant["rows"]]
            if figure["kind"] == "map":
                assert lengths == list(range(1, len(ids) + 1))
            else:
                assert set(lengths) == {len(ids)}
                assert len(variant["labels"]) == len(lengths)


def test_the_end_of_a_long_text_is_shown() -> None:
    config = config_class("vanilla")(vocab_size=259, width=16, heads=1, layers=1, context=20)
    loaded = make_loaded(build_model("vanilla", config).eval())
    loaded.header.model = "vanilla"
    found = look_inside(loaded, list(b"x" * 30 + b"end"), "en")
    assert (found["shown"], found["whole"], found["tokens"][-3:]) == (20, 33, ["e", "n", "d"])
    rows = found["figures"][0]["variants"][0]["rows"]
    assert all(abs(sum(row) - 1) < 0.02 for row in rows)  # attention


def test_a_model_with_nothing_to_show(server: Server) -> None:
    status, body, _ = ask(server, "/api/inside", {"model": "chain", "prompt": "a"})
    assert (status, body["error"]["code"]) == (404, "no_inside_view")
    assert ask(server, "/api/inside", {"model": "chain"})[0] == 400
    assert ask(server, "/api/inside", {"model": "none", "prompt": "a"})[0] == 404
    with pytest.raises(Refusal):
        look_inside(make_loaded(Chain()), [1, 2], "en")


def test_a_look_never_falls_into_a_step() -> None:
    """Hooks of a view would otherwise record what a step computes, and a busy server starve it."""
    scheduler = Scheduler(1, 1)
    inside, clashes, steps = threading.Event(), [], [0]

    def step() -> None:
        clashes.extend([1] if inside.is_set() else [])
        steps[0] += 1
        time.sleep(0.001)

    def look() -> int:
        inside.set()
        time.sleep(0.003)
        inside.clear()
        return 7

    scheduler._step = step  # type: ignore[method-assign]
    scheduler._active.append(object())  # type: ignore[arg-type]
    scheduler.start()
    assert [scheduler.between_steps(look) for _ in range(10)] == [7] * 10
    wait_until(lambda: steps[0])  # and steps go on
    with pytest.raises(ZeroDivisionError):
        scheduler.between_steps(lambda: 1 / 0)
    scheduler._guests = MOST_GUESTS
    with pytest.raises(Refusal):
        scheduler.between_steps(look)
    scheduler._guests = 0
    scheduler._active.clear()
    scheduler.close()
    scheduler.thread.join(5)
    assert not scheduler.thread.is_alive()
    assert not clashes


def test_the_wheel_has_the_assets() -> None:
    builders = pytest.importorskip("hatchling.builders.wheel")
    builder = builders.WheelBuilder(str(Path(__file__).parents[2]))
    found = {file.distribution_path for file in builder.recurse_included_files()}
    for asset in shell.ASSETS.iterdir():
        assert f"holo_cli/serve/web/assets/{asset.name}" in found
