"""Linear recurrences on a matrix state whose transition is diagonal plus low rank.

    S_t = (I + a_t b_t^T) Diag(d_t) S_{t-1} + k_t v_t^T,    o_t = S_t^T q_t

S is (K, V) per row and head, 0 < d_t <= 1 per channel of the keys or one number per head. The form
Diag(d) + a b'^T has b' = d * b: `b` reads the state after it has decayed. Special cases: without
`b`, gated linear attention (Yang et al. 2023, arXiv 2312.06635); with `b` and no `a`, a_t = -k_t,
the gated delta rule (Yang, Kautz, Hatamizadeh 2024, arXiv 2412.06464); with both, the generalized
delta rule of RWKV-7 (Peng et al. 2025, arXiv 2503.14456).

Chunked form. With G the running sum of log d inside a chunk of L positions, S_0 the state before
the chunk, u_t = b_t^T Diag(d_t) S_{t-1}, and, for rows x and y, the decayed products
<x, y>_ts = sum_c x_tc exp(G_tc - G_sc) y_sc,

    (I - <b, a>) U = (b exp(G)) S_0 + <b, k> V            products over s < t
    O = (q exp(G)) S_0 + <q, a> U + <q, k> V              products over s <= t
    S_L = exp(G_L) S_0 + (a exp(G_L - G))^T U + (k exp(G_L - G))^T V

U is linear in S_0, so the map from S_0 to S_L is one (K, K) and one (K, V) matrix per chunk,
computed for all chunks at once; only one product per chunk is sequential.

Numerics: states and solves are in float32 at least, no exponent is ever above 0, and nothing is
divided by a cumulative product; see `decayed_products.py`. Log decays must be finite.

Legend: B rows, H heads, T positions, K and V widths of a key and a value, L positions of a chunk,
M chunks of a row, N = B H M.
"""

from __future__ import annotations

import torch
from torch import Tensor

from holo_cli.layers.decayed_products import channel_products, scalar_products
from holo_cli.layers.unit_lower import solve_unit_lower

CHUNK = 32  # positions of a chunk, a power of two


def linear_recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    b: Tensor | None = None,
    a: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The recurrence over a whole sequence, in chunks; differentiable in all arguments.

    q, k, a, b (B, H, T, K), v (B, H, T, V), log decay (B, H, T, K), or (B, H, T, 1) for one decay
    per head, finite and <= 0, all float32 or float64; state (B, H, K, V) or None for zeros. `b`
    None: no low-rank part; `a` None: a = -k. Returns o (B, H, T, V) and the last state.
    """
    batch, heads, length, width = k.shape
    scalar = log_decay.shape[-1] == 1
    size = min(CHUNK, 1 << (length - 1).bit_length())
    q, k, v, log_decay = (_chunks(x, size) for x in (q, k, v, log_decay))  # (N, L, ...)
    total = log_decay.cumsum(1)  # G
    rise, fall = total.exp(), (total[:, -1:] - total).exp()
    whole = total[:, -1].exp()[..., None]  # (N, K, 1) or (N, 1, 1)
    products = scalar_products if scalar else channel_products

    # `written` (N, L, V): rows written to the state along `keep` if S_0 is zero; `from_state`
    # (N, L, K): their derivative with respect to S_0
    if b is None:
        (read,) = products((q,), (k,), total)  # (N, L, L)
        keep, written, from_state, direct = (k * fall).mT, v, None, None
    elif a is None:  # (I + <b, k>) (V - U) = V - (b exp(G)) S_0
        b = _chunks(b, size)
        system, read = products((b, q), (k,), total)
        solved = solve_unit_lower(system, torch.cat((v, -b * rise), dim=-1))
        written, from_state = solved.split((v.shape[-1], width), dim=-1)
        keep, direct = (k * fall).mT, None
    else:
        a, b = _chunks(a, size), _chunks(b, size)
        system, known, read, direct = products((b, q), (a, k), total)
        solved = solve_unit_lower(-system, torch.cat((known @ v, b * rise), dim=-1))
        written, from_state = solved.split((v.shape[-1], width), dim=-1)
        keep = (a * fall).mT

    # one chunk as a map of states: S_L = step S_0 + gain
    gain = keep @ written
    if direct is not None:
        gain = torch.baddbmm(gain, (k * fall).mT, v)
    step = whole
    if from_state is not None:
        step = torch.baddbmm(torch.diag_embed(whole[..., 0].expand(-1, width)), keep, from_state)
    rows = batch * heads
    now = gain.new_zeros(rows, width, v.shape[-1]) if state is None else state.flatten(0, 1)
    before = []
    # `unbind`, because the gradient of an index into a chunk would be a whole tensor of zeros
    steps, gains = step.unflatten(0, (rows, -1)).unbind(1), gain.unflatten(0, (rows, -1)).unbind(1)
    for one, plus in zip(steps, gains, strict=True):
        before.append(now)
        now = torch.addcmul(plus, one, now) if b is None else torch.baddbmm(plus, one, now)
    start = torch.stack(before, dim=1).flatten(0, 1)  # S_0 of every chunk, (N, K, V)

    if from_state is not None:
        written = torch.baddbmm(written, from_state, start)
    out = torch.baddbmm(read @ written, q * rise, start)
    if direct is not None:
        out = torch.baddbmm(out, direct, v)
    out = out.unflatten(0, (batch, heads, -1)).flatten(2, 3)[:, :, :length]
    return out, now.unflatten(0, (batch, heads))


def linear_recurrence_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    b: Tensor | None,
    a: Tensor | None,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    """`linear_recurrence` of one position (T = 1) by the recurrence itself, for decoding."""
    now = state * log_decay.exp().mT
    if b is not None:
        found = b @ now  # (B, H, 1, V)
        if a is None:
            v = v - found
        else:
            now = torch.addcmul(now, a.mT, found)
    now = torch.addcmul(now, k.mT, v)
    return q @ now, now


def naive_linear_recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    b: Tensor | None = None,
    a: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`linear_recurrence`, position by position with the transition matrix written out: slow."""
    batch, heads, length, width = k.shape
    now = k.new_zeros(batch, heads, width, v.shape[-1]) if state is None else state
    eye = torch.eye(width, dtype=k.dtype, device=k.device)
    out = []
    for t in range(length):
        decay = log_decay[:, :, t].exp().expand(batch, heads, width)
        transition = torch.diag_embed(decay)
        if b is not None:
            write = -k[:, :, t] if a is None else a[:, :, t]
            transition = (eye + write[..., :, None] * b[:, :, t, None, :]) @ transition
        now = transition @ now + k[:, :, t, :, None] * v[:, :, t, None, :]
        out.append((q[:, :, t, :, None] * now).sum(2))
    return torch.stack(out, dim=2), now


def chunk_flops(keys: int, values: int, low_rank: int, length: float) -> float:
    """Forward FLOPs of one token and head in the chunked form, with `length` positions of history.

    `low_rank`: 0 without `b`, 1 with a = -k, 2 with an `a` of its own. Triangles count as halves.
    """
    inside = min(length, CHUNK / 2)
    lefts, rights = min(low_rank, 1) + 1, max(low_rank, 1)
    products = inside * (lefts * rights * keys + rights * values)
    state = (1 + rights) * keys * values  # reading S_0, and what is written into S_L
    if low_rank:
        products += inside * (keys + values + (low_rank - 1) * values)  # the solve, <b, k> V
        state += keys * values + keys * keys  # `from_state` S_0, `step`
    return 2.0 * (products + state)


def step_flops(keys: int, values: int, low_rank: int) -> float:
    """FLOPs of `linear_recurrence_step` per token and head: decay, read of `b`, writes, read."""
    return (1.0 + 2.0 * (low_rank + 2)) * keys * values


def _chunks(x: Tensor, size: int) -> Tensor:
    """(B, H, T, ...) -> (N, L, ...), with zeros after the end, where nothing decays."""
    if extra := -x.shape[2] % size:
        x = torch.cat((x, x.new_zeros(*x.shape[:2], extra, *x.shape[3:])), dim=2)
    return x.reshape(-1, size, *x.shape[3:])
