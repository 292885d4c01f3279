"""From logits to the next token: each rule is a pure function on logits (R, V) of R rows.

Names and meanings are those of the generation options of Hugging Face transformers, applied in the
same order: repetition penalty, span penalty (which transformers does not have), banned n-grams,
temperature, top-k, top-p, min-p. Unlike transformers, a draw takes one uniform number per row from
that row's own CPU generator and inverts the cumulative distribution, so a sample depends only on
its seed, not on the number of samples or the device."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

import torch
from torch import Tensor

from holo_cli.inference.generation.sampling import SamplingConfig

BANNED = float("-inf")
SPAN_WINDOW = 1024  # tokens that are searched for repeated spans
MAX_SPAN = 64  # tokens of a span that are compared; longer ones count as this long
SPAN_BASE = 1.75  # growth of the span penalty for each further token
MAX_SPAN_PENALTY = 1e4


def apply_repetition_penalty(
    logits: Tensor, history: Sequence[Sequence[int]], penalty: float
) -> Tensor:
    """(R, V), one history per row -> (R, V): positive logits of seen tokens are divided by the
    penalty, negative ones multiplied, once per token however often it was seen (Keskar et al.,
    2019, arXiv 1909.05858)."""
    if penalty == 1:
        return logits
    logits = logits.clone()
    for row, seen in zip(logits, history, strict=True):
        ids = torch.tensor(sorted(set(seen)), dtype=torch.long, device=logits.device)
        scores = row[ids]
        # a model's logits may be as large as its dtype holds: they must not become infinite here
        most = torch.finfo(row.dtype).max
        row[ids] = torch.where(scores > 0, (scores / penalty).clamp(max=most), scores * penalty)
    return logits


def ban_repeated_ngrams(logits: Tensor, history: Sequence[Sequence[int]], size: int) -> Tensor:
    """(R, V), one history per row -> (R, V) with -inf for every token that would repeat an n-gram
    of `size` tokens of its row. 0 disables."""
    if size == 0:
        return logits
    logits = logits.clone()
    for row, seen in zip(logits, history, strict=True):
        if len(seen) < size:
            continue
        ids = torch.tensor(seen, dtype=torch.long)  # (L,)
        grams = ids.unfold(0, size, 1)  # (L - size + 1, size)
        begun = ids[len(seen) - size + 1 :]  # the n-gram that the next token would complete
        repeated = grams[(grams[:, :-1] == begun).all(dim=1), -1]
        row[repeated.to(logits.device)] = BANNED
    return logits


def repeated_spans(seen: Sequence[int], breakers: Container[int] = ()) -> dict[int, int]:
    """The tokens that would make a repeated span longer, each with the length of that span.

    A span is what precedes the next token and occurred before, followed by that token; of several
    the longest counts. No span holds a breaker. Runs over the last SPAN_WINDOW tokens.

    >>> repeated_spans([1, 2, 3, 9, 1, 2])
    {3: 2}
    """
    recent = list(seen[-SPAN_WINDOW:])
    longest = 0  # of the span that ends now: as far back as there is no breaker
    while longest < len(recent) and recent[-1 - longest] not in breakers:
        longest += 1
    found: dict[int, int] = {}
    last = recent[-1] if recent else None
    for end in range(len(recent) - 1):  # the earlier span's last position
        if recent[end] != last:
            continue
        length, most = 0, min(longest, end + 1, MAX_SPAN)
        while length < most and recent[end - length] == recent[-1 - length]:
            length += 1
        if length > found.get(recent[end + 1], 0):
            found[recent[end + 1]] = length
    return found


def apply_span_penalty(
    logits: Tensor,
    history: Sequence[Sequence[int]],
    penalty: float,
    least: int,
    breakers: Container[int] = (),
) -> Tensor:
    """(R, V), one history per row -> (R, V): a token that would make a repeated span of n tokens
    longer, n >= `least`, loses penalty x SPAN_BASE^(n - least), at most MAX_SPAN_PENALTY.

    Known as DRY ("don't repeat yourself", p-e-w, text-generation-webui pull request 5677, 2024). It
    grows with the length of what is repeated, so that words may come again and sentences may not.
    """
    if penalty == 0:
        return logits
    logits = logits.clone()
    for row, seen in zip(logits, history, strict=True):
        for token, length in repeated_spans(seen, breakers).items():
            if length >= least:
                grown = penalty * SPAN_BASE ** (length - least)
                row[token] -= min(grown, MAX_SPAN_PENALTY)
    return logits


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """(R, V) -> (R, V), relative to the largest of a row and divided by a temperature above 0: the
    same distribution as of `logits / temperature`, without overflow for small temperatures."""
    if temperature == 1:
        return logits
    return (logits - logits.amax(dim=-1, keepdim=True)) / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """(R, V) -> (R, V) with -inf for all but the k largest logits of a row; ties with the k-th
    stay."""
    if k == 0 or k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < least, BANNED)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """(R, V) -> (R, V) with -inf outside the nucleus: the smallest set of most likely tokens of a
    row with total probability p, at least one (Holtzman et al., 2020, arXiv 1904.09751)."""
    if p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # mass of the more likely tokens
    outside = before >= p
    outside[:, 0] = False  # also where p is too small for the dtype, and so equals 0
    return logits.masked_fill(outside.gather(-1, order.argsort(dim=-1)), BANNED)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """(R, V) -> (R, V) with -inf for tokens less likely than p times the most likely one (Nguyen et
    al., 2024, arXiv 2407.01082)."""
    if p == 0:
        return logits
    # In logits the ratio of two probabilities is a difference: no softmax is needed.
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), BANNED)


def shape_logits(
    logits: Tensor,
    history: Sequence[Sequence[int]],
    config: SamplingConfig,
    exempt: int | None = None,
    breakers: Container[int] = (),
    prompt: int = 0,
) -> Tensor:
    """Raw logits (R, V) and the tokens of each row so far -> logits (R, V) to sample from.

    The first `prompt` tokens of a row are not the sample's own: the default span penalty ignores
    repeats of them.
    No repeated span runs across a token of `breakers`. The n-gram rule never bans the `exempt`
    token, which ends a text, and is skipped for a row in
    which it would ban every token.
    """
    # sums over a vocabulary are not exact enough in 16 bits
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    raw = logits
    recent = [row[-config.repetition_window :] for row in history]
    logits = apply_repetition_penalty(logits, recent, config.repetition_penalty)
    penalty, least = config.span_penalty_applied, config.span_length
    spans = [row[prompt:] for row in history] if config.span_penalty is None else history
    logits = apply_span_penalty(logits, spans, penalty, least, breakers)
    free = ban_repeated_ngrams(logits, history, config.no_repeat_ngram_size)
    if exempt is not None and free is not raw:
        free = free.index_copy(1, torch.tensor([exempt], device=raw.device), raw[:, exempt, None])
    logits = torch.where(free.amax(dim=-1, keepdim=True) == BANNED, logits, free)
    if config.is_greedy:  # the rules below do not change the argmax
        return logits
    logits = apply_temperature(logits, config.temperature)
    logits = keep_top_k(logits, config.top_k)
    logits = keep_top_p(logits, config.top_p)
    return keep_min_p(logits, config.min_p)


def sample(logits: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    """Logits (R, V), one CPU generator per row -> tokens (R,) int64; None is greedy.

    A token of probability 0 is never drawn. Greedy decoding breaks ties by the lowest id.
    """
    if generators is None:
        return logits.argmax(dim=-1)
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    reached = logits.softmax(dim=-1, dtype=wide).cumsum(dim=-1)  # (R, V), rising to about 1
    assert bool(torch.isfinite(reached[:, -1]).all()), "no token has a probability"
    # float32 draws stay below 1 in either precision, so `drawn` stays below the row's total.
    uniform = torch.cat([torch.rand(1, generator=g, dtype=torch.float32) for g in generators])
    drawn = uniform.to(logits.device, wide)[:, None] * reached[:, -1:]
    return (reached <= drawn).sum(dim=-1)
