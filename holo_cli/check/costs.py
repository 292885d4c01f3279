"""Checks of what a model says it costs: parameters, state and FLOPs against counts.

Each takes a case and returns what it measured, in words; it raises CheckFailed.
"""

from __future__ import annotations

import math

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from holo_cli.check.cases import CONTEXT, Case, random_tokens
from holo_cli.check.compare import need


@torch.no_grad()
def parameters_and_state(case: Case) -> str:
    model = case.build(dtype=torch.float32)
    described = model.describe()
    counted = sum(p.numel() for p in model.parameters())
    need(described.parameters == counted, f"{counted} parameters, said {described.parameters}")
    active = described.active_parameters
    need(0 < active <= counted, f"{active} active parameters of {counted}")
    need(described.train_flops_per_token >= 3 * active, "training FLOPs below those of the weights")
    need(described.decode_flops_per_token > 0, "no FLOPs for decoding")
    tokens = random_tokens(1, CONTEXT)
    state = model.init_state(1)
    for length in (1, 17, CONTEXT):
        _, state = model.step(tokens[:, state.position : length], state)
        said, found = model.state_bytes(length), state.nbytes()
        need(said == found, f"the state has {found} bytes after {length} tokens, said {said}")
    need(described.state_bytes == model.state_bytes(model.config.context), "state by describe()")
    return f"{counted} parameters, {found} bytes after {CONTEXT} tokens"


def flops(case: Case) -> str:
    """Products counted while a whole context runs, against the formula for the forward pass."""
    model = case.build(dtype=torch.float32)
    counts = {  # what the counter does not know by itself
        torch.ops.aten._grouped_mm: _grouped,
        torch.ops.aten.linalg_solve_triangular: _solve,
    }
    with (
        FlopCounterMode(display=False, custom_mapping=counts) as counter,
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),  # the counter does not see inside a fused kernel
    ):
        model(random_tokens(1, CONTEXT))
    counted = counter.get_total_flops() / CONTEXT
    said = model.describe().train_flops_per_token / 3
    # counted is the whole square of attention, said is its past half
    need(
        0.6 * counted < said <= counted,
        f"{counted:.0f} FLOPs a token counted, said {said:.0f}",
    )
    return f"{said / counted:.2f} of the count"


def _grouped(a: list[int], b: list[int], *_: object, **__: object) -> int:
    return 2 * a[0] * a[1] * b[-1]  # rows of all groups (P, n), a matrix each (G, n, k)


def _solve(a: list[int], b: list[int], *_: object, **__: object) -> int:
    return 2 * a[-1] * math.prod(b)  # the whole square, as of attention
