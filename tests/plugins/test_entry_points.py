"""Models of installed packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import holo_cli as holo
from holo_cli import plugins, registry
from holo_cli.config.resolve import resolve
from holo_cli.errors import ModelError
from tests.plugins.plugin_lab import run, write


@pytest.fixture
def install(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """install(package, model, "module:Class"): as pip leaves it, in a folder on the path."""
    site = home / "site"
    monkeypatch.syspath_prepend(str(site))

    def add(package: str, model: str, value: str) -> None:
        info = site / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[holo.models]\n{model} = {value}\n")
        plugins.installed.cache_clear()

    return add


def test_an_entry_point_is_a_model(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    write("site/ideas_one/__init__.py", "")
    write("site/ideas_one/mixer.py")
    write("site/ideas_one/presets/tiny.toml", "[model]\nlayers = 2\n")
    install("ideas-one", "mean_of_all", "ideas_one.mixer:Mean")
    assert "mean-of-all" in registry.model_names()
    assert resolve("mean_of_all", env={}).preset == "tiny"
    assert registry.needs("mean-of-all") == {"package": "ideas-one", "version": "1.0"}
    code, said = run(capsys, "models")
    assert code == 0
    assert "The mean of everything so far." in said


def test_an_entry_point_may_be_a_package_with_config_and_model(
    install: Callable[..., None],
) -> None:
    write("site/ideas_two/__init__.py", "")
    write("site/ideas_two/config.py", "from holo_cli.models.vanilla.config import Config\n")
    write("site/ideas_two/model.py", "from holo_cli.models.vanilla.model import Model\n")
    install("ideas-two", "two", "ideas_two")
    assert holo.build("two", vocab_size=5, layers=1).config.layers == 1


def test_names_that_clash_are_refused(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    install("first", "wavelet", "first_module:Mean")
    install("second", "wavelet", "second_module:Mean")
    install("third", "ngt", "third_module:Mean")
    for model, match in (
        ("wavelet", "Two installed packages register a model 'wavelet'"),
        ("ngt", "The package third 1.0 registers a model 'ngt', which is a model of holo itself."),
    ):
        with pytest.raises(ModelError, match=match):
            registry.find(model)
        code, said = run(capsys, "train", "--model", model, "--dry-run")
        assert code == 1
        assert match in said
    assert registry.find("vanilla").module == "holo_cli.models.vanilla"
    code, said = run(capsys, "models")
    assert code == 0  # the list is shown, with a warning for each
    assert said.count("Warning: ") == 2


def test_a_package_that_cannot_be_imported_is_a_warning_in_the_list(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    write("site/broken_module.py", "import torch\n1 / 0\n")
    install("broken", "broken", "broken_module:Mean")
    code, said = run(capsys, "models")
    assert code == 0
    assert "broken 1.0: importing it failed: ZeroDivisionError" in said
    assert "line 2" in said
