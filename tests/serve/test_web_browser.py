"""The pages in a real browser: keys and input methods, streams, errors, colours, hostile texts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from holo_cli.serve.server import Server
from holo_cli.visualize.browser import find_browser
from tests.serve.chromium import Chromium, Tab
from tests.serve.conftest import KOREAN as KOREAN_SCRIPT
from tests.serve.conftest import serving
from tests.serve.test_serving import ENDLESS, idle, wait_until
from tests.serve.test_web import HOSTILE, log, train

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium, Chrome or Edge is installed"),
    pytest.mark.skipif(
        os.name == "nt" or not shutil.which("bash"), reason="the browser is driven over a pipe"
    ),
]
MESSAGES = "document.querySelectorAll('#messages li').length"
DONE = "!document.getElementById('send').hidden"
ANSWER = "document.querySelector('#messages li.assistant:last-child .said').textContent"
KOREAN = "document.documentElement?.lang === 'ko' && document.body?.dataset.ready === 'yes'"
# the least contrast of all texts with what is behind them (WCAG 2.2, 1.4.3)
CONTRAST = """(() => {
  const c = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const known = {};
  const rgb = text => known[text] ||= (c.clearRect(0, 0, 1, 1), c.fillStyle = text,
    c.fillRect(0, 0, 1, 1), [...c.getImageData(0, 0, 1, 1).data]);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    if (!e) return [255, 255, 255];
    const own = rgb(getComputedStyle(e).backgroundColor), a = own[3] / 255;
    return a === 1 ? own : behind(e.parentElement).map((v, i) => a * own[i] + (1 - a) * v); };
  const found = [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length
      && !e.disabled && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
    .map(e => { const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 90)]; });
  return found.sort((a, b) => a[0] - b[0])[0]; })()"""


def choose(tab: Tab, model: str, tokens: int = 8) -> None:
    tab.js(
        f"document.getElementById('model').value = {json.dumps(model)};"
        f"document.getElementById('max-tokens').value = {tokens}"
    )


def check(tab: Tab, server: Server) -> None:
    """Nothing complained, and nothing but the server was asked."""
    assert tab.complaints == []
    port = server.socket.getsockname()[1]
    hosts = {urlsplit(a).netloc for a in tab.asked if not a.startswith(("data:", "about:"))}
    assert hosts <= {f"127.0.0.1:{port}"}


def test_korean_is_composed_and_sent_by_the_next_enter(chromium: Chromium, server: Server) -> None:
    with chromium.tab(server.address) as tab:
        choose(tab, "korean", 30)
        for shown in ("ㅎ", "하", "한"):
            tab.compose(shown)
        tab.key("Enter", code=229)  # as Chrome reports a key that the input method takes
        assert tab.js(MESSAGES) == 0
        tab.type("한")  # the syllable is committed
        tab.key("Enter", code=229)  # as Safari reports that Enter, after the composition
        assert tab.js(MESSAGES) == 0
        tab.key("Enter", modifiers=8)  # Shift: a new line
        tab.type("글자")
        tab.key("Enter")
        tab.until(f"{MESSAGES} === 2 && {DONE}")
        assert tab.js("document.querySelector('#messages .user .said').textContent") == "한\n글자"
        # the script's 30 bytes from the 8th on: it began after 3 of the question's 10
        assert tab.js(ANSWER) == KOREAN_SCRIPT.encode()[7:37].decode()
        assert "\ufffd" not in tab.js("document.body.textContent")
        assert tab.js("document.getElementById('text').value") == ""
        check(tab, server)


def test_streaming_stop_branches_and_two_tabs(chromium: Chromium, tmp_path: Path) -> None:
    with (
        serving(tmp_path, "chain", "slow", max_tokens=ENDLESS) as server,
        chromium.tab(server.address) as tab,
        chromium.tab(server.address) as other,
    ):
        choose(tab, "slow", ENDLESS)
        tab.type("one")
        tab.key("Enter")
        tab.until(f"{MESSAGES} === 2 && {ANSWER}.length > 3")  # while it is being written
        assert not tab.js(DONE)
        other.type("two")
        other.js("document.getElementById('max-tokens').value = 5")
        other.key("Enter")
        other.until(f"{MESSAGES} === 2 && {DONE}")
        tab.key("Escape")
        tab.until(DONE)
        assert "stopped" in tab.js("document.querySelector('#messages .speed').textContent")
        assert "tokens/s" in tab.js("document.querySelector('#messages .speed').textContent")
        wait_until(lambda: idle(server))
        first = tab.js(ANSWER)
        assert "one" not in other.js("document.getElementById('messages').textContent")
        # another answer, and back to the first one
        choose(tab, "chain", 6)
        tab.js("document.querySelector('#messages .assistant .tools button').click()")
        tab.until(f"{DONE} && document.querySelector('.branches span')?.textContent === '2/2'")
        assert tab.js(ANSWER) != first
        tab.js("document.querySelector('.branches button').click()")
        assert tab.js(ANSWER) == first
        # an earlier message edited: a branch of its own
        tab.js("document.querySelector('#messages .user .tools button').click()")
        tab.js("document.querySelector('#messages textarea').select()")
        tab.type("three")
        tab.key("Enter")
        tab.until(f"{DONE} && {MESSAGES} === 2 && document.body.innerText.includes('three')")
        assert tab.js("document.querySelector('.user .branches span').textContent") == "2/2"
        said = tab.js("document.getElementById('messages').innerText")
        tab.go(server.address)  # the tab keeps its conversation
        assert tab.js("document.getElementById('messages').innerText") == said
        check(tab, server)


def test_by_keyboard_alone(chromium: Chromium, server: Server) -> None:
    with chromium.tab(server.address) as tab:
        choose(tab, "attentive", 6)
        assert tab.js("document.activeElement.id") == "text"
        tab.type("ab")
        tab.key("Enter")
        tab.until(f"{MESSAGES} === 2 && {DONE}")
        reached = set()
        for _ in range(25):
            tab.key("Tab")
            reached.add(tab.js("document.activeElement.id || document.activeElement.className"))
            if tab.js("document.activeElement.matches('.assistant .said')"):
                tab.key("ArrowRight")
                assert "%" in tab.js("document.getElementById('token').innerText")
                tab.key("Escape")
                assert tab.js("document.getElementById('token').hidden")
        assert {"model", "new", "look", "language", "said", "text"} <= reached


def test_errors_are_said_in_the_reader_s_language(chromium: Chromium, server: Server) -> None:
    with chromium.tab(server.address, size=(390, 800), phone=True) as tab:
        tab.switch_language()
        tab.until(KOREAN)
        assert tab.js("document.getElementById('send').textContent") == "보내기"
        choose(tab, "attentive")
        tab.type("x" * 90)
        tab.key("Enter")
        tab.until("document.getElementById('problem').textContent")
        assert "컨텍스트" in tab.js("document.getElementById('problem').textContent")
        assert tab.js(MESSAGES) == 1  # the message stays, to be edited
        assert tab.js("document.documentElement.scrollWidth <= innerWidth")


def test_fields_of_the_arena_line_up_on_a_phone(chromium: Chromium, server: Server) -> None:
    boxes = """[...document.querySelectorAll('.bar > label:has([type="number"])')].map(label => {
      const [name, field] = [...label.children].map(e => e.getBoundingClientRect());
      return [name.bottom <= field.top + 1, Math.abs(name.left - field.left) < 2]; })"""
    with chromium.tab(f"{server.address}/arena", size=(390, 844), phone=True) as tab:
        for _ in ("English", "한국어"):
            found = tab.js(boxes)
            assert len(found) == 3
            assert all(all(below) for below in found), found
            assert tab.js("document.documentElement.scrollWidth <= innerWidth")
            tab.switch_language()


def test_times_and_sizes_stay_on_one_line(
    chromium: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pages").mkdir()
    long = "a-page-with-a-long-name-" * 6
    (tmp_path / "pages" / f"{long}.html").write_text(f"<title>{long}</title>", encoding="utf-8")
    with serving(tmp_path, "chain") as server, chromium.tab(f"{server.address}/pages") as tab:
        tab.until("document.querySelectorAll('#list tbody td').length === 4")
        lines = """[...document.querySelectorAll('#list tbody td')].slice(-2).map(cell => {
          const range = document.createRange(); range.selectNodeContents(cell);
          return new Set([...range.getClientRects()].map(r => Math.round(r.top))).size; })"""
        assert tab.js(lines) == [1, 1]
        check(tab, server)


def test_hostile_names_and_texts_are_text(chromium: Chromium, tmp_path: Path) -> None:
    with serving(tmp_path, "chain") as server:
        entry = server.pool.entries.pop("chain")
        entry.about["id"] = HOSTILE
        server.pool.entries[HOSTILE] = entry
        with chromium.tab(server.address) as tab:
            tab.type(f"{HOSTILE}<script>alert(2)</script>")
            tab.key("Enter")
            tab.until(f"{MESSAGES} === 2 && {DONE}")
            assert HOSTILE in tab.js("document.getElementById('messages').innerText")
            assert tab.js("document.querySelectorAll('img, #messages script').length") == 0
            check(tab, server)
            server.stop()
            wait_until(lambda: server.socket.fileno() < 0)
            tab.type("again")
            tab.key("Enter")
            tab.until("document.getElementById('problem').textContent.includes('holo serve')")
            assert tab.js(DONE)


def test_the_key_is_asked_for_and_kept_in_the_tab(chromium: Chromium, tmp_path: Path) -> None:
    with (
        serving(tmp_path, "chain", key="비밀") as server,
        chromium.tab(server.address, ready="document.getElementById('key-dialog')?.open") as tab,
    ):
        for key, problem in (("wrong", ""), ("비밀", "The key is wrong.")):
            tab.until(f"document.getElementById('key-problem').textContent === '{problem}'")
            tab.until("document.getElementById('key-dialog').open")
            tab.type(key)
            tab.key("Enter")
        tab.until("document.body.dataset.ready === 'yes'")
        assert tab.js("document.getElementById('model').value") == "chain"
        assert tab.js("sessionStorage['holo.key']") == "비밀"
        assert tab.js("localStorage.length") == 0


def test_curves_move_while_training_goes_on(
    chromium: Chromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    points = "document.querySelector('polyline')?.getAttribute('points').split(' ').length"
    sample = {"event": "eval", "step": 2, "tokens": 2, "train_seconds": 2, "val_loss": 2.0}
    name = "R&D &lt;b&gt; #50% 실행"
    log(tmp_path, name, train(1), train(2), sample | {"sample": HOSTILE})
    with serving(tmp_path, "chain") as server, chromium.tab(f"{server.address}/runs") as tab:
        tab.until(f"{points} === 2")
        log(tmp_path, name, train(3))
        tab.until(f"{points} === 3")
        assert tab.js("document.querySelectorAll('img').length") == 0
        samples = tab.js("document.getElementById('samples').innerText")
        assert HOSTILE in samples
        assert name in samples
        check(tab, server)


def test_every_text_can_be_read(chromium: Chromium, server: Server) -> None:
    with chromium.tab(server.address) as tab:
        for page in ("", "arena", "runs", "pages"):
            if page:
                tab.go(f"{server.address}/{page}")
            if not page:
                tab.type("x" * 5)
                tab.key("Enter")
                tab.until(f"{MESSAGES} === 2 && {DONE}")
                tab.js("document.getElementById('settings').open = true")
                tab.js("document.getElementById('doubt').click()")
            for dark in (False, True):
                tab.look(size=(1200, 850), dark=dark)
                least, element = tab.js(CONTRAST)
                assert least >= 4.5, (page, dark, element)
