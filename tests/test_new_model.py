"""`holo new-model` writes a package that passes the checks and its own test, and trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import holo_cli
from holo_cli import plugins, registry
from holo_cli.__main__ import main
from holo_cli.data.prepare.prepare import prepare
from tests.plugins.plugin_lab import SMALL


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_named", {})
    return tmp_path


def test_a_new_model_passes_its_test_as_written_and_trains(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["new-model", "wavelet-bank"]) == 0
    environment = os.environ | {"PYTHONPATH": str(Path(holo_cli.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "default or fade"],
        cwd=home / "wavelet-bank", env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
    prepare(["stories"], out=home / "data/stories", tokenizer="char", max_docs=30)
    for name, value in (SMALL | {"HOLO_MODEL_CONTEXT": "16"}).items():
        monkeypatch.setenv(name, value)
    name = "wavelet-bank/holo_wavelet_bank/mixer.py:WaveletBank"
    assert main(["train", "--model", name, "--preset", "tiny", "--set", "model.half_life=9"]) == 0


def test_the_entry_point_of_a_new_model_is_found(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["new-model", "wavelet", "--out", "site"]) == 0
    info = home / "site/holo_wavelet-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: holo-wavelet\nVersion: 0.1.0\n")
    import tomllib

    points = tomllib.loads((home / "site/pyproject.toml").read_text())["project"]["entry-points"]
    (name, value), *_ = points["holo.models"].items()
    (info / "entry_points.txt").write_text(f"[holo.models]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(str(home / "site"))
    plugins.installed.cache_clear()
    try:
        assert registry.preset_names("wavelet") == ["tiny"]
        model = holo_cli.build("wavelet", preset="tiny", vocab_size=7, layers=1)
        assert registry.needs("wavelet") == {"package": "holo-wavelet", "version": "0.1.0"}
        assert model.describe().state_bytes == 128 * 4 + 8
    finally:
        plugins.installed.cache_clear()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My Model", "cannot name a model"),
        ("../up", "cannot name a model"),
        ("vanilla", "There is a model 'vanilla' already"),
        ("full", "full exists and is not empty"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    name: str, said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "full").mkdir()
    (home / "full/a.txt").touch()
    assert main(["new-model", name]) == 2
    assert said in capsys.readouterr().err
    assert sorted(p.name for p in home.iterdir()) == ["full"]
