"""gla in its slow obvious form, and what the contract suite needs to know about it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holo_cli.models.base import LanguageModel
from holo_cli.models.gla.attention import GatedLinearAttention
from holo_cli.models.recurrent import RecurrentMixer
from holo_cli.models.recurrent_reference import Turn, backbone_logits, disable, norm, recur, sigmoid

__all__ = ["CASES", "disable", "logits"]

# Config overrides on top of the suite's small shapes: every path of the model once. Rotary
# positions and width 32, because the published form has no positions to count by, and within the
# suite's 200 steps it does not learn to name the token nine places back.
CASES: dict[str, dict[str, Any]] = {"gla": {"width": 32, "decay_rank": 4, "rope_fraction": 1.0}}


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T, V), row by row."""
    return backbone_logits(model, tokens, _mix)


def _mix(mixer: RecurrentMixer, inputs: list[Tensor], turn: Turn) -> list[Tensor]:
    assert isinstance(mixer, GatedLinearAttention)
    w_q, w_k = mixer.qk.weight.chunk(2)
    w_v, w_g = mixer.vg.weight.chunk(2)
    keys, values = mixer.key_width, mixer.value_width
    read: list[list[Tensor]] = []
    for h in range(mixer.heads):
        key, value = slice(h * keys, (h + 1) * keys), slice(h * values, (h + 1) * values)
        fading, writes, queries = [], [], []
        for t, u in enumerate(inputs):
            logit = mixer.decay_up.weight[key] @ (mixer.decay_down.weight @ u)
            alpha = sigmoid(logit + mixer.decay_bias[key]) ** (1 / mixer.temperature)
            fading.append(torch.diag(alpha))
            writes.append(torch.outer(turn(w_k[key] @ u, t), w_v[value] @ u))
            queries.append(turn(w_q[key] @ u, t) / keys**0.5)
        read.append([norm(o) for o in recur(fading, writes, queries)])
    out = []
    for t, u in enumerate(inputs):
        gate = w_g @ u
        out.append(mixer.out.weight @ (torch.cat([o[t] for o in read]) * gate * sigmoid(gate)))
    return out
