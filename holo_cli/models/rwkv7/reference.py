"""RWKV-7's time mixing, one position and one head at a time (see `models/oracle.py`)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from holo_cli.models.oracle import (
    Inputs,
    Vectors,
    added,
    joined,
    recur,
    sigmoid,
    unit,
)
from holo_cli.models.rwkv7.time_mix import TimeMix

# Rotary positions, because the published form does not learn within the suite's 200 steps to name
# the token nine places back. Without the token shift, behind a convolution, the model is tested in
# tests/models/rwkv7.
CASES: dict[str, dict[str, Any]] = {"shift": {"rank": 4, "rope_fraction": 1.0}}


def _group_norm(x: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.pow(2).mean() + 1e-5 * len(x)).sqrt()


def mix(mixer: TimeMix, inputs: Inputs) -> Vectors:
    width = mixer.key_width
    shifted = []
    for t, u in enumerate(inputs):
        before = inputs[t - 1] if t else torch.zeros_like(u)
        mixed = {name: u + m * (before - u) for name, m in mixer.shift.items()}
        shifted.append(mixed or dict.fromkeys("rwkvag", u))
    read: list[Vectors] = []
    for h in range(mixer.heads):
        at = slice(h * width, (h + 1) * width)
        transitions, writes, queries, bonuses = [], [], [], []
        for t, x in enumerate(shifted):
            r, k, v = (
                m.weight[at] @ x[name]
                for m, name in ((mixer.receptance, "r"), (mixer.key, "k"), (mixer.value, "v"))
            )
            decay = mixer.decay_up.weight[at] @ (mixer.decay_down.weight @ x["w"]).tanh()
            w = (-math.exp(-0.5) * sigmoid(mixer.decay_bias[at] + decay)).exp()
            rate = mixer.rate_up.weight[at] @ (mixer.rate_down.weight @ x["a"])
            a = sigmoid(mixer.rate_bias[at] + rate)
            erased = inputs.rotate(unit(k * mixer.erase[at]), t)
            written = inputs.rotate(k * (1 + (a - 1) * mixer.replace[at]), t)
            r = inputs.rotate(r, t)
            transitions.append(torch.diag(w) - torch.outer(a * erased, erased))
            writes.append(torch.outer(written, v))
            queries.append(r)
            bonuses.append((r * mixer.bonus[at] * written).sum() * v)
        gain, bias = mixer.norm_gain[at], mixer.norm_bias[at]
        normed = [_group_norm(o) * gain + bias for o in recur(transitions, writes, queries)]
        read.append(added(normed, bonuses))
    out = []
    for y, x in zip(joined(read), shifted, strict=True):
        gate = mixer.gate_up.weight @ sigmoid(mixer.gate_down.weight @ x["g"])
        out.append(mixer.out.weight @ (y * gate))
    return out
