"""What is true of RWKV-7 only."""

from __future__ import annotations

import math

import pytest
import torch

from holo_cli.models import oracle
from holo_cli.models.rwkv7 import reference
from holo_cli.models.rwkv7.config import Config
from holo_cli.models.rwkv7.model import Model
from holo_cli.models.rwkv7.time_mix import TimeMix

SHAPE = {"vocab_size": 29, "layers": 2, "heads": 2, "width": 16, "context": 32, "rank": 4}


def awake(**given: int) -> Model:
    torch.manual_seed(0)
    model = Model(Config(**{**SHAPE, **given})).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    return model


def test_behind_a_convolution_there_is_no_token_shift() -> None:
    """The convolution stands in: no shift parameters, no input kept, same as the reference."""
    model = awake(conv=3)
    assert not [name for name, _ in model.named_parameters() if ".shift." in name]
    tokens = torch.randint(0, 29, (2, 9))
    with torch.no_grad():
        whole = model(tokens)
        torch.testing.assert_close(whole, oracle.logits(reference, model, tokens))
        first, state = model.step(tokens[:, :5], model.init_state(2))
        assert state.mixers[0].last is None  # type: ignore[attr-defined]
        second, _ = model.step(tokens[:, 5:], state)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole)
    assert awake().blocks[0].mixer.state_bytes(9) == 2 * 8 * 8 * 8 + 16 * 8  # type: ignore


def test_decays_stay_between_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """exp(-exp(-1/2)) < w < 1, and the transition never grows the state: its singular values are
    at most 1 when the learning rate is."""
    seen = []
    mixer = awake().blocks[0].mixer
    assert isinstance(mixer, TimeMix)
    recur = mixer.recur
    monkeypatch.setattr(
        mixer, "recur", lambda given, state: (seen.append(given), recur(given, state))[1]
    )
    with torch.no_grad():
        mixer(50 * torch.randn(2, 9, 16, dtype=torch.float64))
    (given,) = seen
    assert given.log_decay.max() <= 0
    assert given.log_decay.min() >= -math.exp(-0.5)
    assert given.log_decay.min() < -0.5  # such inputs do reach the bound
    read = given.b * given.log_decay.exp()  # the undecayed state's row
    torch.testing.assert_close(read.norm(dim=-1), torch.ones_like(read[..., 0]))
    assert (given.a.abs() <= read.abs() + 1e-12).all()
