"""A headless browser, for `holo visualize --png` and for the tests that open pages.

Chromium, Chrome or Edge, whichever is installed; HOLO_BROWSER names another. Nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from holo_cli.errors import HoloError, UsageError

COMMANDS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
)
MAC = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
WINDOWS = (
    "Google/Chrome/Application/chrome.exe",
    "Chromium/Application/chrome.exe",
    "Microsoft/Edge/Application/msedge.exe",
)
CONSOLE = re.compile(r'CONSOLE[:(]\d+\)?\] "(.*?)", source: ', re.DOTALL)
LOAD_MS = 3000  # of the page's own clock, which runs as fast as the machine can
TIMEOUT = 120  # seconds for a browser to start, draw and end


@dataclass(frozen=True)
class Visit:
    """An opened page: the document after its scripts ran, and their console messages."""

    dom: str
    console: list[str]


def find_browser() -> str | None:
    """The path of a browser that can run headless; None where there is none."""
    named = os.environ.get("HOLO_BROWSER")
    if named:
        return shutil.which(named)
    places: list[Path] = []
    if sys.platform == "darwin":
        places = [Path(place) for place in MAC]
    elif sys.platform == "win32":
        roots = [
            os.environ.get(name) for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
        ]
        places = [Path(root) / place for root in roots if root for place in WINDOWS]
    found = (str(place) for place in places if place.is_file())
    return next(found, None) or next(filter(None, map(shutil.which, COMMANDS)), None)


def need_browser() -> str:
    """As `find_browser`. Raises UsageError where there is none."""
    browser = find_browser()
    if browser is None:
        raise UsageError(
            "A picture needs Chromium, Chrome or Edge, and none was found here.",
            next_step="Install one, name it with HOLO_BROWSER, or leave --png out.",
        )
    return browser


def visit(
    page: Path,
    *,
    png: Path | None = None,
    size: tuple[int, int] = (1200, 1500),
    dark: bool = False,
) -> Visit:
    """Open a page, let its scripts run, and take a picture of its top where `png` is given.

    `size` is the window's, in CSS pixels. The network is cut off. Raises UsageError without a
    browser, HoloError for one that fails.
    """
    command = [need_browser(), "--headless=new", "--dump-dom", f"--virtual-time-budget={LOAD_MS}"]
    command += [f"--window-size={size[0]},{size[1]}", "--hide-scrollbars", "--no-first-run"]
    command += ["--enable-logging=stderr", "--v=0", "--disable-extensions", "--lang=en-US"]
    command += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"]
    # with virtual time an animation would never end: the clock stops while the page draws
    command.append("--force-prefers-reduced-motion")
    # WebGL in software: a headless machine mostly has no graphics card
    command += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    if png is not None:
        command.append(f"--screenshot={png.resolve()}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium's sandbox refuses root
    with tempfile.TemporaryDirectory(prefix="holo-browser-", ignore_cleanup_errors=True) as profile:
        command += [f"--user-data-dir={profile}", page.resolve().as_uri()]
        try:
            ran = subprocess.run(command, capture_output=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise HoloError(
                f"The browser did not finish {page} within {TIMEOUT} seconds.",
                next_step="Open the page by hand, or name another browser with HOLO_BROWSER.",
            ) from error
    log = ran.stderr.decode("utf-8", errors="replace")
    if ran.returncode != 0 or (png is not None and not png.is_file()):
        raise HoloError(
            f"The browser {command[0]} failed to draw {page}: {log.strip()[-300:]}",
            next_step="Open the page by hand, or name another browser with HOLO_BROWSER.",
        )
    return Visit(ran.stdout.decode("utf-8", errors="replace"), CONSOLE.findall(log))
