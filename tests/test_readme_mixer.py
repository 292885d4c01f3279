"""The mixer on the models' page is complete: it is taken from there, checked, and trained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holo_cli import plugins, registry
from holo_cli.__main__ import main
from holo_cli.check.cases import cases_of
from holo_cli.check.contract import CHECKS, PASSED, run_check
from holo_cli.data.prepare.prepare import prepare
from holo_cli.models.base import LanguageModel
from tests.plugins.plugin_lab import SMALL

README = Path(registry.__file__).parent / "models" / "README.md"


@pytest.fixture
def mixer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its file, in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_named", {})
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    (text,) = (block for block in blocks if "class MovingAverage" in block)
    assert len(text.splitlines()) < 60
    Path("mixer.py").write_text(text, encoding="utf-8")
    return "mixer.py:MovingAverage"


def test_it_keeps_the_contract(mixer: str) -> None:
    (case,) = cases_of(registry.use(mixer))
    found = [run_check(check, case) for check in CHECKS]
    assert {result.result for result in found} == {PASSED}, found


def test_it_trains_and_writes(mixer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(["stories"], out=Path("data/stories"), tokenizer="char", max_docs=30)
    for name, value in (SMALL | {"HOLO_MODEL_CONTEXT": "16", "HOLO_MODEL_LAYERS": "1"}).items():
        monkeypatch.setenv(name, value)
    assert main(["train", "--model", mixer]) == 0
    assert main(["generate", "--model", mixer, "-p", "The", "--max-new-tokens", "2"]) == 0


def test_the_defaults_are_those_that_the_page_lists() -> None:
    text = README.read_text(encoding="utf-8")
    section = text.partition("All other methods have a default")[2].partition("\n\nA state is")[0]
    from holo_cli.layers.interfaces import Mixer

    listed = re.findall(r"^\| `(\w+)\(", section, re.M)
    assert len(listed) == 7
    for name in listed:
        method = getattr(Mixer, name)
        assert not getattr(method, "__isabstractmethod__", False), name
    assert Mixer.__abstractmethods__ == {"forward", "step"}
    for name in ("no_muon", "splits"):
        assert f"weight.{name}" in section + text
    assert "no_muon" in Path(LanguageModel.matrices.__code__.co_filename).read_text()
