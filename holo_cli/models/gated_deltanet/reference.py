"""The gated delta rule, one position and one head at a time (see `models/oracle.py`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holo_cli.models.gated_deltanet.delta import ChannelGates, GatedDelta, HeadGates
from holo_cli.models.oracle import (
    Inputs,
    Vectors,
    joined,
    norm,
    recur,
    sigmoid,
    silu,
    softplus,
    unit,
)

# Rotary positions and width 32, because the published form has no positions to count by, and within
# the suite's 200 steps it does not learn to name the token nine places back.
CASES: dict[str, dict[str, Any]] = {
    "gdn": {"width": 32, "conv": 0, "rope_fraction": 1.0},
    "gdn2": {"width": 32, "gates": "gdn2", "rope_fraction": 1.0},
}


def _alpha(mixer: GatedDelta, head: int, logit: Tensor, bias: Tensor) -> Tensor:
    return (-mixer.rate[head].exp() * softplus(logit + bias)).exp()


def mix(mixer: HeadGates | ChannelGates, inputs: Inputs) -> Vectors:
    w_q, w_k, w_v = mixer.qkv.weight.chunk(3)
    width = mixer.key_width
    eye = torch.eye(width, dtype=w_q.dtype)
    read: list[Vectors] = []
    for h in range(mixer.heads):
        at = slice(h * width, (h + 1) * width)
        transitions, writes, queries = [], [], []
        for t, u in enumerate(inputs):
            q, k, v = (silu(w[at] @ u) for w in (w_q, w_k, w_v))
            q, k = inputs.rotate(unit(q), t), inputs.rotate(unit(k), t)
            if isinstance(mixer, HeadGates):
                w_a, w_b = mixer.decay_write.weight.chunk(2)
                alpha = _alpha(mixer, h, w_a[h] @ u, mixer.decay_bias[h])
                beta = sigmoid(w_b[h] @ u)
                transitions.append(alpha * (eye - beta * torch.outer(k, k)))
                writes.append(beta * torch.outer(k, v))
            else:
                w_b, w_w = mixer.erase_write.weight.chunk(2)
                logit = mixer.decay_up.weight[at] @ (mixer.decay_down.weight @ u)
                alpha = _alpha(mixer, h, logit, mixer.decay_bias[at])
                erase, write = sigmoid(w_b[at] @ u), sigmoid(w_w[at] @ u)
                transitions.append((eye - torch.outer(k, erase * k)) @ torch.diag(alpha))
                writes.append(torch.outer(k, write * v))
            queries.append(q)
        read.append([norm(o) for o in recur(transitions, writes, queries)])
    return [
        mixer.out.weight @ (o * silu(mixer.gate.weight @ u))
        for o, u in zip(joined(read), inputs, strict=True)
    ]
