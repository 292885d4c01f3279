"""brain-v1 in its slow obvious form: the oracle that the fast one is tested against.

One token, one head, one column, one unit at a time, by the formulas, in the dtype of the weights;
shares no code with the fast path and reads only its weights. Also holds what the contract suite
needs to know about this model: `CASES` and `disable`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from holo_cli.models.base import LanguageModel
from holo_cli.models.brain_v1.attention import BrainAttention
from holo_cli.models.brain_v1.columns import Columns
from holo_cli.models.brain_v1.kwta import Free
from holo_cli.models.brain_v1.model import BrainBlock, Model

# 64 hidden units in 8 columns, of which 2 are kept
SMALL: dict[str, Any] = {"columns": 8, "mlp_ratio": 4.0, "activity": 0.25}
# Config overrides on top of the suite's small shapes: every path of the model once.
CASES: dict[str, dict[str, Any]] = {
    "columns": SMALL,
    "columns-sigmoid": {**SMALL, "gate": "sigmoid", "shared_columns": 1, "columns_kept": 4},
    "columns-inhibited": {**SMALL, "inhibition": True, "activity": 0.375, "conv": 4},
    "columns-masked": {**SMALL, "masked": True, "layer_dropout": 0.2},
    "columns-two-four": {**SMALL, "two_four": "all", "bigrams": 61, "tied": False},
    "both": {
        **SMALL,
        "sparsity": "both",
        "columns_kept": 4,
        "inhibition": True,
        "depth_schedule": True,
    },
    "kwta": {**SMALL, "sparsity": "kwta", "inhibition": True, "two_four": "mlp"},
    "kwta-predictor": {**SMALL, "sparsity": "kwta", "predictor": 4, "predictor_share": 0.5},
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
    "adapters": {**SMALL, "adapters": 4, "language_tokens": (3, 7)},
}


def disable(model: LanguageModel) -> None:
    """Switch the mixing of tokens off, for good: attention writes nothing into the stream."""
    for module in model.modules():
        if isinstance(module, BrainAttention):
            nn.init.zeros_(module.out.weight)
            module.out.weight.requires_grad_(False)


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    """(B, T) int64 -> (B, T, V), row by row."""
    assert isinstance(model, Model)
    return torch.stack([_row(model, row) for row in tokens])


# -- one row --------------------------------------------------------------------------------------


def _row(model: Model, row: Tensor) -> Tensor:
    config = model.config
    stream = _embed(model, row)
    left = [False] * len(stream)
    languages = _languages(model, row)
    for layer, block in enumerate(model.brain_blocks()):
        inputs = _read(block, stream)
        heard = _attend(model, block.mixer, inputs)
        for t in range(len(stream)):
            if left[t]:
                continue
            x = stream[t] + heard[t]
            x = x + _feed(model, block, layer, _norm(x))
            if block.adapters is not None:
                x = x + _adapt(model, block, _norm(x), languages[t])
            stream[t] = x
            done = layer + 1
            may = config.exit_from <= done < config.layers and done % config.exit_every == 0
            if may and model.exit_threshold <= 1:
                left[t] = bool(_confidence(model, _head(model, x)) >= model.exit_threshold)
    return torch.stack([_head(model, x) for x in stream])


def _norm(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean() + 1e-6).sqrt()


def _sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def _head(model: Model, x: Tensor) -> Tensor:
    out = model.head.weight @ _norm(x)
    cap = model.config.soft_cap
    return cap * torch.tanh(out / cap) if cap else out


def _confidence(model: Model, logits: Tensor) -> Tensor:
    p = logits.exp() / logits.exp().sum()
    kind = model.config.exit_confidence
    ordered = sorted(p)
    if kind == "top1":
        return ordered[-1]
    if kind == "margin":
        return ordered[-1] - ordered[-2]
    return 1 + (p * p.log()).sum() / math.log(len(p))


def _embed(model: Model, row: Tensor) -> list[Tensor]:
    config = model.config
    stream = [model.embedding.token.weight[token] for token in row]
    if model.embedding.pair is not None:
        before = torch.cat((torch.tensor([-1]), row[:-1]))
        for t, (a, b) in enumerate(zip(before.tolist(), row.tolist(), strict=True)):
            number = (a + 1) * config.vocab_size + b
            if (config.vocab_size + 1) * config.vocab_size > config.bigrams:
                number = (number * 2_654_435_761 % 2**31) // 8
            stream[t] = stream[t] + model.embedding.pair.weight[number % config.bigrams]
    return [_norm(x) for x in stream]


def _read(block: BrainBlock, stream: list[Tensor]) -> list[Tensor]:
    """What a block's attention sees: the normalised stream, convolved where there is one."""
    inputs = [_norm(x) for x in stream]
    if block.conv is None:
        return inputs
    mixed = []
    for t in range(len(inputs)):
        taps = range(min(block.conv.taps, t + 1))
        x = torch.stack([block.conv.weight[k] * inputs[t - k] for k in taps]).sum(0)
        mixed.append(x * _sigmoid(x))
    return mixed


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


def _turn(z: Tensor, position: int, base: float, fraction: float) -> Tensor:
    """The pairs (i, i + d/2) turned as complex numbers by position * base^(-i / rotated)."""
    half = len(z) // 2
    rotated = round(half * fraction)
    angles = [position * base ** (-i / rotated) for i in range(rotated)] + [0.0] * (half - rotated)
    angle = torch.tensor(angles, dtype=z.dtype)
    pair = torch.complex(z[:half], z[half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((pair.real, pair.imag))


def _attend(model: Model, mixer: BrainAttention, inputs: list[Tensor]) -> list[Tensor]:
    config = model.config
    heads, width = config.heads, config.width
    d = width // heads
    qkv, out = mixer.qkv.weight, mixer.out.weight
    if config.two_four == "all":
        qkv, out = _two_four(qkv), _two_four(out)
    made = [qkv @ x for x in inputs]
    heard: list[Tensor] = []
    for t in range(len(inputs)):
        parts = []
        for h in range(heads):
            at = slice(h * d, (h + 1) * d)
            place = (config.rope_base, config.rope_fraction)
            q = _turn(_norm(made[t][at]), t, *place)
            if mixer.gain is not None:
                q = 1.5 * (4 * mixer.gain.log_gain[h]).exp() * q
            past = range(t + 1)
            k = [_turn(_norm(made[s][width:][at]), s, *place) for s in past]
            weight = torch.stack([(q @ key / d**0.5).exp() for key in k])
            if config.attention_top < 1:
                count = max(1, math.ceil((t + 1) * config.attention_top - 1e-9))
                kept = weight.detach().argsort(descending=True, stable=True)[:count]
                weight = weight * torch.zeros_like(weight).index_fill(0, kept, 1.0)
            weight = weight / weight.sum()
            y = sum((weight[s] * made[s][2 * width :][at] for s in past), torch.zeros(d))
            if mixer.dendrites is not None:
                context = torch.stack(inputs[: t + 1]).mean(0)
                first = h * config.dendrites
                vectors = mixer.dendrites.weight[first : first + config.dendrites]
                pulls = [u @ context for u in vectors]
                strongest = max(pulls, key=lambda pull: abs(pull.item()))
                y = y * 2 * _sigmoid(strongest)
            parts.append(y)
        heard.append(out @ torch.cat(parts))
    return heard


# -- the MLP --------------------------------------------------------------------------------------


def _largest(values: list[float], count: int) -> set[int]:
    return set(sorted(range(len(values)), key=lambda n: -values[n])[:count])


def _feed(model: Model, block: BrainBlock, layer: int, x: Tensor) -> Tensor:
    mlp = block.mlp
    assert isinstance(mlp, Columns | Free)
    config = model.config
    sizes = config.columns, config.hidden // config.columns
    up, down = mlp.up.weight, mlp.down.weight  # (U, C) both
    if config.two_four != "none":
        up, down = _two_four(up), _two_four(down.T).T
    if isinstance(mlp, Columns):
        sent = _by_columns(model, mlp, layer, up, x)
    else:
        sent = _by_winning(model, mlp, layer, up, x)
    if mlp.inhibition is not None:
        energy = [h.pow(2).mean() for h in sent.split(sizes[1])]
        w = (1 + mlp.inhibition.raw.exp()).log()
        held = []
        for c, h in enumerate(sent.split(sizes[1])):
            against = sum((w[c, n] * e for n, e in enumerate(energy)), torch.zeros(()))
            sigma = mlp.inhibition.log_sigma.exp()
            held.append(h * ((energy[c] + 1e-6) / (sigma + against + 1e-6)).sqrt())
        sent = torch.cat(held)
    if isinstance(mlp, Columns) and config.gate == "sigmoid":
        sent = sent * _sigmoid(mlp.router.weight @ x).repeat_interleave(sizes[1])
    sent = sent * min(1.0, (config.width / config.hidden) ** 0.5)
    return sum((s * row for s, row in zip(sent, down, strict=True)), torch.zeros_like(x))


def _by_columns(model: Model, mlp: Columns, layer: int, up: Tensor, x: Tensor) -> Tensor:
    """What each unit sends, (U,): zero outside the kept columns."""
    config = model.config
    size = config.hidden // config.columns
    value = mlp.router.weight @ x
    score = value.detach().tolist()
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
        u = up[n] @ x + (value[n // size] if config.gate == "drive" else 0)
        units.append(u.clamp_min(0) ** 2)
    wins = _largest([u.item() for u in units], config.active_units(layer))
    return torch.stack([u if n in wins else u * 0 for n, u in enumerate(units)])


def _by_winning(model: Model, mlp: Free, layer: int, up: Tensor, x: Tensor) -> Tensor:
    config = model.config
    u = up @ x
    sent = u.clamp_min(0) ** 2
    if config.sparsity == "dense":
        return sent
    score = u.detach().tolist()
    if mlp.bias is not None:
        score = [s + config.balance * b for s, b in zip(score, mlp.bias.tolist(), strict=True)]
    if mlp.predictor_down is not None and mlp.predictor_up is not None:
        guess = (mlp.predictor_up.weight @ (mlp.predictor_down.weight @ x)).tolist()
        candidates = round(config.predictor_share * config.hidden)
        allowed = _largest(guess, max(config.active_units(layer), candidates))
        score = [s if n in allowed else -math.inf for n, s in enumerate(score)]
    wins = _largest(score, config.active_units(layer))
    return torch.stack([h if n in wins else h * 0 for n, h in enumerate(sent)])


# -- languages ------------------------------------------------------------------------------------


def _languages(model: Model, row: Tensor) -> list[int]:
    """The language of each token, as the last marker before it said."""
    config = model.config
    now = config.languages.index(config.language) if config.adapters else 0
    spoken = []
    for token in row.tolist():
        if token in config.language_tokens:
            now = config.language_tokens.index(token)
        spoken.append(now)
    return spoken


def _adapt(model: Model, block: BrainBlock, x: Tensor, language: int) -> Tensor:
    config, adapters = model.config, block.adapters
    assert adapters is not None
    down = adapters.down.weight[language * config.adapters :][: config.adapters]
    up = adapters.up.weight[language * config.width :][: config.width]
    return up @ (down @ x).clamp_min(0)
