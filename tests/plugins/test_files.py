"""Models in files that a person named, and what can go wrong with them."""

from __future__ import annotations

import pytest
import torch

import holo_cli as holo
from holo_cli import registry
from holo_cli.config.resolve import resolve
from holo_cli.errors import UsageError
from holo_cli.experiment.code_fingerprint import code_fingerprint
from tests.plugins.plugin_lab import MIXER, run, write


def test_a_class_in_a_file_is_a_model() -> None:
    write("ideas/mixer.py")
    model = holo.build("ideas/mixer.py:Mean", vocab_size=11, scale=2.0)
    assert model(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 11)
    assert holo.models()[-1] == "mixer.py:Mean"
    assert registry.mechanism("mixer.py:Mean") == "The mean of everything so far."
    assert registry.preset_names("mixer.py:Mean") == []
    assert code_fingerprint("mixer.py:Mean") != code_fingerprint("vanilla")


def test_a_file_in_a_package_has_presets_and_neighbours() -> None:
    write("idea/__init__.py", "")
    write("idea/size.py", "WIDTH = 24\n")
    text = MIXER.replace("width: int = 16", "width: int = WIDTH")
    write("idea/mixer.py", "from .size import WIDTH\n" + text)
    write("idea/reference.py", "CASES = {'one': {}}\n")
    write("idea/presets/tiny.toml", "[model]\nlayers = 3\n")
    resolved = resolve(registry.use("idea/mixer.py:Mean"), env={})
    assert (resolved.preset, resolved.model.layers, resolved.model.width) == ("tiny", 3, 24)
    reference = registry.part("mixer.py:Mean", "reference")
    assert reference is not None
    assert reference.CASES == {"one": {}}
    assert registry.part("mixer.py:Mean", "views") is None
    assert len(registry.code_files("mixer.py:Mean")) == 4


@pytest.mark.parametrize(
    ("name", "text", "code", "match"),
    [
        ("gone.py:Mean", MIXER, 2, "There is no model file 'gone.py'"),
        ("a.py", MIXER, 2, "Write a.py:Last or a.py:Mean"),
        ("a.py:Maen", MIXER, 2, "Did you mean 'Mean'?"),
        ("a.py:NotAMixer", MIXER, 2, "this class is not a mixer"),
        ("a.py:Half", MIXER, 2, "this class lacks forward, step"),
        ("a.py:Mean", "x = 1\nfrom nowhere_at_all import y\n", 1, "ModuleNotFoundError.*line 2"),
        ("a.py:Mean", "x = 1\n\ny = (\n", 1, "SyntaxError.*line 3"),
        ("a.py:Mean", "def f():\n    return 1 / 0\n\nf()\n", 1, "ZeroDivisionError.*line 2"),
        ("a.py:Mean", MIXER.replace("Config(BackboneConfig)", "Config"), 2, "Config of its module"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(
    name: str, text: str, code: int, match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    write("a.py", text)
    got, said = run(capsys, "train", "--model", name, "--dry-run")
    assert got == code, said
    assert re.search(match, said), said
    assert len(said.splitlines()) <= 2
    assert "Traceback" not in said


def test_an_unknown_key_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.py")
    code, said = run(capsys, "train", "--model", "a.py:Mean", "--set", "model.scael=2", "--dry-run")
    assert code == 2
    assert "model.scael (--set): unknown key." in said
    assert "Did you mean 'model.scale'?" in said


def test_two_files_of_one_name_are_refused() -> None:
    registry.use(write("a/mixer.py") + ":Mean")
    with pytest.raises(UsageError, match="would both be the model"):
        registry.use(write("b/mixer.py") + ":Mean")
