"""Log-probabilities of tokens, of those that were drawn and of a prompt's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from holo_cli.inference.generation.engine import PREFILL_CHUNK, Engine, PrefixCache
from holo_cli.serve.rows import TokenScore


def scored(logits: Tensor, tokens: Sequence[int], top: int) -> list[TokenScore]:
    """Log probabilities of N tokens and of the `top` best at each, from logits (N, V)."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    best = logprobs.topk(min(top, logits.shape[1]), dim=-1)
    values, ids = best.values.tolist(), best.indices.tolist()
    return [
        TokenScore(token, own, tuple(zip(names, numbers, strict=True)))
        for token, own, names, numbers in zip(tokens, chosen, ids, values, strict=True)
    ]


def scored_prompt(
    engine: Engine, ids: Sequence[int], top: int
) -> tuple[list[TokenScore], PrefixCache]:
    """The scores of all tokens of a prompt within the context, and the state after it."""
    model = engine.model
    found = [TokenScore(ids[0], None)]
    with engine.mode(single=False):
        state = model.init_state(1)
        for first in range(0, len(ids), PREFILL_CHUNK):
            chunk = torch.tensor([ids[first : first + PREFILL_CHUNK]], device=model.device)
            x, state = model.step_hidden(chunk, state)
            logits = engine.checked(model.head(x[0]))
            following = ids[first + 1 : first + 1 + PREFILL_CHUNK]
            found += scored(logits[: len(following)], following, top)
        cache = PrefixCache(tuple(ids), state, logits[-1:].clone(), x[:, -1].clone())
    return found, cache
