"""Log-likelihoods of given continuations, and greedy text up to a stop: what benchmarks ask for.

Continuations of many prompts go through the model together, filled up at their ends: a causal
model's earlier positions cannot see the filling. Only the scored positions get logits.

Texts to be scored that hold characters the tokenizer lacks are refused. Without those characters,
as a prompt is read, a text would be the likelier the less of it the model knows; and with the true
probability, zero, benchmarks give figures that only seem to mean something: of choices that are all
impossible the harness takes the first. Legend: R requests of a batch, T positions, C width.
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

MAX_NEW_TOKENS = 256


class Likelihood(NamedTuple):
    """Natural logarithm of the probability, and whether each token was the likeliest one."""

    logprob: float
    greedy: bool


class _Request(NamedTuple):
    ids: list[int]  # what is read, and the tokens that are scored at its end
    scored: int


def continuations(
    loaded: LoadedModel, pairs: Sequence[tuple[str, str]], rows: int = 0
) -> list[Likelihood]:
    """The likelihood of each continuation after its context, in the order given.

    Contexts are cut at their beginning where the model cannot hold them, and read without the
    characters that the tokenizer lacks. `rows` go through the model at a time (0: about 16k
    tokens). Raises UsageError for a continuation that does not fit at all, has no tokens, or has a
    character that the tokenizer lacks.
    """
    _check_alphabet(loaded, [text for _, text in pairs])
    return _score(loaded, [_request(loaded, context, text) for context, text in pairs], rows)


def rolling(loaded: LoadedModel, texts: Sequence[str], rows: int = 0) -> list[float]:
    """The log-likelihood of each text by itself, from the beginning of a document.

    Every token is scored once, in windows of the model's context; the last window is moved back so
    that it is full, as lm-evaluation-harness does it. Raises UsageError for a text with a character
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


def until(loaded: LoadedModel, prompt: str, stop: Sequence[str], options: dict[str, Any]) -> str:
    """What the model writes after a prompt, up to any of `stop`.

    `options` are the harness's: max_gen_toks, do_sample, temperature, top_k, top_p. Raises
    UsageError for others.
    """
    known = {"max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
    if unknown := sorted(options.keys() - known):
        raise UsageError(
            f"A task asks for generation with {', '.join(unknown)}, which holo does not have.",
            next_step=f"Known: {', '.join(sorted(known))}.",
        )
    sampled = options.get("do_sample", options.get("temperature", 0) > 0)
    sampling: dict[str, Any] = {"temperature": options.get("temperature", 1.0) if sampled else 0.0}
    sampling |= {key: options[key] for key in ("top_k", "top_p") if sampled and key in options}
    text = loaded.generate(
        prompt,
        max_new_tokens=int(options.get("max_gen_toks", MAX_NEW_TOKENS)),
        stop=tuple(s for s in stop if s),
        seed=0,
        **sampling,
    )
    assert isinstance(text, str)
    return text


def _check_alphabet(loaded: LoadedModel, texts: Sequence[str]) -> None:
    if missing := loaded.tokenizer.unknown("".join(texts)):
        raise UsageError(
            f"This model's alphabet lacks {' '.join(missing)}, which a text to be scored holds: "
            "its probability would be zero.",
            next_step="Leave that task out, or train with a tokenizer that writes every "
            "character: holo prepare --tokenizer bpe.",
        )


def _beginning(loaded: LoadedModel, text: str) -> list[int]:
    """The ids a document in the text's language begins with, one at least."""
    prompts = loaded.prompts
    return prompts.start(prompts.language(text)) or [loaded.tokenizer.end]


def _request(loaded: LoadedModel, context: str, text: str) -> _Request:
    """Spaces between the two belong to the continuation: tokens mostly begin with theirs."""
    stripped = context.rstrip()
    context, text = stripped, context[len(stripped) :] + text
    begun = loaded.tokenizer.encode(context)
    whole = loaded.tokenizer.encode(context + text)
    scored = len(whole) - len(begun)
    if scored < 1:
        raise UsageError(
            f"The continuation '{text}' has no tokens of its own.",
            next_step="The tokenizer joins it with its context. Leave that task out.",
        )
    limit = loaded.model.context_limit
    if limit is not None and scored > limit:
        raise UsageError(
            f"A continuation of {scored} tokens does not fit this model's context of {limit}.",
            next_step="Leave that task out.",
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
    """(scored, V) logits and the tokens that came."""
    goal = torch.tensor(tokens, device=logits.device)
    logprobs = torch.log_softmax(logits.float(), dim=-1).gather(1, goal[:, None])
    return Likelihood(float(logprobs.double().sum()), bool((logits.argmax(dim=-1) == goal).all()))


def _batches(requests: Sequence[_Request], asked: int) -> Iterator[list[int]]:
    """Numbers of requests of about one length, longest first, so many as were asked or fit."""
    order = sorted(range(len(requests)), key=lambda n: -len(requests[n].ids))
    while order:
        rows = asked or max(1, TOKENS_PER_BATCH // len(requests[order[0]].ids))
        yield order[:rows]
        order = order[rows:]
