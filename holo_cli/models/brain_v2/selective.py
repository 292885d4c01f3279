"""The selective scan: one decay per channel and state dimension, token by token.

    h_t[c, n] = exp(-dt_t[c] A[c, n]) h_{t-1}[c, n] + v_t[c] b_t[n]
    y_t[c]    = sum_n h_t[c, n] c_t[n]                       (Mamba, Gu & Dao 2023, section 3)

Plain PyTorch operations, without ever storing all states (T C N numbers): the forward pass keeps
those at the start of each chunk, and the backward pass computes those of one chunk again, the last
chunk first. Everything is float32 at least. Legend: B rows, T positions, C width, N numbers of
state per channel, L positions of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 32  # T / L states are kept, and L computed again at a time


def scan(
    dt: Tensor, v: Tensor, b: Tensor, c: Tensor, rate: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """dt and v (B, T, C), b and c (B, T, N), rate A > 0 (C, N), state (B, C, N) before the first
    position -> y (B, T, C) and the state after the last one.

    No gradient flows into `state` or out of the last state.
    """
    y, last = _SelectiveScan.apply(dt, v, b, c, rate, state)
    return y, last


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, dt: Tensor, v: Tensor, b: Tensor, c: Tensor, rate: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        rows, length, width = dt.shape
        h = dt.new_zeros(rows, width, rate.shape[1]) if state is None else state.clone()
        begins = dt.new_empty(-(-length // CHUNK), *h.shape)
        y = torch.empty_like(dt)
        decay = torch.empty_like(h)
        for t in range(length):
            if t % CHUNK == 0:
                begins[t // CHUNK] = h
            torch.mul(dt[:, t, :, None], -rate, out=decay).exp_()
            h.mul_(decay).addcmul_(v[:, t, :, None], b[:, t, None])
            y[:, t] = torch.bmm(h, c[:, t, :, None])[..., 0]
        ctx.save_for_backward(dt, v, b, c, rate, begins)
        ctx.mark_non_differentiable(h)
        return y, h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grads[0].device.type, enabled=False):
            return _backward(grads[0], *ctx.saved_tensors)


def _backward(
    dy: Tensor, dt: Tensor, v: Tensor, b: Tensor, c: Tensor, rate: Tensor, begins: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of the inputs of the scan from that of y."""
    d_dt, dv, db, dc = (torch.empty_like(x) for x in (dt, v, b, c))
    d_rate = torch.zeros_like(rate)
    dh = torch.zeros_like(begins[0])  # of the state after the current position
    for chunk in reversed(range(begins.shape[0])):
        first = chunk * CHUNK
        at = slice(first, min(first + CHUNK, dt.shape[1]))
        decay, h = _states(dt[:, at], v[:, at], b[:, at], rate, begins[chunk])
        for t in reversed(range(at.start, at.stop)):
            i = t - first
            dh.addcmul_(dy[:, t, :, None], c[:, t, None])
            dc[:, t] = torch.bmm(dy[:, t, None], h[i + 1])[:, 0]
            dv[:, t] = torch.bmm(dh, b[:, t, :, None])[..., 0]
            db[:, t] = torch.bmm(v[:, t, None], dh)[:, 0]
            dh.mul_(decay[i])  # now of the state before, through the decay
            slope = dh * h[i]  # by log a = -dt A
            d_dt[:, t] = -(slope * rate).sum(2)
            d_rate -= (slope * dt[:, t, :, None]).sum(0)
    return d_dt, dv, db, dc, d_rate, None


def _states(dt: Tensor, v: Tensor, b: Tensor, rate: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
    """A chunk's decays (L, B, C, N) and states (L + 1, B, C, N), the one before it first."""
    decay = torch.mul(dt.transpose(0, 1)[..., None], -rate).exp_()
    h = torch.empty(decay.shape[0] + 1, *begin.shape, dtype=begin.dtype, device=begin.device)
    h[0] = begin
    for i in range(decay.shape[0]):
        torch.mul(decay[i], h[i], out=h[i + 1]).addcmul_(v[:, i, :, None], b[:, i, None])
    return decay, h
