"""Log-likelihoods of given continuations, and generation up to a stop string, for benchmarks.

Continuations of many prompts form a batch padded on the right: the earlier positions of a causal
model do not see the padding. Logits are computed at the scored positions only.

Texts with characters that the tokenizer lacks are rejected. If those characters were skipped, as in
prompts, a text would be the more likely the fewer of its characters the tokenizer has. With their
true probability, zero, benchmarks report meaningless figures: among choices that are all impossible
lm-evaluation-harness picks the first. Legend: R requests of a batch, T positions, C width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holo_cli.errors import UsageError
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.training.evaluate import TOKENS_PER_BATCH
from holo_cli.training.precision import autocast
from holo_cli.wording import counted

MAX_NEW_TOKENS = 256


class Likelihood(NamedTuple):
    """Natural logarithm of the probability, and whether every token was the most likely one."""

    logprob: float
    greedy: bool


class _Request(NamedTuple):
    ids: list[int]  # context, then the scored tokens
    scored: int  # number of scored tokens


def continuations(
    loaded: LoadedModel, pairs: Sequence[tuple[str, str]], rows: int = 0
) -> list[Likelihood]:
    """The likelihood of each continuation after its context, as (context, continuation) pairs.

    Contexts longer than the model's context lose their beginning, and characters that the tokenizer
    lacks are skipped in them. `rows` requests form a batch (0: about 16k tokens). Raises UsageError
    for a continuation that exceeds the model's context, has no tokens, or has a character that the
    tokenizer lacks.
    """
    _check_alphabet(loaded, [text for _, text in pairs])
    return _score(loaded, [_request(loaded, context, text) for context, text in pairs], rows)


def rolling(loaded: LoadedModel, texts: Sequence[str], rows: int = 0) -> list[float]:
    """The log-likelihood of each text as a document of its own.

    Every token is scored once, in windows of the model's context; the last window is shifted back
    so that it is full, as in lm-evaluation-harness. Raises UsageError for a text with a character
    that the tokenizer lacks.
    """
    _check_alphabet(loaded, texts)
    context = loaded.config.context
    requests: list[_Request] = []
    owners: list[int] = []
    for number, text in enumerate(texts):
        before = _beginning(loaded, text)
        ids = [*before[-1:], *loaded.tokenizer.encode(text)]
        for start in range(1, len(ids), context):
            end = min(start + context, len(ids))
            requests.append(_Request(ids[max(0, end - context - 1) : end], end - start))
            owners.append(number)
    sums = [0.0] * len(texts)
    for owner, found in zip(owners, _score(loaded, requests, rows), strict=True):
        sums[owner] += found.logprob
    return sums


def generate_until(
    loaded: LoadedModel, prompt: str, stop: Sequence[str], options: dict[str, Any]
) -> str:
    """The model's continuation of a prompt up to any of `stop`.

    `options` are those of lm-evaluation-harness: max_gen_toks, do_sample, temperature, top_k,
    top_p. Raises UsageError for others.
    """
    known = {"max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
    if unknown := sorted(options.keys() - known):
        raise UsageError(
            f"A task needs generation options that holo does not support: {', '.join(unknown)}.",
            next_step=f"Supported: {', '.join(sorted(known))}.",
        )
    sampled = options.get("do_sample", options.get("temperature", 0) > 0)
    sampling: dict[str, Any] = {"temperature": options.get("temperature", 1.0) if sampled else 0.0}
    sampling |= {key: options[key] for key in ("top_k", "top_p") if sampled and key in options}
    text = loaded.generate(
        prompt,
        max_new_tokens=int(options.get("max_gen_toks", MAX_NEW_TOKENS)),
        stop=tuple(s for s in stop if s),
        seed=0,
        span_penalty=0.0,  # tasks ask for the most likely tokens
        **sampling,
    )
    assert isinstance(text, str)
    return text


def _check_alphabet(loaded: LoadedModel, texts: Sequence[str]) -> None:
    if missing := loaded.tokenizer.unknown("".join(texts)):
        raise UsageError(
            f"A text to be scored contains {' '.join(missing)}, which the tokenizer cannot encode.",
            next_step="Omit that task, or train with a tokenizer for all characters: "
            "holo prepare --tokenizer bpe.",
        )


def _beginning(loaded: LoadedModel, text: str) -> list[int]:
    """The ids before a document in the text's language, at least one."""
    prompts = loaded.prompts
    return prompts.start(prompts.language(text)) or [loaded.tokenizer.end]


def _request(loaded: LoadedModel, context: str, text: str) -> _Request:
    # Spaces between the two belong to the continuation, since tokens usually start with a space.
    stripped = context.rstrip()
    context, text = stripped, context[len(stripped) :] + text
    begun = loaded.tokenizer.encode(context)
    whole = loaded.tokenizer.encode(context + text)
    scored = len(whole) - len(begun)
    if scored < 1:
        raise UsageError(
            f"The continuation '{text}' has no tokens of its own: the tokenizer merges it with its "
            "context.",
            next_step="Omit that task.",
        )
    limit = loaded.model.context_limit
    if limit is not None and scored > limit:
        raise UsageError(
            f"A continuation has {counted(scored, 'token')}, more than this model's context of "
            f"{limit}.",
            next_step="Omit that task.",
        )
    ids = _beginning(loaded, context + text) + whole
    return _Request(ids if limit is None else ids[-limit - 1 :], scored)


def _score(loaded: LoadedModel, requests: Sequence[_Request], rows: int) -> list[Likelihood]:
    found: dict[int, Likelihood] = {}
    model, dtype = loaded.model, loaded.dtype or torch.float32
    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast(model.device, dtype):
        for numbers in _batches(requests, rows):
            batch = [requests[n] for n in numbers]
            longest = max(len(r.ids) for r in batch) - 1
            x = torch.full((len(batch), longest), loaded.tokenizer.end)
            for row, request in enumerate(batch):
                x[row, : len(request.ids) - 1] = torch.tensor(request.ids[:-1])
            hidden = model.hidden(x.to(model.device)).x  # (R, T, C)
            for row, (number, request) in enumerate(zip(numbers, batch, strict=True)):
                last = len(request.ids) - 1
                logits = model.head(hidden[row, last - request.scored : last])
                found[number] = _likelihood(logits, request.ids[-request.scored :])
    model.train(was_training)
    return [found[n] for n in range(len(requests))]


def _likelihood(logits: Tensor, tokens: list[int]) -> Likelihood:
    targets = torch.tensor(tokens, device=logits.device)
    logprobs = torch.log_softmax(logits.float(), dim=-1).gather(1, targets[:, None])
    return Likelihood(
        float(logprobs.double().sum()), bool((logits.argmax(dim=-1) == targets).all())
    )


def _batches(requests: Sequence[_Request], asked: int) -> Iterator[list[int]]:
    """Indices of requests of similar length, longest first; `asked` per batch or as many as fit."""
    order = sorted(range(len(requests)), key=lambda n: -len(requests[n].ids))
    while order:
        rows = asked or max(1, TOKENS_PER_BATCH // len(requests[order[0]].ids))
        yield order[:rows]
        order = order[rows:]
