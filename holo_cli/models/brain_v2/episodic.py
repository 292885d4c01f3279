"""The episodic memory: a matrix per head and row that learns an association from one example.

    S_t = alpha_t S_{t-1} + beta_t k_t (v_t - alpha_t S_{t-1}^T k_t)^T,   |k| = 1      (delta)
    S_t = alpha_t S_{t-1} + beta_t k_t v_t^T                                         (hebbian)
    o_t = S_t^T q_t

(Gated delta rule, Yang et al. 2024, arXiv 2412.06464.) The delta rule writes the difference from
what the key already retrieves, so that a second value replaces the first and correlated keys do not
accumulate. In chunks of L positions, with G the running sum of log alpha inside a chunk and U the
written rows u_t = beta_t (v_t - alpha_t S_{t-1}^T k_t),

    (I + A) U = beta (V - exp(G) K S_0),   A_ts = beta_t exp(G_t - G_s) k_t.k_s  for s < t

so one triangular solve for all chunks at once gives U = U_v - W S_0, and what remains sequential is
a few small products per chunk (WY form). All of it is float32 at least: the solve would amplify the
rounding of bfloat16. Legend: B rows, T positions, H heads, d per head (keys and values alike), L
positions of a chunk, M chunks of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from holo_cli.layers.interfaces import Aux, Mixer
from holo_cli.layers.norm import rms_norm
from holo_cli.layers.precision import no_autocast, wide
from holo_cli.layers.state import DataState
from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.ssm import inverse_softplus

CHUNK = 64


def chunk_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_alpha: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    delta: bool = True,
) -> tuple[Tensor, Tensor]:
    """q, k, v (B, H, T, d), log alpha <= 0 and beta (B, H, T), state (B, H, d, d) or None
    -> o (B, H, T, d) and the state after the last position."""
    batch, heads, length, width = q.shape
    size = min(CHUNK, length)
    extra = -length % size  # after the end nothing is written and nothing decays
    q, k, v = (nn.functional.pad(t, (0, 0, 0, extra)).unflatten(2, (-1, size)) for t in (q, k, v))
    log_alpha, beta = (
        nn.functional.pad(t, (0, extra)).unflatten(2, (-1, size)) for t in (log_alpha, beta)
    )
    total = log_alpha.cumsum(3)[..., None]  # G: (B, H, M, L, 1)
    past = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    decay = (total - total.mT).masked_fill(~past, float("-inf")).exp()  # (B, H, M, L, L)
    decay_in = total.exp()  # from the start of the chunk
    write = beta[..., None] * v
    erased = None  # W
    if delta:
        overlap = (beta[..., None] * (k @ k.mT) * decay).tril(-1)  # A
        right = torch.cat((write, beta[..., None] * decay_in * k), dim=-1)
        solved = torch.linalg.solve_triangular(overlap, right, upper=False, unitriangular=True)
        write, erased = solved.split(width, dim=-1)
    keep = (k * (total[..., -1:, :] - total).exp()).mT
    now = q.new_zeros(batch, heads, width, width) if state is None else state
    before, written = [], []
    # `unbind`, because the gradient of an index into a chunk would be a whole tensor of zeros
    erase = erased.unbind(2) if erased is not None else None
    whole = decay_in[..., -1:, :].unbind(2)  # (B, H, 1, 1) each
    for i, (u, kept) in enumerate(zip(write.unbind(2), keep.unbind(2), strict=True)):
        u = u if erase is None else u - erase[i] @ now
        before.append(now)
        written.append(u)
        now = whole[i] * now + kept @ u
    out = (q * decay_in) @ torch.stack(before, dim=2)
    out = out + ((q @ k.mT) * decay) @ torch.stack(written, dim=2)
    return out.flatten(2, 3)[:, :, :length], now


def delta_rule_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_alpha: Tensor,
    beta: Tensor,
    state: Tensor,
    *,
    delta: bool = True,
) -> tuple[Tensor, Tensor]:
    """`chunk_delta_rule` of a single position by the recurrence, for decoding."""
    row = k.mT  # (B, H, d, 1)
    now = state * log_alpha.exp()[..., None]
    new = v - k @ now if delta else v
    now = torch.addcmul(now, row, beta[..., None] * new)
    return q @ now, now


@dataclass(frozen=True)
class EpisodicState(DataState):
    """S of each row, (B, H, d, d), keys along the third dimension."""

    memory: Tensor


class EpisodicMemory(Mixer):
    """The memory with its projections, the gates alpha (forget) and beta (write), and an output
    gate."""

    constant_state: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.delta = config.memory == "delta"
        self.heads, self.head_width = config.memory_head_count, config.head_width
        width = self.heads * self.head_width
        self.qkv = nn.Linear(config.width, 3 * width, bias=False)
        self.qkv.weight.splits = 3  # type: ignore[attr-defined]
        self.gate = nn.Linear(config.width, width, bias=False)
        self.gates_proj = nn.Linear(config.width, 2 * self.heads, bias=False)  # forget, write
        self.gates_proj.weight.no_muon = True  # type: ignore[attr-defined]
        self.gates_bias = nn.Parameter(torch.empty(2 * self.heads))
        self.out = nn.Linear(width, config.width, bias=False)

    def finish_initialisation(self) -> None:
        """alpha starts at a half-life of 693 tokens, beta at 0.5."""
        nn.init.zeros_(self.gates_proj.weight)
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():
            self.gates_bias[: self.heads] = inverse_softplus(0.001)
            self.gates_bias[self.heads :] = 0.0

    def gates(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, C) -> log alpha <= 0 and beta in (0, 1), each (B, H, S)."""
        raw = self.gates_proj(u).to(wide(u.dtype)) + self.gates_bias.to(wide(u.dtype))
        forget, write = raw.transpose(1, 2).chunk(2, dim=1)
        return -nn.functional.softplus(forget), write.sigmoid()

    def keys(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S, C) -> q and k of length 1, and v, each (B, H, S, d), in full precision."""
        qkv = self.qkv(u).to(wide(u.dtype)).view(*u.shape[:2], 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1), v

    def forward(self, u: Tensor) -> tuple[Tensor, Aux]:
        return self._run(u, None)[0], {}

    def step(self, u: Tensor, state: EpisodicState) -> tuple[Tensor, EpisodicState]:
        out, memory = self._run(u, state.memory)
        return out, EpisodicState(memory)

    def _run(self, u: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        q, k, v = self.keys(u)
        log_alpha, beta = self.gates(u)
        with no_autocast(u):
            if memory is not None and u.shape[1] == 1:
                o, memory = delta_rule_step(q, k, v, log_alpha, beta, memory, delta=self.delta)
            else:
                o, memory = chunk_delta_rule(q, k, v, log_alpha, beta, memory, delta=self.delta)
        o = rms_norm(o).transpose(1, 2).flatten(2).to(u.dtype)
        return self.out(o * nn.functional.silu(self.gate(u))), memory

    @property
    def mixed_lengths(self) -> bool:
        return True

    def init_state(self, batch: int) -> EpisodicState:
        w = self.out.weight
        shape = (batch, self.heads, self.head_width, self.head_width)
        return EpisodicState(torch.zeros(shape, dtype=wide(w.dtype), device=w.device))

    def flops(self, length: float) -> float:
        """Per token and head: products with half a chunk (K K^T, Q K^T, the solve, reading U) and
        with the state."""
        inside = min(length, CHUNK / 2)
        width = self.heads * self.head_width
        chunk, state = (3, 3) if self.delta else (2, 2)
        return 2.0 * width * (chunk * inside + state * self.head_width)

    def decode_flops(self, length: float) -> float:
        """Decay, read at the key, write, read."""
        return 7.0 * self.heads * self.head_width**2
