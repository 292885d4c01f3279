"""rwkv7 in its slow obvious form, and what the contract suite needs to know about it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holo_cli.models.base import LanguageModel
from holo_cli.models.recurrent import RecurrentMixer
from holo_cli.models.recurrent_reference import Turn, backbone_logits, disable, recur, sigmoid, unit
from holo_cli.models.rwkv7.time_mix import TimeMix

__all__ = ["CASES", "disable", "logits"]

# Config overrides on top of the suite's small shapes. Rotary positions, because the published
# form does not learn within the suite's 200 steps to name the token nine places back. Without the
# token shift, behind a convolution, the model is tested in tests/models/rwkv7.
CASES: dict[str, dict[str, Any]] = {"shift": {"rank": 4, "rope_fraction": 1.0}}


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T, V), row by row."""
    return backbone_logits(model, tokens, _mix)


def _group_norm(x: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.pow(2).mean() + 1e-5 * len(x)).sqrt()


def _mix(mixer: RecurrentMixer, inputs: list[Tensor], turn: Turn) -> list[Tensor]:
    assert isinstance(mixer, TimeMix)
    width = mixer.key_width
    read: list[list[Tensor]] = []
    shifted = []
    for t, u in enumerate(inputs):
        before = inputs[t - 1] if t else torch.zeros_like(u)
        mixed = {name: u + m * (before - u) for name, m in mixer.shift.items()}
        shifted.append(mixed or dict.fromkeys("rwkvag", u))
    for h in range(mixer.heads):
        at = slice(h * width, (h + 1) * width)
        transitions, writes, queries, bonuses = [], [], [], []
        for t, x in enumerate(shifted):
            r, k, v = (
                m.weight[at] @ x[name]
                for m, name in ((mixer.receptance, "r"), (mixer.key, "k"), (mixer.value, "v"))
            )
            decay = mixer.decay_up.weight[at] @ (mixer.decay_down.weight @ x["w"]).tanh()
            w = (-torch.tensor(-0.5).double().exp() * sigmoid(mixer.decay_bias[at] + decay)).exp()
            rate = mixer.rate_up.weight[at] @ (mixer.rate_down.weight @ x["a"])
            a = sigmoid(mixer.rate_bias[at] + rate)
            erased = turn(unit(k * mixer.erase[at]), t)
            written = turn(k * (1 + (a - 1) * mixer.replace[at]), t)
            r = turn(r, t)
            transitions.append(torch.diag(w) - torch.outer(a * erased, erased))
            writes.append(torch.outer(written, v))
            queries.append(r)
            bonuses.append((r * mixer.bonus[at] * written).sum() * v)
        gain, bias = mixer.norm_gain[at], mixer.norm_bias[at]
        found = recur(transitions, writes, queries)
        read.append(
            [_group_norm(o) * gain + bias + now for o, now in zip(found, bonuses, strict=True)]
        )
    out = []
    for t, x in enumerate(shifted):
        gate = mixer.gate_up.weight @ sigmoid(mixer.gate_down.weight @ x["g"])
        out.append(mixer.out.weight @ (torch.cat([o[t] for o in read]) * gate))
    return out
