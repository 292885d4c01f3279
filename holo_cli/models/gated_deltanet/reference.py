"""gated-deltanet in its slow obvious form, and what the contract suite needs to know about it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holo_cli.models.base import LanguageModel
from holo_cli.models.gated_deltanet.delta import ChannelGates, GatedDelta, HeadGates
from holo_cli.models.recurrent import RecurrentMixer
from holo_cli.models.recurrent_reference import (
    Turn,
    backbone_logits,
    disable,
    norm,
    recur,
    sigmoid,
    unit,
)

__all__ = ["CASES", "disable", "logits"]

# Config overrides on top of the suite's small shapes: every path of the model once. Rotary
# positions and width 32, because the published form has no positions to count by, and within the
# suite's 200 steps it does not learn to name the token nine places back.
CASES: dict[str, dict[str, Any]] = {
    "gdn": {"width": 32, "conv": 0, "rope_fraction": 1.0},
    "gdn2": {"width": 32, "gates": "gdn2", "rope_fraction": 1.0},
}


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T, V), row by row."""
    return backbone_logits(model, tokens, _mix)


def _alpha(mixer: GatedDelta, head: int, logit: Tensor, bias: Tensor) -> Tensor:
    return (-mixer.rate[head].exp() * (1 + (logit + bias).exp()).log()).exp()


def _mix(mixer: RecurrentMixer, inputs: list[Tensor], turn: Turn) -> list[Tensor]:
    assert isinstance(mixer, HeadGates | ChannelGates)
    w_q, w_k, w_v = mixer.qkv.weight.chunk(3)
    width = mixer.key_width
    eye = torch.eye(width, dtype=w_q.dtype)
    read: list[list[Tensor]] = []
    for h in range(mixer.heads):
        at = slice(h * width, (h + 1) * width)
        transitions, writes, queries = [], [], []
        for t, u in enumerate(inputs):
            q, k, v = (x * sigmoid(x) for x in (w_q[at] @ u, w_k[at] @ u, w_v[at] @ u))
            q, k = turn(unit(q), t), turn(unit(k), t)
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
    out = []
    for t, u in enumerate(inputs):
        gate = mixer.gate.weight @ u
        out.append(mixer.out.weight @ (torch.cat([o[t] for o in read]) * gate * sigmoid(gate)))
    return out
