"""Settings of the whole suite."""

from __future__ import annotations

import importlib.util
import os
import random
import runpy
import secrets
import shutil
import sys
import tempfile

# as the command line does it: waiting threads sleep, so that tests are quick beside other work
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# models in tests are so small that a second thread only costs; the cores run tests side by side
os.environ.setdefault("OMP_NUM_THREADS", "1")
# what holo remembers of a machine is kept apart from that of the person who runs the tests
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="holo-tests-")

# messages are compared in English, whatever the locale of the machine
os.environ["HOLO_LANG"] = "en"

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest  # after the settings above, which torch reads when it is imported

from holo_cli.hardware import cpu_fingerprint, remember

# the number format `auto` is float32 on every machine: no test depends on a short measurement,
# which draws random numbers too, in whichever test comes first
TORCH = importlib.util.find_spec("torch")
assert TORCH is not None
assert TORCH.origin is not None
VERSION = runpy.run_path(str(Path(TORCH.origin).with_name("version.py")))  # without importing torch
remember(f"bfloat16_over_float32/{cpu_fingerprint()}/{VERSION['__version__']}", 9.0)

if TYPE_CHECKING:
    from holo_cli.visualize.browser import Visit
    from tests.serve.chromium import Chromium


def _seed() -> None:
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test draws the same numbers, whichever tests ran before it in the same process.

    Those of the fresh seeds too that a text without a seed is sampled with: a short random text may
    be empty, and a test must not hope.
    """
    _seed()
    monkeypatch.setattr(secrets, "randbits", random.Random(0).getrandbits)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """What several tests share is made of the same numbers as well, whichever of them comes first;
    pytest makes it before the fixture above is called."""
    if fixturedef.scope == "function":
        return (yield)
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    state = random.getstate()
    others = numpy and numpy.random.get_state(), torch and torch.get_rng_state()
    _seed()
    try:
        return (yield)
    finally:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(others[0])
        if torch:
            torch.set_rng_state(others[1])


@pytest.fixture(autouse=True)
def own_model_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Model files that a test names are named in that test alone."""
    if plugins := sys.modules.get("holo_cli.plugins"):
        monkeypatch.setattr(plugins, "_named", dict(plugins._named))


@pytest.fixture(autouse=True)
def own_offline_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--offline` sets these for the process: undone after each test."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def running_browsers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[bool], Chromium]]:
    """The browser with or without WebGL that all tests of this process open their tabs in.

    Each tab has nothing stored. After a test that failed in a tab a new browser is started.
    """
    from holo_cli.visualize.browser import find_browser
    from tests.serve.chromium import Chromium

    running: dict[bool, Chromium] = {}

    def browser(webgl: bool) -> Chromium:
        if webgl in running and not running[webgl].is_sound:
            running.pop(webgl).close()
        if webgl not in running:
            profile = tmp_path_factory.mktemp("profile")
            running[webgl] = Chromium(find_browser() or "", profile, webgl=webgl)
        return running[webgl]

    yield browser
    for found in running.values():
        found.close()


@pytest.fixture
def chromium(running_browsers: Callable[[bool], Chromium]) -> Chromium:
    """A browser for pages without WebGL."""
    return running_browsers(False)


@pytest.fixture
def visit(request: pytest.FixtureRequest) -> Callable[..., Visit]:
    """`holo_cli.visualize.browser.visit`, where possible in the browser that runs already."""
    if os.name == "nt" or not shutil.which("bash"):
        from holo_cli.visualize import browser

        return browser.visit
    found: Callable[..., Visit] = request.getfixturevalue("chromium").visit
    return found
