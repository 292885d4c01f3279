"""brain-v1's parts, one token, one head, one column and one unit at a time (`models/oracle.py`).

The side stream holds each token's language and whether it has left.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holo_cli.models import oracle
from holo_cli.models.backbone import Backbone
from holo_cli.models.brain_v1.attention import BrainAttention
from holo_cli.models.brain_v1.columns import Columns
from holo_cli.models.brain_v1.config import Config
from holo_cli.models.brain_v1.exit_gates import ExitGates
from holo_cli.models.brain_v1.kwta import KWTA
from holo_cli.models.brain_v1.model import BrainBlock, Model
from holo_cli.models.oracle import Inputs, Vectors, joined, norm, sigmoid, total
from holo_cli.models.vanilla.reference import heads

# 64 hidden units in 8 columns, of which 2 are kept
SMALL: dict[str, Any] = {"columns": 8, "mlp_ratio": 4.0, "activity": 0.25}
SELF: dict[str, Any] = {**SMALL, "sparsity": "self"}
CASES: dict[str, dict[str, Any]] = {
    "columns": SMALL,
    "self": SELF,
    "self-two-four": {**SELF, "activity": 0.375, "selection_inputs": 0.6, "two_four": "mlp"},
    "columns-relu": {**SMALL, "activation": "relu"},
    "columns-sigmoid": {**SMALL, "gate": "sigmoid", "shared_columns": 1, "columns_kept": 4},
    "columns-more-kept": {**SMALL, "activity": 0.375, "conv": 4},
    "columns-masked": {**SMALL, "masked": True, "layer_dropout": 0.2},
    "columns-two-four": {**SMALL, "two_four": "all", "bigrams": 61, "tied": False},
    "both": {
        **SMALL,
        "sparsity": "both",
        "columns_kept": 4,
        "depth_schedule": True,
    },
    "kwta": {**SMALL, "sparsity": "kwta", "two_four": "mlp"},
    "kwta-relu": {**SMALL, "sparsity": "kwta", "activation": "relu"},
    "dense": {**SMALL, "sparsity": "dense"},
    "dendrites": {**SMALL, "dendrites": 4, "attention_top": 0.4},
    "exits": {
        **SMALL,
        "layers": 3,
        "exit_loss": 0.3,
        "exit_confidence": "entropy",
        "exit_threshold": 0.02,
        "dendrites": 2,
        "conv": 4,
    },
    "exits-learned": {
        **SMALL,
        "layers": 5,
        "exit_loss": 0.3,
        "exit_weights": "even",
        "exit_every": 2,
        "exit_confidence": "learned",
        "exit_threshold": 0.2,
        "value_residual": True,
    },
    "adapters": {**SMALL, "adapters": 4, "language_tokens": (3, 7)},
}


def _two_four(weight: Tensor) -> Tensor:
    """Row by row, four inputs at a time; the gradient is that of the weight itself."""
    shown = weight.detach().clone()
    for row in shown:
        for at in range(0, len(row), 4):
            group = row[at : at + 4]
            second = group.abs().sort().values[1]
            row[at : at + 4] = 1.4838 * group.sign() * (group.abs() - second).clamp_min(0)
    return weight + (shown - weight.detach())


# -- attention ------------------------------------------------------------------------------------


def mix(mixer: BrainAttention, inputs: Inputs) -> Vectors:
    config = inputs.config
    assert isinstance(config, Config)
    qkv, out = mixer.qkv.weight, mixer.out.weight
    if config.two_four == "all":
        qkv, out = _two_four(qkv), _two_four(out)
    means = [total(inputs[: t + 1]) / (t + 1) for t in range(len(inputs))]
    found = []
    for h, (q, k, v) in enumerate(heads(mixer, inputs, qkv)):
        y = [_attend(config, q[t], k[: t + 1], v[: t + 1]) for t in range(len(q))]
        if mixer.dendrites is not None:
            vectors = mixer.dendrites.weight[h * config.dendrites :][: config.dendrites]
            for t, context in enumerate(means):
                pulls = [u @ context for u in vectors]
                strongest = max(pulls, key=lambda pull: abs(pull.item()))
                y[t] = y[t] * 2 * sigmoid(strongest)
        found.append(y)
    return [out @ y for y in joined(found)]


def _attend(config: Config, q: Tensor, k: Vectors, v: Vectors) -> Tensor:
    """One query's answer from its past, of which the largest weights are kept."""
    weight = torch.stack([(q @ key / len(q) ** 0.5).exp() for key in k])
    if config.attention_top < 1:
        count = max(1, math.ceil(len(k) * config.attention_top - 1e-9))
        kept = weight.detach().argsort(descending=True, stable=True)[:count]
        weight = weight * torch.zeros_like(weight).index_fill(0, kept, 1.0)
    return total([w * value for w, value in zip(weight / weight.sum(), v, strict=True)])


# -- the MLP --------------------------------------------------------------------------------------


def _largest(values: list[float], count: int) -> set[int]:
    return set(sorted(range(len(values)), key=lambda n: -values[n])[:count])


def feed(mlp: Columns | KWTA, inputs: Inputs) -> Vectors:
    config = inputs.config
    assert isinstance(config, Config)
    up, down = mlp.up.weight, mlp.down.weight  # (U, C) both
    if config.two_four != "none":
        up, down = _two_four(up), _two_four(down.T).T
    return [_feed(config, mlp, inputs.layer, up, down, x) for x in inputs]


def _feed(
    config: Config, mlp: Columns | KWTA, layer: int, up: Tensor, down: Tensor, x: Tensor
) -> Tensor:
    size = config.hidden // config.columns
    if isinstance(mlp, Columns):
        sent = _by_columns(config, mlp, layer, up, x)
    else:
        sent = _by_winning(config, mlp, layer, up, x)
    if isinstance(mlp, Columns) and mlp.router is not None and config.gate == "sigmoid":
        sent = sent * sigmoid(mlp.router.weight @ x).repeat_interleave(size)
    sent = sent * min(1.0, (config.width / config.hidden) ** 0.5)
    return total([s * row for s, row in zip(sent, down, strict=True)])


def _by_columns(config: Config, mlp: Columns, layer: int, up: Tensor, x: Tensor) -> Tensor:
    """What each unit sends, (U,): zero outside the kept columns."""
    size = config.hidden // config.columns
    drive = torch.zeros(config.columns, dtype=x.dtype)
    if mlp.router is None:
        score = [_loudness(config, up[g * size :][:size], x) for g in range(config.columns)]
    else:
        value = mlp.router.weight @ x
        score = value.detach().tolist()
        if config.gate == "drive":
            drive = value
    if mlp.bias is not None:
        score = [s + config.balance * b for s, b in zip(score, mlp.bias.tolist(), strict=True)]
    for n in range(config.shared_columns):
        score[n] += 1e6
    kept = _largest(score, config.kept_columns(layer))
    units = []
    for n in range(config.hidden):
        if n // size not in kept:
            units.append(torch.zeros((), dtype=x.dtype))
            continue
        u = up[n] @ x + drive[n // size]
        units.append(u * abs(u) if config.activation == "signed" else u.clamp_min(0) ** 2)
    inside = [u.item() if n // size in kept else -math.inf for n, u in enumerate(units)]
    wins = _largest(inside, config.active_units(layer))
    return torch.stack([u if n in wins else u * 0 for n, u in enumerate(units)])


def _loudness(config: Config, up: Tensor, x: Tensor) -> float:
    """How loud a column is, by what its units, the rows of `up`, make of their first inputs."""
    reads = config.selection_width
    sizes = [(row[:reads] @ x[:reads]).item() ** 2 for row in up]
    return math.sqrt(sum(sizes) / len(sizes) * config.width / reads)


def _by_winning(config: Config, mlp: KWTA, layer: int, up: Tensor, x: Tensor) -> Tensor:
    u = up @ x
    sent = u.clamp_min(0) ** 2
    if config.sparsity == "dense" or config.active_units(layer) == config.hidden:
        return sent
    score = u.detach().tolist()
    if mlp.bias is not None:
        score = [s + config.balance * b for s, b in zip(score, mlp.bias.tolist(), strict=True)]
    if config.activation == "signed":
        sent = u * abs(u)
        score = [s if value > 0 else s - 1e4 for s, value in zip(score, u.tolist(), strict=True)]
    wins = _largest(score, config.active_units(layer))
    return torch.stack([h if n in wins else h * 0 for n, h in enumerate(sent)])


# -- languages and leaving ------------------------------------------------------------------------


class TokenSide(NamedTuple):
    """Of a token: its language, as the last marker before it said, and whether it has left."""

    language: int
    left: bool


def side(model: Backbone, tokens: Tensor, stream: Vectors) -> list[TokenSide]:
    config = model.config
    assert isinstance(config, Config)
    now = config.languages.index(config.language) if config.adapters else 0
    found = []
    for token in tokens.tolist():
        if token in config.language_tokens:
            now = config.language_tokens.index(token)
        found.append(TokenSide(now, left=False))
    return found


def finish(inputs: Inputs, before: Vectors, after: Vectors) -> Vectors:
    """The adapter of each token's language, and who leaves: a token that left keeps its vector."""
    model, block, config = inputs.model, inputs.block, inputs.config
    assert isinstance(model, Model)
    assert isinstance(block, BrainBlock)
    assert isinstance(config, Config)
    done, out = inputs.layer + 1, []
    may = config.exit_from <= done < config.layers and done % config.exit_every == 0
    for t, (language, left) in enumerate(inputs.side):
        if left:
            out.append(before[t])
            continue
        x = after[t]
        if block.adapters is not None:
            down = block.adapters.down.weight[language * config.adapters :][: config.adapters]
            up = block.adapters.up.weight[language * config.width :][: config.width]
            x = x + up @ (down @ norm(x)).clamp_min(0)
        if may and model.exit_threshold <= 1:
            if model.exit_gates is None:
                sure = _confidence(config.exit_confidence, oracle.head(model, x))
            else:
                sure = _gate(model.exit_gates, done // config.exit_every - 1, x)
            inputs.side[t] = TokenSide(language, bool(sure >= model.exit_threshold))
        out.append(x)
    return out


def _gate(gates: ExitGates, number: int, x: Tensor) -> Tensor:
    inner = [(row @ norm(x)).clamp_min(0) for row in gates.down[number]]
    terms = [u * value for u, value in zip(gates.up[number], inner, strict=True)]
    return (-(total(terms) + gates.bias[number]).exp() / 0.1).exp()


def _confidence(kind: str, logits: Tensor) -> Tensor:
    p = logits.exp() / logits.exp().sum()
    ordered = sorted(p)
    if kind == "top1":
        return ordered[-1]
    if kind == "margin":
        return ordered[-1] - ordered[-2]
    return 1 + (p * p.log()).sum() / math.log(len(p))
