"""Checks of the forward pass and of decoding: shapes, causality, rows, state, the reference.

Each takes a case and returns what it measured, in words; it raises CheckFailed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.check.cases import CONTEXT, VOCAB, Case, random_tokens
from holo_cli.check.compare import CheckFailed, close, need

SINGLY = 2  # tokens that are decoded one at a time after every possible prompt
SINGLY_FROM = (0, 7, 16)  # prompts after which all are


def shapes(case: Case) -> str:
    model = case.build(dtype=torch.float32)
    tokens = random_tokens(2, 33)
    logits = model(tokens)
    need(logits.shape == (2, 33, VOCAB), f"logits have the shape {tuple(logits.shape)}")
    need(logits.dtype == torch.float32, f"logits are {logits.dtype}")
    need(logits.isfinite().all(), "logits are not finite in float32")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(tokens)
        hidden = model.hidden(tokens)
        with torch.inference_mode():
            prefilled, state = model.step(tokens[:, :20], model.init_state(2))
            decoded = [prefilled]
            for i in range(20, tokens.shape[1]):
                one, state = model.step(tokens[:, i : i + 1], state)
                decoded.append(one)
    need(low.dtype == torch.float32, f"logits are {low.dtype} under bfloat16 autocast")
    need(low.isfinite().all(), "logits are not finite in bfloat16")
    need(hidden.x.shape == (2, 33, model.config.width), f"hidden is {tuple(hidden.x.shape)}")
    for name, loss in hidden.aux.items():
        need(loss.ndim == 0 and loss.isfinite(), f"the auxiliary loss '{name}' is {loss}")
    # the same function, up to bfloat16's three digits
    apart = ((low - logits).abs().mean() / logits.abs().mean()).item()
    limit = 0.05 * logits.abs().mean() + 0.02
    need((low - logits).abs().mean() < limit, f"bfloat16 differs from float32 by {apart:.1%}")
    error = (torch.cat(decoded, dim=1) - logits).abs().mean()
    need(error < limit, f"decoding in bfloat16 differs from float32 by {error:.3f}")
    return f"bfloat16 within {apart:.1%}"


def causal_by_gradient(case: Case) -> str:
    model = case.build()
    tokens = random_tokens(1, 20)
    seen: list[Tensor] = []

    def catch(module: nn.Module, args: object, output: Tensor) -> Tensor:
        output.retain_grad()
        seen.append(output)
        return output

    table = next(m for m in model.modules() if isinstance(m, nn.Embedding))
    handle = table.register_forward_hook(catch)
    largest = 0.0
    for position in (0, 7, 18):
        seen.clear()
        model.zero_grad()
        model(tokens)[0, position].pow(2).sum().backward()
        grad = seen[0].grad
        assert grad is not None
        later = grad[0, position + 1 :].abs().max().item()
        # exactly zero, but where the case says that its transform along time spreads rounding
        if not later <= case.claims.rounding:
            raise CheckFailed(
                f"position {position} has a gradient of {later:.2g} to a later token, more than "
                f"{case.claims.rounding:g}"
            )
        need(grad[0, position].abs().sum() > 0, f"position {position} ignores its own token")
        largest = max(largest, later)
    handle.remove()
    return f"{largest:.1g}"


@torch.inference_mode()
def causal_by_replacement(case: Case) -> str:
    model = case.build()
    tokens = random_tokens(1, 48)
    logits = model(tokens)
    generator = torch.Generator().manual_seed(3)
    changed = tokens.repeat(40, 1)  # a row for each replacement
    cuts = torch.randint(1, 48, (40,), generator=generator).tolist()
    for row, cut in zip(changed, cuts, strict=True):
        row[cut:] = torch.randint(0, VOCAB, (48 - cut,), generator=generator)
    largest = 0.0
    for found, cut in zip(model(changed), cuts, strict=True):
        what = f"logits before position {cut}, after which tokens were replaced"
        largest = max(largest, close(found[:cut], logits[0, :cut], what, 1e-11))
    return f"{largest:.1g}"


@torch.inference_mode()
def long_reach(case: Case) -> str:
    model = case.build()
    claimed = case.claims.reach
    reach = CONTEXT - 1 if claimed is None else min(claimed, CONTEXT - 1)
    tokens = random_tokens(1, reach + 1)
    changed = tokens.clone()
    changed[0, 0] = (tokens[0, 0] + 1) % VOCAB
    difference = (model(tokens) - model(changed))[0, -1].abs().max().item()
    need(difference > 1e-7, f"a token changes logits {reach} positions later by {difference:.2g}")
    return f"{difference:.1g} after {reach} positions"


@torch.inference_mode()
def independent_rows(case: Case) -> str:
    model = case.build()
    tokens = random_tokens(5, 40)
    order = torch.tensor([3, 0, 4, 1, 2])
    together = model(tokens)
    alone = torch.cat([model(row[None]) for row in tokens])
    largest = close(alone, together, "a row alone and in a batch", 1e-11)
    close(model(tokens[order]), together[order], "rows in another order", 1e-11)
    need(torch.equal(model(tokens), together), "the same batch twice gives different logits")
    return f"{largest:.1g}"


@torch.inference_mode()
def step_is_forward(case: Case) -> str:
    model = case.build()
    length = 37  # no multiple of any chunk
    tokens = random_tokens(2, length)
    logits = model(tokens)
    largest = 0.0
    # `cut` tokens at once, a few singly, the rest at once: a wrong state shows in the rest
    for cut in range(length + 1):
        singly = min(SINGLY, length - cut)
        pieces = [cut, *[1] * singly, length - cut - singly]
        pieces = [piece for piece in pieces if piece]
        largest = max(largest, _in_pieces(case, model, tokens, pieces, logits))
    for cut in SINGLY_FROM:
        pieces = [cut] * (cut > 0) + [1] * (length - cut)
        largest = max(largest, _in_pieces(case, model, tokens, pieces, logits))
    # pieces of several tokens, as a chat gives them
    largest = max(largest, _in_pieces(case, model, tokens, [5, 1, 17, 2, 12], logits))
    return f"{largest:.1g}, {length + len(SINGLY_FROM) + 2} splits"


def _in_pieces(
    case: Case, model: nn.Module, tokens: Tensor, pieces: list[int], logits: Tensor
) -> float:
    state = model.init_state(len(tokens))  # type: ignore[operator]
    parts = []
    for piece in tokens.split(pieces, dim=1):
        part, state = model.step(piece, state)  # type: ignore[operator]
        parts.append(part)
    need(state.position == tokens.shape[1], f"the state's position is {state.position}")
    shown = f"{pieces[0]}, then singly" if set(pieces[1:]) == {1} else str(pieces)
    return close(torch.cat(parts, 1), logits, f"steps of {shown} against forward", 1e-9)


@torch.inference_mode()
def state_is_a_value(case: Case) -> str:
    """An old state can be continued again, and in another way, without harm to the new ones."""
    model = case.build()
    tokens = random_tokens(2, 20)
    other = random_tokens(2, 4, seed=9)
    _, start = model.step(tokens[:, :10], model.init_state(2))
    first, _ = model.step(tokens[:, 10:14], start)
    branch, branched = model.step(other, start)
    again, kept = model.step(tokens[:, 10:14], start)
    close(again, first, "an old state continued again", 0.0)
    on_branch, _ = model.step(tokens[:, 14:], branched)
    on_kept, _ = model.step(tokens[:, 14:], kept)
    whole = model(torch.cat((tokens[:, :10], other, tokens[:, 14:]), 1))
    close(torch.cat((branch, on_branch), 1), whole[:, 10:], "another continuation", 1e-7, 1e-7)
    largest = close(on_kept, model(tokens)[:, 14:], "a state kept beside another", 1e-9)
    return f"{largest:.1g}"


@torch.inference_mode()
def selected_rows(case: Case) -> str:
    model = case.build()
    tokens = random_tokens(3, 16)
    rows = torch.tensor([2, 0, 2, 2])
    _, state = model.step(tokens[:, :9], model.init_state(3))
    logits, _ = model.step(tokens[rows, 9:], state.select(rows))
    largest = close(logits, model(tokens)[rows, 9:], "selected rows of a state", 1e-9)
    empty = model.init_state(1).select(torch.zeros(3, dtype=torch.int64))
    logits, _ = model.step(tokens, empty)
    close(logits, model(tokens), "rows selected before the first token", 1e-9)
    return f"{largest:.1g}"


@torch.no_grad()
def equals_reference(case: Case) -> str:
    model = case.build()
    largest = 0.0
    for rows, length in ((2, 1), (2, 5), (1, 23)):  # the slow form takes its time
        tokens = random_tokens(rows, length)
        slow = case.logits(model, tokens)
        what = f"logits of {length} tokens against the reference"
        largest = max(largest, close(model(tokens), slow, what, 1e-9, 1e-9))
    return f"{largest:.1g}"


def gradients_equal_reference(case: Case) -> str:
    model = case.build()
    tokens = random_tokens(1, 13)
    weight = torch.randn(1, 13, VOCAB, dtype=torch.float64)
    (model(tokens) * weight).sum().backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (case.logits(model, tokens) * weight).sum().backward()
    largest = 0.0
    for name, p in model.named_parameters():
        if p.grad is not None:
            need(name in fast, f"{name} has a gradient in the reference only")
            found = close(fast[name], p.grad, f"gradient of {name}", 1e-9, 1e-7)
            largest = max(largest, found)
        else:
            unused = name not in fast or bool((fast[name] == 0).all())
            need(unused, f"{name} has no gradient in the reference")
    return f"{largest:.1g}"
