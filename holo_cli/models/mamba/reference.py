"""Mamba-2 and Mamba-3 in their slow obvious form, and what the contract suite needs to know.

One position, one head and one layer at a time, by the papers' recurrences, in the dtype of the
weights; Mamba-3's state is of complex numbers that turn, where the fast path rotates B and C.
Shares no code with the fast path and reads only its weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.layers.conv import ShortConv
from holo_cli.layers.mlp import MLP
from holo_cli.models.base import LanguageModel
from holo_cli.models.mamba.mixer import StateSpaceMixer
from holo_cli.models.mamba.model import Model
from holo_cli.models.mamba.version2 import Mamba2
from holo_cli.models.mamba.version3 import Mamba3

# Config overrides on top of the suite's small shapes.
CASES: dict[str, dict[str, Any]] = {
    "mamba-2": {"version": 2, "state_size": 16},
    "mamba-3": {"version": 3, "state_size": 16, "rope_fraction": 0.5},
}
# How many tokens back the suite may ask for by place, where the claim is less than the suite's own
# number: Mamba-2 has no code of position and learns to count tokens slowly. That it recalls by
# content beyond its convolution is shown in tests/models/mamba.
LOOK_BACK: dict[str, int] = {"mamba-2": 5}


def disable(model: LanguageModel) -> None:
    """Switch the mixing of tokens off, for good: no mixer writes into the stream."""
    for module in model.modules():
        if isinstance(module, StateSpaceMixer):
            nn.init.zeros_(module.out.weight)
            module.out.weight.requires_grad_(False)


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T, V), row by row."""
    assert isinstance(model, Model)
    return torch.stack([_row(model, row) for row in tokens])


def _row(model: Model, row: Tensor) -> Tensor:
    cap = model.config.soft_cap
    stream = [_norm(model.embedding.token.weight[token]) for token in row]
    for block in model._blocks():
        mixer = block.mixer
        assert isinstance(mixer, StateSpaceMixer)
        assert isinstance(block.mlp, MLP)
        for t, y in enumerate(_mix(mixer, [_norm(x) for x in stream])):
            stream[t] = stream[t] + mixer.out.weight @ y
            hidden = (block.mlp.up.weight @ _norm(stream[t])).clamp_min(0) ** 2
            stream[t] = stream[t] + block.mlp.down.weight @ hidden
    out = torch.stack([model.head.weight @ _norm(x) for x in stream])
    return cap * torch.tanh(out / cap)


def _mix(mixer: StateSpaceMixer, inputs: list[Tensor]) -> list[Tensor]:
    """What the output projection reads at each position, (D,)."""
    z, x = zip(*((mixer.in_proj.weight @ u).chunk(2) for u in inputs), strict=True)
    bc = [mixer.bc_proj.weight @ u for u in inputs]
    inner, bc = _convolved(mixer.conv_x, list(x)), _convolved(mixer.conv_bc, bc)
    controls = [mixer.control_proj.weight @ u for u in inputs]
    width = mixer.config.head_width
    heads = []
    for h in range(mixer.config.heads):
        values = [v[h * width : (h + 1) * width] for v in inner]
        recurrence = _mamba2 if isinstance(mixer, Mamba2) else _mamba3
        heads.append(recurrence(mixer, h, values, bc, controls))  # type: ignore[arg-type]
    out = []
    for t in range(len(inputs)):
        y = torch.cat([head[t] for head in heads])
        y = y * z[t] / (1 + (-z[t]).exp())
        out.append(_norm(y) if isinstance(mixer, Mamba2) else y)
    return out


def _mamba2(
    mixer: Mamba2, h: int, x: list[Tensor], bc: list[Tensor], controls: list[Tensor]
) -> list[Tensor]:
    state = torch.zeros(len(bc[0]) // 2, len(x[0]), dtype=x[0].dtype)
    out = []
    for t in range(len(x)):
        b, c = bc[t].chunk(2)
        dt = _softplus(controls[t][h] + mixer.dt_bias[h])
        state = (-dt * mixer.a_log[h].exp()).exp() * state + dt * torch.outer(b, x[t])
        out.append(c @ state + mixer.skip[h] * x[t])
    return out


def _mamba3(
    mixer: Mamba3, h: int, x: list[Tensor], bc: list[Tensor], controls: list[Tensor]
) -> list[Tensor]:
    config = mixer.config
    heads, size, pairs = config.heads, config.state_size, config.state_size // 2
    gain_b, gain_c = mixer.bc_gain.view(2, size)
    bias_b, bias_c = mixer.bc_bias.view(2, heads, size)[:, h]
    state = torch.zeros(pairs, len(x[0]), dtype=torch.complex128)
    added = torch.zeros_like(state)  # B_{t-1} x_{t-1}
    out = []
    for t in range(len(x)):
        b, c = bc[t].chunk(2)
        b, c = _norm(b) * gain_b + bias_b, _norm(c) * gain_c + bias_c
        b, c = torch.complex(b[:pairs], b[pairs:]), torch.complex(c[:pairs], c[pairs:])
        dt = _softplus(controls[t][h] + mixer.dt_bias[h])
        alpha = (-dt * _softplus(controls[t][heads + h]).clamp_min(1e-4)).exp()
        share = 1 / (1 + (-controls[t][2 * heads + h]).exp())
        turn = dt * math.pi * torch.tanh(controls[t][3 * heads :])
        turn = torch.cat((turn, turn.new_zeros(pairs - len(turn))))[:, None]
        back = torch.polar(torch.ones_like(turn), -turn)  # as seen by a C that does not turn
        state, added = back * state, back * added
        now = b[:, None] * x[t]
        state = alpha * state + (1 - share) * dt * alpha * added + share * dt * now
        added = now
        out.append((c.conj() @ state).real + mixer.skip[h] * x[t])
    return out


def _norm(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()


def _softplus(x: Tensor) -> Tensor:
    return (1 + x.exp()).log()


def _convolved(conv: ShortConv | None, inputs: list[Tensor]) -> list[Tensor]:
    """The silu of the weighted sum of the last inputs at each position."""
    if conv is None:
        return inputs
    out = []
    for t in range(len(inputs)):
        x = torch.zeros_like(inputs[0])
        for k in range(min(conv.taps, t + 1)):
            x = x + conv.weight[k] * inputs[t - k]
        out.append(x / (1 + (-x).exp()))
    return out
