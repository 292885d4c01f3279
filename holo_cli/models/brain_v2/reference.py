"""brain-v2 in its slow obvious form: the oracle that the fast one is tested against.

One position, one head, one token at a time, by the formulas, in the dtype of the weights; shares no
code with the fast path and reads only its weights. Also holds what the contract suite needs to
know about this model: `CASES` and `disable`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.layers.interfaces import FeedForward
from holo_cli.layers.mlp import MLP
from holo_cli.models.base import LanguageModel
from holo_cli.models.brain_v2.attention import SelectiveAttention
from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.episodic import EpisodicMemory
from holo_cli.models.brain_v2.mixer import BrainMixer
from holo_cli.models.brain_v2.model import Model
from holo_cli.models.brain_v2.ponder import Ponder
from holo_cli.models.brain_v2.ssm import Scalar, Selective, StateSpace

# Config overrides on top of the suite's small shapes: every path of the model once.
CASES: dict[str, dict[str, Any]] = {
    "default": {},  # two layers: the state space, and a delta memory in the second
    "state-space": {"memory": "none", "conv": 0, "state": 32, "rope_fraction": 0.8},
    "selective": {"ssm": "selective", "memory": "none", "attention_every": 0},
    "attention": {"attention_every": 2, "attention_share": 0.3, "tied": False},
    "attention-everywhere": {"attention_every": 1, "attention_share": 0.8, "memory": "none"},
    "hebbian": {"memory": "hebbian", "memory_every": 1, "memory_heads": 2, "bigrams": 61},
    "ponder": {"ponder": 3, "attention_every": 2},
    "selective-ponder": {"ssm": "selective", "ponder": 4, "ponder_rest": 0.3},
}


def disable(model: LanguageModel) -> None:
    """Switch the mixing of tokens off, for good: no mixer writes into the stream."""
    for module in model.modules():
        if isinstance(module, StateSpace | EpisodicMemory | SelectiveAttention):
            nn.init.zeros_(module.out.weight)
            module.out.weight.requires_grad_(False)


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T, V), row by row."""
    assert isinstance(model, Model)
    return torch.stack([_row(model, row) for row in tokens])


Sequence = list[Tensor]  # one vector a position


def _row(model: Model, row: Tensor) -> Tensor:
    config = model.config
    stream = [_norm(x) for x in _embed(model, row)]
    for block in model._blocks():
        inputs = [_norm(x) for x in stream]
        if block.conv is not None:
            inputs = [_convolved(block.conv.weight, inputs, t) for t in range(len(inputs))]
        mixer = block.mixer
        assert isinstance(mixer, BrainMixer)
        heard = _state_space(mixer.ssm, inputs)
        if mixer.memory is not None:
            heard = _added(heard, _remembered(mixer.memory, inputs))
        if mixer.attention is not None:
            heard = _added(heard, _attended(mixer.attention, inputs, model))
        stream = _added(stream, heard)
        stream = [x + _feed(block.mlp, _norm(x)) for x in stream]
    out = torch.stack([model.head.weight @ _norm(x) for x in stream])
    return config.soft_cap * torch.tanh(out / config.soft_cap) if config.soft_cap else out


# -- what all models share ------------------------------------------------------------------------


def _norm(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()


def _sum(terms: Sequence) -> Tensor:
    return torch.stack(terms).sum(0)


def _added(a: Sequence, b: Sequence) -> Sequence:
    return [x + y for x, y in zip(a, b, strict=True)]


def _sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def _silu(x: Tensor) -> Tensor:
    return x * _sigmoid(x)


def _softplus(x: Tensor) -> Tensor:
    return (1 + x.exp()).log()


def _embed(model: Model, row: Tensor) -> Sequence:
    config = model.config
    stream = [model.embedding.token.weight[token] for token in row]
    if model.embedding.pair is not None:
        before = [-1, *row.tolist()]
        for t, token in enumerate(row.tolist()):
            number = (before[t] + 1) * config.vocab_size + token
            if (config.vocab_size + 1) * config.vocab_size > config.bigrams:
                number = (number * 2_654_435_761 % 2**31) // 8
            stream[t] = stream[t] + model.embedding.pair.weight[number % config.bigrams]
    return stream


def _convolved(taps: Tensor, inputs: Sequence, t: int) -> Tensor:
    return _silu(_sum([taps[k] * inputs[t - k] for k in range(min(len(taps), t + 1))]))


def _rotate(x: Tensor, position: int, rates: list[float]) -> Tensor:
    """The pairs (i, i + d/2) turned as complex numbers by position * rates[i], the rest not."""
    half = len(x) // 2
    angles = [position * rate for rate in rates] + [0.0] * (half - len(rates))
    turn = torch.tensor(angles, dtype=x.dtype)
    wave = torch.polar(torch.ones_like(turn), turn) * torch.complex(x[:half], x[half:])
    return torch.cat((wave.real, wave.imag))


def _rotary(config: Config) -> list[float]:
    rotated = round(config.head_width // 2 * config.rope_fraction)
    return [config.rope_base ** (-i / rotated) for i in range(rotated)]


# -- the state space ------------------------------------------------------------------------------


def _state_space(ssm: StateSpace, inputs: Sequence) -> Sequence:
    width, heads = ssm.config.width, ssm.config.heads
    gates = [ssm.in_proj.weight[:width] @ u for u in inputs]
    values = [ssm.in_proj.weight[width:] @ u for u in inputs]
    if isinstance(ssm, Scalar):
        read = _scalar(ssm, inputs, values)
    else:
        assert isinstance(ssm, Selective)
        read = _selective(ssm, inputs, values)
    out = []
    for z, x, y in zip(gates, values, read, strict=True):
        whole = y + ssm.skip * x
        normed = torch.cat([_norm(part) for part in whole.chunk(heads)])
        out.append(ssm.out.weight @ (normed * _silu(z)))
    return out


def _codes(ssm: StateSpace, u: Tensor, t: int) -> tuple[Tensor, Tensor]:
    size = ssm.config.state_size
    rotated = round(size // 2 * ssm.config.rope_fraction)
    rates = [math.pi * ((i + 0.5) / rotated) ** 2 for i in range(rotated)]
    b, c = (_rotate(_norm(weight @ u), t, rates) for weight in ssm.bc_proj.weight.chunk(2))
    return b, c / math.sqrt(size)


def _scalar(ssm: Scalar, inputs: Sequence, values: Sequence) -> Sequence:
    config, size = ssm.config, ssm.config.state_size
    width = config.head_width
    states = [torch.zeros(size, width, dtype=values[0].dtype) for _ in range(config.heads)]
    out = []
    for t, (u, x) in enumerate(zip(inputs, values, strict=True)):
        b, c = _codes(ssm, u, t)
        heard = []
        for h in range(config.heads):
            dt = _softplus(ssm.dt_proj.weight[h] @ u + ssm.dt_bias[h])
            a = (-dt * ssm.log_rate[h].exp()).exp()
            states[h] = a * states[h] + torch.outer(b, dt * x[h * width : (h + 1) * width])
            heard.append(states[h].T @ c)
        out.append(torch.cat(heard))
    return out


def _selective(ssm: Selective, inputs: Sequence, values: Sequence) -> Sequence:
    config, size = ssm.config, ssm.config.state_size
    half = ssm.log_rate.exp().view(config.width, size // 2)
    rate = torch.cat((half, half), dim=1)
    state = torch.zeros(config.width, size, dtype=values[0].dtype)
    out = []
    for t, (u, x) in enumerate(zip(inputs, values, strict=True)):
        b, c = _codes(ssm, u, t)
        dt = _softplus(ssm.dt_up.weight @ (ssm.dt_down.weight @ u) + ssm.dt_bias)
        state = (-dt[:, None] * rate).exp() * state + torch.outer(dt * x, b)
        out.append(state @ c)
    return out


# -- the episodic memory --------------------------------------------------------------------------


def _remembered(memory: EpisodicMemory, inputs: Sequence) -> Sequence:
    heads, width = memory.heads, memory.head_width
    q_all, k_all, v_all = memory.qkv.weight.chunk(3)
    recalled: list[Sequence] = []
    for h in range(heads):
        at = slice(h * width, (h + 1) * width)
        state = torch.zeros(width, width, dtype=inputs[0].dtype)
        mine = []
        for u in inputs:
            q, k, v = (weight[at] @ u for weight in (q_all, k_all, v_all))
            q, k = q / (q @ q).sqrt(), k / (k @ k).sqrt()
            raw = memory.gates_proj.weight @ u + memory.gates_bias
            alpha, beta = 1 / (1 + raw[h].exp()), _sigmoid(raw[heads + h])
            state = alpha * state
            old = state.T @ k if memory.delta else torch.zeros_like(v)
            state = state + beta * torch.outer(k, v - old)
            mine.append(_norm(state.T @ q))
        recalled.append(mine)
    return [
        memory.out.weight
        @ (torch.cat([mine[t] for mine in recalled]) * _silu(memory.gate.weight @ u))
        for t, u in enumerate(inputs)
    ]


# -- attention of selected tokens -----------------------------------------------------------------


def _attended(attention: SelectiveAttention, inputs: Sequence, model: Model) -> Sequence:
    config, width = model.config, model.config.head_width
    turn = _rotary(config)
    scorer = attention.scorer / attention.scorer.pow(2).sum().sqrt()
    theta = 4.0 * attention.threshold[0].detach()
    selected: list[int] = []
    out = [torch.zeros_like(u) for u in inputs]
    for t, u in enumerate(inputs):
        room = min(t + 1, math.ceil(min(2.0 * config.attention_share, 1.0) * (t + 1)))
        score = scorer @ u
        if score <= theta or len(selected) >= room:
            continue
        selected.append(t)
        heads = []
        for h in range(config.heads):
            q_at, k_at, v_at = (
                weight[h * width : (h + 1) * width] for weight in attention.qkv.weight.chunk(3)
            )
            q = _rotate(_norm(q_at @ u), t, turn)
            if attention.gain is not None:
                q = 1.5 * (4 * attention.gain.log_gain[h]).exp() * q
            keys = [_rotate(_norm(k_at @ inputs[s]), s, turn) for s in selected]
            weight = torch.stack([q @ k / math.sqrt(width) for k in keys]).exp()
            weight = weight / weight.sum()
            heads.append(
                _sum([w * (v_at @ inputs[s]) for w, s in zip(weight, selected, strict=True)])
            )
        out[t] = _sigmoid(score - theta) * (attention.out.weight @ torch.cat(heads))
    return out


# -- the feed-forward half ------------------------------------------------------------------------


def _feed(mlp: FeedForward, x: Tensor) -> Tensor:
    if isinstance(mlp, MLP):
        return _mlp(mlp, x)
    assert isinstance(mlp, Ponder)
    z, out, left = x, torch.zeros_like(x), torch.ones((), dtype=x.dtype)
    for n in range(1, mlp.most + 1):
        z = z + _mlp(mlp.mlp, _norm(z))
        p = left * _sigmoid(mlp.halt.weight[0] @ _norm(z) + mlp.halt_bias[0])
        if n == mlp.most or left - p <= mlp.rest:
            return out + left * (z - x)
        out, left = out + p * (z - x), left - p
    raise AssertionError("the last step returns")


def _mlp(mlp: MLP, x: Tensor) -> Tensor:
    return mlp.down.weight @ (mlp.up.weight @ x).clamp_min(0) ** 2
