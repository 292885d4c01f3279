"""A checkpoint, a plan or a row that names a file must never lead to its import.

EVIL leaves a mark if it is run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

import holo_cli as holo
from holo_cli import plugins
from holo_cli.checkpoint.digest import DIGEST_KEY, text_digest
from holo_cli.config.resolve import Resolved
from holo_cli.errors import CheckpointError, UsageError
from holo_cli.experiment.entries import identity_of_row
from holo_cli.experiment.plan import read_plan
from tests.plugins.plugin_lab import EVIL, run, write


def forge(path: Path, model: str, needs: dict[str, str] | None = None) -> Path:
    """The same checkpoint, with another model in its header."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["holo"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header |= {"model": model, "needs": {} if needs is None else needs}
    forged = json.dumps(header)
    save_file(tensors, path, {"holo": forged, DIGEST_KEY: text_digest(forged)})
    return path


def test_a_run_of_a_file_is_used_by_every_command(
    trained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ("--model", "ideas/mixer.py:Mean")
    for command in (
        ("resume", trained),
        ("generate", "-c", trained, "-p", "The", "--max-new-tokens", "3"),
        ("visualize", "coords", "-c", trained),
        ("eval", "-c", trained, "--max-docs", "1"),
        ("export", trained, "--to", "weights", "--force"),
    ):
        code, said = run(capsys, *command, *named)
        assert code == 0, said
    code, said = run(capsys, "inspect", trained)
    assert "ideas/mixer.py" in said
    code, said = run(capsys, "export", trained, "--to", "hf", *named)
    assert code == 2
    assert "is a class in a file, which transformers cannot find again" in said


def test_a_checkpoint_says_what_it_needs(
    trained: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (
        ("generate", "-p", "a", "-c"),
        ("resume",),
        ("visualize", "coords"),
        ("eval", "-c"),
    ):
        code, said = run(capsys, *command, trained)
        assert code == 1, said
        assert "needs the model 'mixer.py:Mean', a class in a Python file, which was" in said
        assert "--model ideas/mixer.py:Mean" in said
    Path("ideas").rename("moved")
    Path("moved/mixer.py").rename("moved/other.py")
    assert holo.load(trained, model="moved/other.py:Mean").config.width == 16
    monkeypatch.setattr(plugins, "_named", {})
    monkeypatch.setenv(plugins.VARIABLE, "moved/other.py:Mean")
    assert holo.load(trained).config.width == 16
    best = Path("checkpoints/Mean-stories_best.safetensors")
    forge(best, "mean-of-all", {"package": "ideas-one", "version": "1.0"})
    with pytest.raises(CheckpointError) as error:
        holo.load(best)
    assert "the model 'mean-of-all' of the package ideas-one 1.0" in str(error.value)
    assert "pip install ideas-one" in str(error.value)


@pytest.mark.parametrize(
    "model", ["evil.py:Mean", "./evil.py:Mean", "evil:Mean", "evil", "evil.mixer", "evil.py"]
)
def test_a_checkpoint_never_leads_to_an_import(
    trained: str, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("evil.py", EVIL)
    monkeypatch.syspath_prepend(str(Path.cwd()))  # as `python -m holo_cli` has it
    for kind in ("best", "last"):
        path = forge(
            Path(f"checkpoints/{trained}_{kind}.safetensors"),
            model,
            {"file": "evil.py", "class": "Mean"},
        )
        with pytest.raises(UsageError):
            Resolved.from_dict({"model": model, "config": {"model": {}}})
        row = {"model": model, "config": {"model": {}, "training": {}, "data": {}}}
        assert identity_of_row(row, "") is None
    for command in (
        ("generate", "-p", "a", "-c"), ("resume",), ("visualize", "coords"), ("eval", "-c"),
        ("export", "--to", "weights"), ("inspect",),
    ):  # fmt: skip
        code, said = run(capsys, *command, str(path))
        assert code == (0 if command == ("inspect",) else 1), said
    assert "evil" not in sys.modules
    assert not Path("EVIL").exists()


def test_a_plan_or_a_config_never_leads_to_an_import(capsys: pytest.CaptureFixture[str]) -> None:
    write("evil.py", EVIL)
    write("plan.toml", '[entry.x]\nmodel = "evil.py:Mean"\n')
    with pytest.raises(UsageError, match="was not named"):
        read_plan(Path("plan.toml"))
    write("my.toml", 'name = "evil.py:Mean"\n')
    code, said = run(capsys, "train", "--config", "my.toml", "--dry-run")
    assert code == 2
    assert "was not named" in said
    assert not Path("EVIL").exists()


def test_a_prepared_set_never_leads_to_an_import(
    trained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("evil.py", EVIL)
    meta = Path("data/stories/meta.json")
    found = json.loads(meta.read_text(encoding="utf-8"))
    found |= {"model": "evil.py:Mean", "needs": {"file": "evil.py", "class": "Mean"}}
    meta.write_text(json.dumps(found), encoding="utf-8")
    Path("data/stories/evil.py").write_text(EVIL, encoding="utf-8")
    run(capsys, "train", "--model", "vanilla", "--data", "stories", "--dry-run")
    assert not Path("EVIL").exists()
