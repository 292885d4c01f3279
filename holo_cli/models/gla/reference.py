"""Gated linear attention, one position and one head at a time (see `models/oracle.py`)."""

from __future__ import annotations

from typing import Any

import torch

from holo_cli.models.gla.attention import GatedLinearAttention
from holo_cli.models.oracle import Inputs, Vectors, joined, norm, recur, sigmoid, silu

# Rotary positions and width 32, because the published form has no positions to count by, and within
# the suite's 200 steps it does not learn to name the token nine places back.
CASES: dict[str, dict[str, Any]] = {"gla": {"width": 32, "decay_rank": 4, "rope_fraction": 1.0}}


def mix(mixer: GatedLinearAttention, inputs: Inputs) -> Vectors:
    w_q, w_k = mixer.qk.weight.chunk(2)
    w_v, w_g = mixer.vg.weight.chunk(2)
    keys, values = mixer.key_width, mixer.value_width
    read: list[Vectors] = []
    for h in range(mixer.heads):
        key, value = slice(h * keys, (h + 1) * keys), slice(h * values, (h + 1) * values)
        transitions, writes, queries = [], [], []
        for t, u in enumerate(inputs):
            logit = mixer.decay_up.weight[key] @ (mixer.decay_down.weight @ u)
            alpha = sigmoid(logit + mixer.decay_bias[key]) ** (1 / mixer.temperature)
            transitions.append(torch.diag(alpha))
            writes.append(torch.outer(inputs.rotate(w_k[key] @ u, t), w_v[value] @ u))
            queries.append(inputs.rotate(w_q[key] @ u, t) / keys**0.5)
        read.append([norm(o) for o in recur(transitions, writes, queries)])
    return [
        mixer.out.weight @ (o * silu(w_g @ u)) for o, u in zip(joined(read), inputs, strict=True)
    ]
