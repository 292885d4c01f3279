"""One token of each row through state space, memory and attention, with few operations.

Between its products a step of `Backbone.step_stream` makes some hundred small operations in a
layer. Here the same function has half as many:

- all projections of a layer's input, and their biases, are one product (`BrainMixer.joined`);
- the rotation of b and c and the scale of c are one table for all layers; the decay's exponent too;
- the state is decayed into a new tensor, to which the token is added in place. (A state is a value
  that may be continued twice, so the old one is never written to.)

It differs from `Backbone.step_stream`, the oracle of its tests, by rounding alone. Legend: B rows,
C width, H heads, P = C / H, N numbers of state per channel, d width of a head of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from holo_cli.layers.interfaces import Extras
from holo_cli.layers.mlp import MLP
from holo_cli.layers.norm import mean_square, rms_norm
from holo_cli.models.backbone import Backbone, BackboneState, Block
from holo_cli.models.base import State
from holo_cli.models.brain_v2.episodic import EpisodicMemory, EpisodicState
from holo_cli.models.brain_v2.mixer import BrainMixer, BrainMixerState
from holo_cli.models.brain_v2.ssm import Scalar, SSMState
from holo_cli.models.vanilla.decoding import is_one_token_on_cpu, quick_feed, quick_read


def fits(model: Backbone, tokens: Tensor, state: State) -> bool:
    """Whether this step can be made here: one token of each row, at one position, without
    gradients, on a CPU in float32, in blocks with a scalar state space and a plain MLP."""
    config = model.config
    return (
        is_one_token_on_cpu(model, tokens)
        and isinstance(state.position, int)
        and not (config.canon or config.value_residual or config.value_embedding)
        and all(_plain(block) for block in model.layers())
    )


class _Tables(NamedTuple):
    """What all layers share at a position."""

    cosine: Tensor  # (2, N): of b, and of c times its scale
    sine: Tensor
    rates: list[Tensor | None]  # -A of each layer that has a state space, (H,)


def step_hidden(
    model: Backbone, tokens: Tensor, state: BackboneState, x: Tensor, slots: Tensor | None
) -> tuple[Tensor, BackboneState]:
    """`Backbone.step_stream` of a step that `fits`; x (B, 1, C) the stream at its start,
    `slots` the side stream."""
    assert isinstance(state.position, int)
    x = x[:, 0]
    blocks, mixers, windows = model.layers(), list(state.mixers), list(state.windows)
    tables, extras = _tables(blocks, state.position, x), Extras(side=slots)
    for n, block in enumerate(blocks):
        mixer, mlp = block.mixer, block.mlp
        assert isinstance(mixer, BrainMixer)
        assert isinstance(mlp, MLP)
        u, windows[n] = quick_read(block, x, windows[n])
        y, mixers[n] = _mix(mixer, u, mixers[n], tables, tables.rates[n], extras)
        x = x + y
        x = quick_feed(mlp, x)
    return rms_norm(x)[:, None], model.advanced(state, tokens, mixers, windows)


def _mix(
    mixer: BrainMixer,
    u: Tensor,
    state: BrainMixerState,
    tables: _Tables,
    rate: Tensor | None,
    extras: Extras,
) -> tuple[Tensor, BrainMixerState]:
    """u (B, C), a layer's `rate` (H,) -> what to add, (B, C), and the state after the token."""
    ssm, memory, attention = state.ssm, state.memory, state.attention
    made: Sequence[Tensor] = ()
    if mixer.joined is not None:
        joined = mixer.joined
        made = nn.functional.linear(u, joined.weight, joined.bias).split(joined.sizes, dim=1)
    out: Tensor | None = None
    if rate is not None and ssm is not None:
        assert isinstance(mixer.ssm, Scalar)
        out, ssm = _state_space(mixer.ssm, made, ssm, tables, rate)
    if mixer.memory is not None and memory is not None:
        read, memory = _recall(mixer.memory, made[-3:], memory)
        recalled = mixer.memory.out(read)
        out = recalled if out is None else out + recalled
    if mixer.attention is not None and attention is not None:
        y, attention = mixer.attention.step(u[:, None], attention, extras)
        out = y[:, 0] if out is None else out + y[:, 0]
    assert out is not None
    return out, BrainMixerState(ssm, memory, attention)


def _state_space(
    part: Scalar, made: Sequence[Tensor], state: SSMState, tables: _Tables, rate: Tensor
) -> tuple[Tensor, SSMState]:
    z, x, bc, raw = made[:4]
    rows, heads = x.shape[0], rate.shape[0]
    bc = bc.view(rows, 2, -1)
    bc = bc * mean_square(bc).rsqrt_()
    if part.rope.rotated:
        bc = torch.addcmul(bc * tables.cosine, bc.roll(part.rope.pairs, -1), tables.sine)
    else:
        bc = bc * tables.cosine
    dt = nn.functional.softplus(raw)  # (B, H)
    values = x.view(rows, heads, -1) * dt[..., None]
    now = state.state * (dt * rate).exp_()[:, None, :, None]  # (B, N, H, P)
    flat = now.flatten(2)
    flat.baddbmm_(bc[:, 0, :, None], values.view(rows, 1, -1))
    y = torch.bmm(bc[:, 1:], flat)[:, 0].addcmul_(x, part.skip).view(rows, heads, -1)
    y = (y * mean_square(y).rsqrt_()).view(x.shape)
    return part.out(y.mul_(nn.functional.silu(z))), SSMState(state.position + 1, now)


def _recall(
    part: EpisodicMemory, made: Sequence[Tensor], state: EpisodicState
) -> tuple[Tensor, EpisodicState]:
    """What is read, gated, (B, Hm d), and the memory after the token's own writing."""
    qkv, gate, raw = made
    rows, heads, width = qkv.shape[0], part.heads, part.head_width
    qkv = qkv.view(rows, 3, heads, 1, width)
    norm = torch.linalg.vector_norm(qkv[:, :2], dim=-1, keepdim=True).clamp_min_(1e-12)
    q, k = (qkv[:, :2] / norm).unbind(1)  # (B, Hm, 1, d)
    forget, write = raw.sigmoid().view(rows, 2, heads, 1, 1).unbind(1)
    now = state.memory * (1 - forget)
    new = qkv[:, 2]
    if part.delta:
        new = new - k @ now
    now.addcmul_(k.mT, new * write)
    o = (q @ now)[:, :, 0]
    o = (o * mean_square(o).rsqrt_()).view(rows, -1)
    return o.mul_(nn.functional.silu(gate)), EpisodicState(now)


def _tables(blocks: Sequence[Block], position: int, x: Tensor) -> _Tables:
    mixers = [block.mixer for block in blocks if isinstance(block.mixer, BrainMixer)]
    parts = {n: m.ssm for n, m in enumerate(mixers) if isinstance(m.ssm, Scalar)}
    if not parts:
        return _Tables(x, x, [None] * len(mixers))
    first = next(iter(parts.values()))
    cosine, sine = (table[0] for table in first.rope.tables(position, 1, x))  # (1, N)
    scale = x.new_tensor((1.0, first.config.state_size**-0.5))[:, None]
    rates: list[Tensor | None] = [None] * len(mixers)
    stacked = torch.stack([part.log_rate for part in parts.values()]).exp_().neg_()
    for n, rate in zip(parts, stacked, strict=True):
        rates[n] = rate
    return _Tables(scale * cosine, scale * sine, rates)


def _plain(block: Block) -> bool:
    """Whether a block has what is computed here, without hooks on its parts."""
    mixer, mlp = block.mixer, block.mlp
    if type(mixer) is not BrainMixer or type(mlp) is not MLP:
        return False
    if mixer.ssm is not None and type(mixer.ssm) is not Scalar:
        return False
    joined = mixer.joined
    if mixer.readers() and (
        joined is None or joined.weight.dtype is not torch.float32 or not joined.holds(mixer)
    ):
        return False
    watched = [part for part in (mlp, mixer, mixer.ssm, mixer.memory) if part is not None]
    return not any(part._forward_hooks or part._forward_pre_hooks for part in watched)
