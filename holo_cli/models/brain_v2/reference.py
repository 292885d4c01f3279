"""brain-v2's parts, one position, one head and one token at a time (see `models/oracle.py`)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from holo_cli.layers.interfaces import FeedForward
from holo_cli.layers.mlp import MLP
from holo_cli.models import oracle
from holo_cli.models.brain_v2.attention import SelectiveAttention
from holo_cli.models.brain_v2.episodic import EpisodicMemory
from holo_cli.models.brain_v2.mixer import BrainMixer
from holo_cli.models.brain_v2.ponder import Ponder
from holo_cli.models.brain_v2.ssm import Scalar, Selective, StateSpace
from holo_cli.models.oracle import (
    Inputs,
    Vectors,
    added,
    joined,
    norm,
    rotate,
    sigmoid,
    silu,
    softplus,
    total,
    unit,
)

CASES: dict[str, dict[str, Any]] = {
    "default": {},  # two layers: the state space, then a delta memory
    "added": {"layout": "added"},  # the state space in both, and the memory in the second
    "state-space": {"memory": "none", "conv": 0, "state": 32, "rope_fraction": 0.8},
    "selective": {"ssm": "selective", "memory": "none", "attention_every": 0},
    "attention": {
        "layout": "added",
        "attention_every": 2,
        "attention_share": 0.3,
        "tied": False,
    },
    "attention-everywhere": {
        "layout": "added",
        "attention_every": 1,
        "attention_share": 0.8,
        "memory": "none",
    },
    "hebbian": {
        "layout": "added",
        "memory": "hebbian",
        "memory_every": 1,
        "memory_heads": 2,
        "bigrams": 61,
    },
    "suffix": {"suffix": True, "end_token": 7, "tied": False, "attention_every": 0},
    "three-parts": {"layers": 3, "attention_every": 3, "attention_share": 0.4},
    "ponder": {"ponder": 3, "attention_every": 2},
    "selective-ponder": {"ssm": "selective", "ponder": 4, "ponder_rest": 0.3},
}


def mix(mixer: BrainMixer, inputs: Inputs) -> Vectors:
    out = [torch.zeros_like(u) for u in inputs]
    if mixer.ssm is not None:
        out = added(out, _state_space(mixer.ssm, inputs))
    if mixer.memory is not None:
        out = added(out, _remembered(mixer.memory, inputs))
    if mixer.attention is not None:
        out = added(out, _attended(mixer.attention, inputs))
    return out


# -- the state space ------------------------------------------------------------------------------


def _state_space(ssm: StateSpace, inputs: Inputs) -> Vectors:
    width, heads = ssm.config.width, ssm.config.heads
    gates = [ssm.in_proj.weight[:width] @ u for u in inputs]
    values = inputs.values([ssm.in_proj.weight[width:] @ u for u in inputs])
    if isinstance(ssm, Scalar):
        read = _scalar(ssm, inputs, values)
    else:
        assert isinstance(ssm, Selective)
        read = _selective(ssm, inputs, values)
    out = []
    for z, x, y in zip(gates, values, read, strict=True):
        whole = y + ssm.skip * x
        normed = torch.cat([norm(part) for part in whole.chunk(heads)])
        out.append(ssm.out.weight @ (normed * silu(z)))
    return out


def _codes(ssm: StateSpace, u: Tensor, t: int) -> tuple[Tensor, Tensor]:
    size = ssm.config.state_size
    rotated = round(size // 2 * ssm.config.rope_fraction)
    rates = [math.pi * ((i + 0.5) / rotated) ** 2 for i in range(rotated)]
    b, c = (rotate(norm(weight @ u), t, rates) for weight in ssm.bc_proj.weight.chunk(2))
    return b, c / math.sqrt(size)


def _scalar(ssm: Scalar, inputs: Inputs, values: Vectors) -> Vectors:
    config, size = ssm.config, ssm.config.state_size
    width = config.head_width
    states = [torch.zeros(size, width, dtype=values[0].dtype) for _ in range(config.heads)]
    out = []
    for t, (u, x) in enumerate(zip(inputs, values, strict=True)):
        b, c = _codes(ssm, u, t)
        heard = []
        for h in range(config.heads):
            dt = softplus(ssm.dt_proj.weight[h] @ u + ssm.dt_bias[h])
            a = (-dt * ssm.log_rate[h].exp()).exp()
            states[h] = a * states[h] + torch.outer(b, dt * x[h * width : (h + 1) * width])
            heard.append(states[h].T @ c)
        out.append(torch.cat(heard))
    return out


def _selective(ssm: Selective, inputs: Inputs, values: Vectors) -> Vectors:
    config, size = ssm.config, ssm.config.state_size
    half = ssm.log_rate.exp().view(config.width, size // 2)
    rate = torch.cat((half, half), dim=1)
    state = torch.zeros(config.width, size, dtype=values[0].dtype)
    out = []
    for t, (u, x) in enumerate(zip(inputs, values, strict=True)):
        b, c = _codes(ssm, u, t)
        dt = softplus(ssm.dt_up.weight @ (ssm.dt_down.weight @ u) + ssm.dt_bias)
        state = (-dt[:, None] * rate).exp() * state + torch.outer(dt * x, b)
        out.append(state @ c)
    return out


# -- the episodic memory --------------------------------------------------------------------------


def _remembered(memory: EpisodicMemory, inputs: Inputs) -> Vectors:
    heads, width = memory.heads, memory.head_width
    q_all, k_all, v_all = memory.qkv.weight.chunk(3)
    recalled: list[Vectors] = []
    for h in range(heads):
        at = slice(h * width, (h + 1) * width)
        state = torch.zeros(width, width, dtype=inputs[0].dtype)
        mine = []
        for u in inputs:
            q, k, v = (weight[at] @ u for weight in (q_all, k_all, v_all))
            q, k = unit(q), unit(k)
            raw = memory.gates_proj.weight @ u + memory.gates_bias
            alpha, beta = 1 / (1 + raw[h].exp()), sigmoid(raw[heads + h])
            state = alpha * state
            old = state.T @ k if memory.delta else torch.zeros_like(v)
            state = state + beta * torch.outer(k, v - old)
            mine.append(norm(state.T @ q))
        recalled.append(mine)
    return [
        memory.out.weight @ (y * silu(memory.gate.weight @ u))
        for y, u in zip(joined(recalled), inputs, strict=True)
    ]


# -- attention of selected tokens -----------------------------------------------------------------


def _attended(attention: SelectiveAttention, inputs: Inputs) -> Vectors:
    config, width = inputs.config, attention.head_width
    scorer = unit(attention.scorer)
    theta = 4.0 * attention.threshold[0].detach()
    selected: list[int] = []
    out = [torch.zeros_like(u) for u in inputs]
    for t, u in enumerate(inputs):
        room = min(t + 1, math.ceil(min(2.0 * attention.share, 1.0) * (t + 1)))
        score = scorer @ u
        if score <= theta or len(selected) >= room:
            continue
        selected.append(t)
        heads = []
        for h in range(config.heads):
            q_at, k_at, v_at = (
                weight[h * width : (h + 1) * width] for weight in attention.qkv.weight.chunk(3)
            )
            q = inputs.rotate(norm(q_at @ u), t)
            if attention.gain is not None:
                q = 1.5 * (4 * attention.gain.log_gain[h]).exp() * q
            keys = [inputs.rotate(norm(k_at @ inputs[s]), s) for s in selected]
            weight = torch.stack([q @ k / math.sqrt(width) for k in keys]).exp()
            weight = weight / weight.sum()
            heads.append(
                total([w * (v_at @ inputs[s]) for w, s in zip(weight, selected, strict=True)])
            )
        out[t] = sigmoid(score - theta) * (attention.out.weight @ torch.cat(heads))
    return out


# -- the feed-forward half ------------------------------------------------------------------------


def feed(mlp: FeedForward, inputs: Inputs) -> Vectors:
    if isinstance(mlp, Ponder):
        return [_ponder(mlp, x) for x in inputs]
    return oracle.dense(mlp, inputs)


def _ponder(mlp: Ponder, x: Tensor) -> Tensor:
    z, out, left = x, torch.zeros_like(x), torch.ones((), dtype=x.dtype)
    for n in range(1, mlp.most + 1):
        z = z + _mlp(mlp.mlp, norm(z))
        p = left * sigmoid(mlp.halt.weight[0] @ norm(z) + mlp.halt_bias[0])
        if n == mlp.most or left - p <= mlp.rest:
            return out + left * (z - x)
        out, left = out + p * (z - x), left - p
    raise AssertionError("the last step returns")


def _mlp(mlp: MLP, x: Tensor) -> Tensor:
    return mlp.down.weight @ (mlp.up.weight @ x).clamp_min(0) ** 2
