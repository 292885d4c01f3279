"""Chromium by its DevTools protocol over a pipe: keys, input methods, pictures, and what it asked
the network for. The pipe needs no port and no WebSocket client."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from holo_cli.visualize.browser import LOAD_MS, Visit

Json = dict[str, Any]
READY = "document.body?.dataset.ready === 'yes'"
PATIENCE = 120  # seconds for anything to happen; a loaded machine is slow


class Navigated(Exception):
    """The page of a command went away while it ran."""


class Chromium:
    """A running browser. `tab` opens a tab.

    `is_sound`: it runs, and nothing went wrong in any of its tabs.
    """

    def __init__(self, browser: str, profile: Path, *, webgl: bool = False) -> None:
        to_read, to_write = os.pipe(), os.pipe()
        ends = {3: to_read[0], 4: to_write[1]}
        command = [
            browser, "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--lang=en-US",
            "--disable-extensions", "--disable-background-networking",
            "--hide-scrollbars", "--force-prefers-reduced-motion", f"--user-data-dir={profile}",
        ]  # fmt: skip
        # WebGL in software: a headless machine mostly has no graphics card
        software = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        command += software if webgl else ["--disable-gpu"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")
        os.set_inheritable(ends[3], True)
        os.set_inheritable(ends[4], True)
        # the browser reads commands from descriptor 3 and answers on 4
        moved = f'exec 3<&{ends[3]} 4>&{ends[4]}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", moved, "bash", *command],
            pass_fds=tuple(ends.values()), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in ends.values():
            os.close(end)
        self._in, self._out = to_read[1], to_write[0]
        self._rest = b""
        self._number = 0
        self._failed = False
        self.events: list[Json] = []

    @property
    def is_sound(self) -> bool:
        return not self._failed and self._process.poll() is None

    def close(self) -> None:
        if self.is_sound:
            self.call("Browser.close")
        else:
            self._process.kill()
        self._process.wait(10)
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, session: str = "", **params: Any) -> Json:
        """The result of a command; events that come meanwhile are kept."""
        self._number += 1
        number = self._number
        message: Json = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == number:
                if "navigated" in str(found.get("error")):
                    raise Navigated
                assert "error" not in found, found
                result: Json = found["result"]
                return result
            self.events.append(found)

    def _next(self) -> Json:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._out], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            self._rest += os.read(self._out, 1 << 16)
        line, _, self._rest = self._rest.partition(b"\0")
        found: Json = json.loads(line)
        return found

    @contextmanager
    def tab(self, address: str, *, size: tuple[int, int] = (1200, 850), dark: bool = False,
            phone: bool = False, ready: str = READY) -> Iterator[Tab]:  # fmt: skip
        """A tab of its own, with nothing stored, at an address whose page is ready."""
        with self._empty_tab() as tab:
            tab.look(size=size, dark=dark, phone=phone)
            tab.go(address, ready)
            yield tab

    @contextmanager
    def _empty_tab(self) -> Iterator[Tab]:
        try:
            context = self.call("Target.createBrowserContext")["browserContextId"]
            tab = Tab(self, context)
            yield tab
            self.call("Target.disposeBrowserContext", browserContextId=context)
        except BaseException:
            self._failed = True
            raise
        self.events = [e for e in self.events if e.get("sessionId") != tab.session]

    def visit(
        self, page: Path, *, size: tuple[int, int] = (1200, 1500), dark: bool = False
    ) -> Visit:
        """As `holo_cli.visualize.browser.visit`, the document without its scripts.

        The page's clock runs as far. Fails for a page that asks for more than its own file.
        """
        with self._empty_tab() as tab:
            tab.look(size=size, dark=dark)
            tab.call("Emulation.setVirtualTimePolicy", policy="pause")
            tab.call("Page.navigate", url=page.resolve().as_uri())
            policy = "pauseIfNetworkFetchesPending"
            tab.call("Emulation.setVirtualTimePolicy", policy=policy, budget=LOAD_MS)
            tab.wait_for("Emulation.virtualTimeBudgetExpired")
            own = (page.resolve().as_uri(), "data:", "blob:", "about:")
            assert all(address.startswith(own) for address in tab.asked), tab.asked
            tab.js("document.querySelectorAll('script').forEach(script => script.remove())")
            return Visit(tab.js("document.documentElement.outerHTML"), tab.console)


class Tab:
    """A page in the browser."""

    def __init__(self, browser: Chromium, context: str) -> None:
        self._browser = browser
        made = browser.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = browser.call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Json:
        return self._browser.call(method, self.session, **params)

    def look(self, *, size: tuple[int, int], dark: bool, phone: bool = False) -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0], height=size[1], deviceScaleFactor=1, mobile=phone,
        )  # fmt: skip

    def go(self, address: str, ready: str = READY) -> None:
        """Opens an address, and waits until an expression is true there."""
        self.js("document.body.dataset.ready = ''")
        self.call("Page.navigate", url=address)
        self.until(ready)

    def js(self, code: str) -> Any:
        """The value of an expression; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def switch_language(self) -> None:
        """Presses the language switch, and waits for the new page: the old one may stay a while."""
        self.js("document.body.dataset.ready = ''; document.getElementById('language').click()")
        self.until(READY)

    def until(self, condition: str) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + PATIENCE
        while True:
            with suppress(Navigated):
                if self.js(f"Boolean({condition})"):
                    return
            if time.monotonic() > end:
                shown = self.js("document.body.innerText")
                raise AssertionError(f"never true: {condition}\n{shown}")
            time.sleep(0.05)

    def key(self, name: str, code: int = 0, **more: Any) -> None:
        """A key pressed and released: "Enter", "Tab", "Escape", "ArrowRight", ..."""
        code = code or {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowRight": 39, " ": 32}[name]
        text = {"Enter": "\r", " ": " "}.get(name, "") if code != 229 else ""
        given = {"key": name, "code": name, "windowsVirtualKeyCode": code, **more}
        down = {**given, "text": text} if text else given
        self.call("Input.dispatchKeyEvent", type="keyDown", **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def compose(self, text: str) -> None:
        """What an input method shows while a syllable is being composed."""
        end = len(text)
        self.call("Input.imeSetComposition", text=text, selectionStart=end, selectionEnd=end)

    def picture(self, path: Path) -> None:
        data = self.call("Page.captureScreenshot")["data"]
        path.write_bytes(base64.b64decode(data))

    def _events(self, method: str) -> list[Json]:
        mine = [e for e in self._browser.events if e.get("sessionId") == self.session]
        return [event["params"] for event in mine if event["method"] == method]

    def wait_for(self, method: str) -> None:
        """Until an event has come."""
        while not self._events(method):
            self._browser.events.append(self._browser._next())

    @property
    def console(self) -> list[str]:
        """All messages of scripts and of the browser about them, and what scripts threw."""
        said = [e["args"] for e in self._events("Runtime.consoleAPICalled")]
        thrown = [e["exceptionDetails"] for e in self._events("Runtime.exceptionThrown")]
        return [
            *(" ".join(str(arg.get("value", arg)) for arg in args) for args in said),
            *(str(t.get("exception", t).get("description", t)) for t in thrown),
            *(e["entry"]["text"] for e in self._events("Log.entryAdded")),
        ]

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of scripts, and of the Content-Security-Policy."""
        thrown = [e["exceptionDetails"] for e in self._events("Runtime.exceptionThrown")]
        bad = ("error", "warning")
        said = [e for e in self._events("Runtime.consoleAPICalled") if e["type"] in bad]
        logged = [e["entry"] for e in self._events("Log.entryAdded")]
        return [
            *(str(t.get("exception", t).get("description", t)) for t in thrown),
            *(str(e["args"]) for e in said),
            *(f"{e['text']} {e.get('url', '')}" for e in logged if e["level"] in bad),
        ]

    @property
    def asked(self) -> list[str]:
        """The addresses of all requests."""
        return [e["request"]["url"] for e in self._events("Network.requestWillBeSent")]
