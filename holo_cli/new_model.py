"""`holo new-model`: a package with a working mixer to start from, written from a template.

The template is a moving average with a learned decay per channel. A test generates it, installs
nothing, and runs its checks and a training.
"""

from __future__ import annotations

import re
from pathlib import Path

from holo_cli import registry
from holo_cli.errors import UsageError
from holo_cli.files import atomic_write_text

PYPROJECT = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "holo-NAME"
version = "0.1.0"
dependencies = ["holo-cli"]

[project.entry-points."holo.models"]
NAME = "PACKAGE.mixer:CLASS"

[tool.setuptools]
packages = ["PACKAGE"]

[tool.setuptools.package-data]
PACKAGE = ["presets/*.toml"]
"""
CONFIG = '''\
"""What can be set about NAME: each key with its range and what it is."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.config.tunable import tunable


class Config(BackboneConfig):
    """The keys of the backbone (width, layers, ...), and those of this mixer."""

    mechanism: ClassVar[str] = "a moving average with a learned decay per channel"

    half_life: float = Field(
        64.0, gt=1, le=1e6, description="longest half-life at initialisation, in tokens",
        json_schema_extra=tunable(8.0, 512.0, log=True),
    )
'''
MIXER = '''\
"""NAME: a moving average with a learned decay per channel.

    m_t = a m_{t-1} + (1 - a) W_v u_t,    out_t = W_o m_t,    a = sigmoid(decay)

Legend: B rows, S positions, C width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holo_cli.layers.interfaces import Aux, Mixer

from .config import Config


class CLASS(Mixer):
    """A moving average of the past. Its state is the average so far, (B, C)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.half_life = config.half_life
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.decay = nn.Parameter(torch.empty(config.width))
        self.out = nn.Linear(config.width, config.width, bias=False)

    def finish_initialisation(self) -> None:
        """Half-lives from 1 to `half_life` tokens; the block starts as the identity."""
        spread = torch.linspace(0, 1, len(self.decay))
        a = 0.5 ** (self.half_life**-spread)
        self.decay.copy_(torch.log(a / (1 - a)))
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Aux]:
        return self.step(x, None)[0], {}

    def step(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        a = self.decay.sigmoid()
        m = (1 - a) * self.value(x)  # (B, S, C)
        if state is not None:
            m = torch.cat((m[:, :1] + a * state[:, None], m[:, 1:]), dim=1)
        shift = 1
        while shift < m.shape[1]:  # sums over 1, 2, 4, ... positions
            m = m + a**shift * F.pad(m, (0, 0, shift, 0))[:, :-shift]
            shift *= 2
        return self.out(m.to(x.dtype)), m[:, -1]
'''
REFERENCE = '''\
"""The formula of NAME, one position at a time, and what `holo check` has to know."""

from __future__ import annotations

from typing import Any

import torch

from holo_cli.models.oracle import Claims, Inputs, Vectors, sigmoid

from .mixer import CLASS

CASES: dict[str, dict[str, Any]] = {"default": {}, "short": {"half_life": 8.0}}
# an average has no code of position: further back than this it does not name a token
CLAIMS = {"default": Claims(recall=3), "short": Claims(recall=3)}


def mix(mixer: CLASS, inputs: Inputs) -> Vectors:
    """The vectors (C,) at each position -> what the mixer adds there, (C,)."""
    a, mean, out = sigmoid(mixer.decay), torch.zeros_like(mixer.decay), []
    for u in inputs:
        mean = a * mean + (1 - a) * (mixer.value.weight @ u)
        out.append(mixer.out.weight @ mean)
    return out
'''
PRESET = """\
# Seconds a hundred steps on two cores: the first thing to try.

[model]
layers = 4
heads = 4
width = 128
context = 128

[training]
steps = 1000
batch_size = 16
eval_every = 250
"""
TEST = '''\
"""The contract of every model, and what is true of NAME only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import holo_cli as holo
from holo_cli import registry
from holo_cli.check.cases import Case, cases_of
from holo_cli.check.contract import CHECKS, Check

FILE = Path(__file__).parents[1] / "PACKAGE" / "mixer.py"
MODEL = registry.use(f"{FILE}:CLASS")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("case", cases_of(MODEL), ids=lambda case: case.label)
def test_contract(case: Case, check: Check) -> None:
    if reason := check.skipped(case):
        pytest.skip(reason)
    check.run(case)


def test_old_tokens_fade() -> None:
    model = holo.build(MODEL, vocab_size=11, layers=1, width=16, heads=2, half_life=8.0)
    mixer = model.blocks[0].mixer
    x = torch.zeros(1, 40, 16)
    x[0, 0] = 1
    with torch.no_grad():
        torch.nn.init.eye_(mixer.out.weight)
        size = mixer(x)[0].norm(dim=-1)[0]
    assert (size[1:] < size[:-1]).all()
    assert size[-1] < 0.1 * size[0]
'''
README = """\
# NAME

A sequence mixer for holo.

    holo check PACKAGE/mixer.py:CLASS           # the contract, and a table for a paper
    holo train --model PACKAGE/mixer.py:CLASS
    python -m pytest tests
    pip install -e .                            # from then on: holo train --model NAME
"""


def write_model(name: str, out: Path | None) -> list[Path]:
    """Write the package of a model into `out` (default: a folder of that name); the files written.

    Raises UsageError for a name that cannot be one or is taken, and for a folder that is not empty.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(
            f"'{name}' cannot name a model.",
            next_step="Use lower-case letters, digits and hyphens, as in moving-average.",
        )
    if registry.canonical(name) is not None:
        raise UsageError(
            f"There is a model '{name}' already.", next_step="Give the new one another name."
        )
    folder = Path(name) if out is None else out
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} exists and is not empty.", next_step="Name another place with --out."
        )
    package = "holo_" + name.replace("-", "_")
    values = {
        "NAME": name,
        "PACKAGE": package,
        "CLASS": "".join(part.capitalize() for part in name.split("-")),
    }
    texts = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"{package}/__init__.py": "",
        f"{package}/config.py": CONFIG,
        f"{package}/mixer.py": MIXER,
        f"{package}/reference.py": REFERENCE,
        f"{package}/presets/tiny.toml": PRESET,
        f"tests/test_{package}.py": TEST,
    }
    for path, text in texts.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(place, re.sub(r"\b(NAME|PACKAGE|CLASS)\b", lambda m: values[m[0]], text))
    return [folder / path for path in texts]
