"""A mixer in a file, one that leaves a mark when it is imported, and commands in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from holo_cli.__main__ import main

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


def write(path: str, text: str = MIXER) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out + said.err
