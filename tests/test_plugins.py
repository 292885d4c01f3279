"""Models from outside: files that a person named, entry points, and what can go wrong with them.

A checkpoint, a plan or a row that names a file must never lead to its import: EVIL leaves a mark.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import holo_cli as holo
from holo_cli import plugins, registry
from holo_cli.__main__ import main
from holo_cli.bench.experiment.code_fingerprint import code_fingerprint
from holo_cli.bench.experiment.entries import identity_of_row
from holo_cli.bench.experiment.plan import read_plan
from holo_cli.checkpoint.digest import DIGEST_KEY, text_digest
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.data.prepare.prepare import prepare
from holo_cli.errors import CheckpointError, ModelError, UsageError

MIXER = '''
import torch
from pydantic import Field
from torch import nn

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.layers.interfaces import Mixer


class Config(BackboneConfig):
    width: int = 16
    heads: int = 2
    layers: int = 1
    context: int = 16
    scale: float = Field(1.0, gt=0)


class Last:
    def __init__(self, sum, count):
        self.sum, self.count = sum, count

    def select(self, rows):
        return Last(self.sum.index_select(0, rows), self.count)

    def tensors(self):
        yield self.sum


class Mean(Mixer):
    """The mean of everything so far."""

    def __init__(self, config):
        super().__init__()
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.scale = config.scale

    def finish_initialisation(self):
        nn.init.zeros_(self.out.weight)

    def init_state(self, batch):
        return Last(self.out.weight.new_zeros(batch, self.out.in_features), 0)

    def forward(self, x):
        return self.step(x, self.init_state(x.shape[0]))[0], {}

    def step(self, x, state):
        total = state.sum[:, None] + x.cumsum(1)
        count = torch.arange(1, x.shape[1] + 1, device=x.device) + state.count
        mean = (total / count[:, None]).to(x.dtype)
        return self.out(self.scale * mean), Last(total[:, -1], state.count + x.shape[1])

    def state_bytes(self, length):
        return self.out.in_features * self.out.weight.element_size()

    def flops(self, length):
        return 0.0


class NotAMixer:
    pass


class Half(Mixer):
    """Lacks its step."""
'''
EVIL = "from pathlib import Path\nPath('EVIL').touch()\n" + MIXER
SMALL = {
    "HOLO_TRAINING_STEPS": "4",
    "HOLO_TRAINING_WARMUP": "1",
    "HOLO_TRAINING_EVAL_EVERY": "2",
    "HOLO_TRAINING_SAMPLE_TOKENS": "0",
    "HOLO_TRAINING_DEVICE": "cpu",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder, and nothing named before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_named", {})
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    yield tmp_path
    plugins.installed.cache_clear()


def write(path: str, text: str = MIXER) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out + said.err


@pytest.fixture
def stories(home: Path) -> str:
    prepare(["stories"], out=home / "data/stories", tokenizer="char", max_docs=30)
    return "stories"


@pytest.fixture
def trained(
    stories: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """A run of the class in ideas/mixer.py, of which nothing is named any more."""
    write("ideas/mixer.py")
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    code, said = run(capsys, "train", "--model", "ideas/mixer.py:Mean", "--stop-at", "2")
    assert code == 3, said
    monkeypatch.setattr(plugins, "_named", {})
    return "Mean-stories"


# -- files ----------------------------------------------------------------------------------------


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


# -- entry points ---------------------------------------------------------------------------------


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


# -- checkpoints, which never run anything --------------------------------------------------------


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


# -- other processes ------------------------------------------------------------------------------


def test_a_process_of_a_bench_finds_the_file(stories: str) -> None:
    write("ideas/mixer.py")
    registry.use("ideas/mixer.py:Mean")
    code = "from holo_cli import registry; print(registry.config_class('mixer.py:Mean').mechanism)"
    root = str(Path(holo.__file__).parents[1])
    environment = {**os.environ, **plugins.environment(), "PYTHONPATH": root}
    place = Path("elsewhere")
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "The mean of everything so far.", done.stderr


def test_bench_compares_a_file_with_a_model(
    stories: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("ideas/mixer.py")
    code, said = run(
        capsys, "bench", "compare", "--models", "ideas/mixer.py:Mean", "--preset", "tiny",
        "--data", stories, "--match", "none", "--seeds", "1", "--rates", "1", "--steps", "2",
        "--batch-size", "2", "--set", "model.layers=1", "--set", "model.width=16",
        "--set", "model.heads=2", "--context", "16", "--set", "training.device=cpu",
    )  # fmt: skip
    assert code == 0, said
    assert "mixer.py:Mean" in said
    assert "failed" not in said


def test_bench_speed_measures_a_file_at_the_common_shape(
    stories: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        "ideas/mixer.py", MIXER.replace("heads: int = 2", "heads: int = 3").replace("= 16", "= 18")
    )
    code, said = run(
        capsys, "bench", "speed", "--models", "ideas/mixer.py:Mean", "--context", "16",
        "--vocab-size", "16", "--batch-size", "1", "--repeats", "1", "--seconds", "0.01",
        "--device", "cpu", "--dtype", "float32",
    )  # fmt: skip
    assert code == 0, said
    assert "failed" not in said
