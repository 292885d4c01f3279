"""Mamba-2 and Mamba-3 by the papers' recurrences, one position and one head at a time.

Mamba-3's state is of complex numbers that turn, where the fast path rotates B and C. See
`models/oracle.py`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from holo_cli.models.mamba.version2 import Mamba2
from holo_cli.models.mamba.version3 import Mamba3
from holo_cli.models.oracle import (
    Claims,
    Inputs,
    Vectors,
    convolved,
    joined,
    norm,
    sigmoid,
    silu,
    softplus,
)

CASES: dict[str, dict[str, Any]] = {
    "mamba-2": {"version": 2, "state_size": 16},
    "mamba-3": {"version": 3, "state_size": 16, "rope_fraction": 0.5},
}
# Mamba-2 has no code of position and learns to count tokens slowly. That it recalls by content
# beyond its convolution is shown in tests/models/mamba.
CLAIMS = {"mamba-2": Claims(recall=5)}


def mix(mixer: Mamba2 | Mamba3, inputs: Inputs) -> Vectors:
    z, x = zip(*((mixer.in_proj.weight @ u).chunk(2) for u in inputs), strict=True)
    inner = convolved(mixer.conv_x, x)
    bc = convolved(mixer.conv_bc, [mixer.bc_proj.weight @ u for u in inputs])
    controls = [mixer.control_proj.weight @ u for u in inputs]
    width = mixer.config.head_width
    heads = []
    for h in range(mixer.config.heads):
        values = [v[h * width : (h + 1) * width] for v in inner]
        if isinstance(mixer, Mamba2):
            heads.append(_mamba2(mixer, h, values, bc, controls))
        else:
            heads.append(_mamba3(mixer, h, values, bc, controls))
    gated = [y * silu(gate) for y, gate in zip(joined(heads), z, strict=True)]
    return [mixer.out.weight @ (norm(y) if isinstance(mixer, Mamba2) else y) for y in gated]


def _mamba2(mixer: Mamba2, h: int, x: Vectors, bc: Vectors, controls: Vectors) -> Vectors:
    state = torch.zeros(len(bc[0]) // 2, len(x[0]), dtype=x[0].dtype)
    out = []
    for t in range(len(x)):
        b, c = bc[t].chunk(2)
        dt = softplus(controls[t][h] + mixer.dt_bias[h])
        state = (-dt * mixer.a_log[h].exp()).exp() * state + dt * torch.outer(b, x[t])
        out.append(c @ state + mixer.skip[h] * x[t])
    return out


def _mamba3(mixer: Mamba3, h: int, x: Vectors, bc: Vectors, controls: Vectors) -> Vectors:
    config = mixer.config
    heads, size, pairs = config.heads, config.state_size, config.state_size // 2
    gain_b, gain_c = mixer.bc_gain.view(2, size)
    bias_b, bias_c = mixer.bc_bias.view(2, heads, size)[:, h]
    state = torch.zeros(pairs, len(x[0]), dtype=torch.complex128)
    before = torch.zeros_like(state)  # B_{t-1} x_{t-1}
    out: list[Tensor] = []
    for t in range(len(x)):
        b, c = bc[t].chunk(2)
        b, c = norm(b) * gain_b + bias_b, norm(c) * gain_c + bias_c
        b, c = torch.complex(b[:pairs], b[pairs:]), torch.complex(c[:pairs], c[pairs:])
        dt = softplus(controls[t][h] + mixer.dt_bias[h])
        alpha = (-dt * softplus(controls[t][heads + h]).clamp_min(1e-4)).exp()
        share = sigmoid(controls[t][2 * heads + h])
        turn = dt * math.pi * torch.tanh(controls[t][3 * heads :])
        turn = torch.cat((turn, turn.new_zeros(pairs - len(turn))))[:, None]
        back = torch.polar(torch.ones_like(turn), -turn)  # as seen by a C that does not turn
        state, before = back * state, back * before
        now = b[:, None] * x[t]
        state = alpha * state + (1 - share) * dt * alpha * before + share * dt * now
        before = now
        out.append((c.conj() @ state).real + mixer.skip[h] * x[t])
    return out
