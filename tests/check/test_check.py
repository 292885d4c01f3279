"""Each check of the contract fails for a mixer that breaks it, and `holo check` says which."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from holo_cli import plugins, registry
from holo_cli.__main__ import main
from holo_cli.check.cases import cases_of
from holo_cli.check.contract import CHECKS, FAILED, NOT_CLAIMED, PASSED, run_check
from holo_cli.errors import UsageError

# A sum that fades, with a mark for each place that a fault is put in.
MIXER = '''
from dataclasses import dataclass

import torch
from torch import nn

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.layers.interfaces import Mixer
from holo_cli.models.oracle import Claims


class Config(BackboneConfig):
    """Nothing of its own."""


CLAIMS = {"defaults": Claims(recall=None)}


@dataclass
class Sum:
    total: torch.Tensor

    def select(self, rows):
        return Sum(self.total.index_select(0, rows))

    def tensors(self):
        yield self.total


class Fading(Mixer):
    def __init__(self, config):
        super().__init__()
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        # PARAMETERS

    def finish_initialisation(self):
        nn.init.zeros_(self.out.weight)

    def init_state(self, batch):
        return Sum(self.out.weight.new_zeros(batch, self.out.in_features))

    def forward(self, x):
        y = self.step(x, self.init_state(x.shape[0]))[0]
        # FORWARD
        return y, {}

    def step(self, x, state):
        total, parts = state.total, []
        for t, v in enumerate(self.value(x).unbind(1)):
            total = 0.95 * total + v
            # EACH
            parts.append(total)
        return self.out(torch.stack(parts, 1).to(x.dtype)), Sum(total)

    def state_bytes(self, length):
        return self.out.in_features * self.out.weight.element_size()

    def flops(self, length):
        return 0.0
'''
FAULTS = {
    "causality by gradient": ("# FORWARD", "y = y + 1e-3 * x.flip(1)"),
    "causality by replacement": ("# FORWARD", "y = y + 1e-3 * x.roll(-1, 1).detach()"),
    "reach": ("# EACH", "total = total - 0.95 * total.detach() + 0 * v; total = v"),
    "independent rows": ("# FORWARD", "y = y + 1e-3 * x.cumsum(1).mean(0)"),
    "step = forward": ("# FORWARD", "y = 1.001 * y"),
    "state is a value": (
        "total, parts = state.total, []",
        "total, parts = state.total.mul_(1.01), []",
    ),
    "selected rows": ("self.total.index_select(0, rows)", "self.total[: len(rows)].clone()"),
    "parameters trained": ("# PARAMETERS", "self.unused = nn.Parameter(torch.ones(3))"),
    "gradient checkpointing": (
        "# FORWARD",
        "self.__dict__.setdefault('n', []).append(0); y = y * len(self.n)",
    ),
    "saved tensors": (
        "# FORWARD",
        "self.register_buffer('count', getattr(self, 'count', torch.zeros(())) + 1)",
    ),
    "overfits a batch": ("# FORWARD", "y = y + 1e9 * x.detach()"),
    "parameters and state": (
        "return self.out.in_features *",
        "return 2 * self.out.in_features *",
    ),
    "FLOPs": ("return 0.0", "return 1e6"),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_named", {})


def written(text: str = MIXER) -> str:
    Path("mixer.py").write_text(text, encoding="utf-8")
    return "mixer.py:Fading"


def results(name: str, only: Callable[[str], bool] = bool) -> dict[str, str]:
    """What the checks find, by name; a failed one with its message."""
    (case,) = cases_of(registry.use(name))
    found = [run_check(check, case) for check in CHECKS if only(check.name)]
    return {f.check: f.result if f.result != FAILED else f"{FAILED}: {f.message}" for f in found}


def test_a_right_mixer_passes_and_what_it_does_not_claim_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", written(), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = {row["check"]: row["result"] for row in document["checks"]}
    assert document["passed"]
    assert found.pop("disabling hurts") == NOT_CLAIMED
    assert found.pop("fast = reference") == found.pop("gradients = reference") == "no reference"
    assert set(found.values()) == {PASSED}


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_fails_its_check(check: str) -> None:
    old, new = FAULTS[check]
    assert MIXER.count(old) == 1
    found = results(written(MIXER.replace(old, new)), lambda name: name == check)
    assert found[check].startswith(FAILED), found


def test_a_reference_that_differs_fails() -> None:
    text = MIXER + "\n\ndef mix(mixer, inputs):\n    return [x * 0 for x in inputs]\n"
    found = results(written(text), lambda name: "reference" in name)
    assert all(f.startswith(FAILED) for f in found.values()), found


def test_a_mixer_that_cannot_recall_says_what_to_declare() -> None:
    found = results(written(MIXER.replace("recall=None", "recall=9")), lambda n: "hurts" in n)
    assert "CLAIMS = {" in found["disabling hurts"]


def test_a_mixer_that_stays_on_when_disabled_fails() -> None:
    on = "    def disable(self):\n        pass\n\n    def state_bytes"
    text = MIXER.replace("recall=None", "recall=1").replace("    def state_bytes", on)
    found = results(written(text), lambda name: "hurts" in name)
    assert "or disable() leaves the mixer on" in found["disabling hurts"]


@pytest.mark.parametrize("wrong_after", ["x.shape[1] > 1", "x.shape[1] == 1", "x.shape[1] == 16"])
def test_a_state_that_is_wrong_after_some_pieces_fails(wrong_after: str) -> None:
    text = MIXER.replace("Sum(total)", f"Sum(total * (1.001 if {wrong_after} else 1.0))")
    found = results(written(text), lambda name: name == "step = forward")
    assert "against forward" in found["step = forward"]


def test_a_run_that_differs_after_a_stop_fails() -> None:
    numbered = "self.number = Fading.made = getattr(Fading, 'made', 0) + 1"
    text = MIXER.replace("# PARAMETERS", numbered)
    text = text.replace("# FORWARD", "y = y * (1 + self.number / 1e3)")
    found = results(written(text), lambda name: name == "stop and resume")
    assert "differs after a stop" in found["stop and resume"]


def test_the_first_failure_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    name = written(MIXER.replace("# FORWARD", "raise RuntimeError('not today')"))
    assert main(["check", name, "--markdown", "-q"]) == 1
    said = capsys.readouterr()
    assert "| check | required | measured | result |" in said.out
    assert "fails 'shapes' in case defaults: RuntimeError: not today" in said.err
    assert "mixer.py:" in said.err
    assert "more failed." in said.err


def test_what_cannot_be_checked_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "vanila"]) == 2
    assert "Did you mean 'vanilla'?" in capsys.readouterr().err
    assert main(["check", "vanilla", "--case", "modren"]) == 2
    assert "Did you mean 'modern'?" in capsys.readouterr().err
    text = MIXER.replace('"""Nothing of its own."""', "heads: int = Field(3, ge=3)")
    name = registry.use(written("from pydantic import Field\n" + text))
    with pytest.raises(UsageError, match="refuses the shape of the checks"):
        cases_of(name)[0].build()
