"""Texts written together are those written alone, for every model, to the last token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from holo_cli import registry
from holo_cli.check.cases import VOCAB, Case, cases_of
from holo_cli.data.tokenizers.base import END
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.generation.sampling import SamplingConfig, make_generators
from holo_cli.inference.generation.stream import TextStream
from holo_cli.serve import batch as batch_module
from holo_cli.serve.batch import Batch
from holo_cli.serve.prefixes import Prefixes
from holo_cli.serve.rows import BatchRow, GenerationJob, RowEvent
from tests.inference.inference_fakes import ByteTokenizer, make_loaded

CONTEXT = 16
FIRST = [cases_of(name)[0] for name in registry.model_names()]
PROMPTS = ([1, 2, 3], [4] * 13, [5, 6], [7, 8, 9, 10, 11], [3, 1, 4, 1, 5, 9, 2, 6], [2, 7])


class Letters(ByteTokenizer):
    """The first `VOCAB` bytes only, as the models of the checks have."""

    ordinary = VOCAB - 1

    def __init__(self) -> None:
        self.specials = {END: VOCAB - 1}


def loaded_case(case: Case) -> LoadedModel:
    small = replace(case, overrides=case.overrides | {"context": CONTEXT})
    return make_loaded(small.build(dtype=torch.float32), Letters())


def job_of(
    loaded: LoadedModel, sampling: SamplingConfig, prompt: list[int]
) -> tuple[GenerationJob, list]:
    events: list[RowEvent] = []
    job = GenerationJob(loaded, sampling, events.append)
    generators = make_generators(sampling)
    stream = TextStream(loaded.tokenizer, sampling.stop)
    row = BatchRow(job, 0, list(prompt), None if generators is None else generators[0], stream)
    job.rows.append(row)
    return job, events


def alone(loaded: LoadedModel, prompt: list[int], sampling: SamplingConfig) -> list[int]:
    decoding = loaded.engine.generate(prompt, sampling)
    for _ in decoding:
        pass
    return decoding.new_tokens(0)


def together(loaded: LoadedModel, samplings: list[SamplingConfig]) -> tuple[list[list[int]], Batch]:
    """Rows that join at different steps, and leave as they are done."""
    batch = Batch(loaded, Prefixes(0))
    jobs = [job_of(loaded, s, p)[0] for s, p in zip(samplings, PROMPTS, strict=True)]
    for job in jobs[:3]:
        batch.admit(job.rows[0])
    for job in jobs[3:]:
        for _ in range(3):
            batch.step()
        batch.admit(job.rows[0])
    while len(batch):
        batch.step()
    return [job.rows[0].ids[job.rows[0].prompt_length :] for job in jobs], batch


@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.name)
def test_greedy_texts_are_the_same_in_a_batch(case: Case) -> None:
    """Lengths pass the models' context: windows move in the middle of a batch."""
    loaded = loaded_case(case)
    samplings = [
        SamplingConfig(max_new_tokens=n, temperature=0, span_penalty=0.0)
        for n in (24, 20, 5, 18, 11, 12)
    ]
    found, batch = together(loaded, samplings)
    assert found == [alone(loaded, p, s) for p, s in zip(PROMPTS, samplings, strict=True)]
    if loaded.model.mixed_lengths and case.name != "sliding-window":
        assert batch.counts.rows_read > 1.3 * batch.counts.passes


@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.name)
def test_samples_are_the_same_in_a_batch(case: Case) -> None:
    """Each row has its own rules and random numbers."""
    loaded = loaded_case(case)
    rules: list[dict[str, Any]] = [
        {"temperature": 0.7}, {"top_p": 0.8}, {"top_k": 5, "temperature": 1.4}, {},
        {"repetition_penalty": 1.3}, {"temperature": 0},
    ]  # fmt: skip
    samplings = [
        SamplingConfig.from_options(
            {"max_new_tokens": 10, "seed": n, "span_penalty": 0.0, "temperature": 1.0} | rule
        )
        for n, rule in enumerate(rules)
    ]
    found, _ = together(loaded, samplings)
    assert found == [alone(loaded, p, s) for p, s in zip(PROMPTS, samplings, strict=True)]


def test_near_ties_are_decided_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With logits disturbed as rounding would, only the tokens of near ties could change."""
    loaded = loaded_case(FIRST[0])
    samplings = [SamplingConfig(max_new_tokens=10, temperature=0, span_penalty=0.0)] * len(PROMPTS)
    expected = [alone(loaded, p, s) for p, s in zip(PROMPTS, samplings, strict=True)]
    plain = loaded.engine.advance

    def disturbed(tokens: torch.Tensor, state: Any) -> Any:
        logits, hidden, state = plain(tokens, state)
        if tokens.shape[0] > 1:
            logits = logits + 0.2 * torch.randn_like(logits)
        return logits, hidden, state

    monkeypatch.setattr(loaded.engine, "advance", disturbed)
    assert together(loaded, samplings)[0] != expected
    monkeypatch.setattr(batch_module, "NEAR", 3.0)
    found, batch = together(loaded, samplings)
    assert found == expected
    assert batch.counts.near_ties > 0


def test_prefixes_are_dropped_beyond_their_budget() -> None:
    loaded = loaded_case(FIRST[0])
    caches = [loaded.engine.prefill([n, 1, 2]) for n in range(5)]
    size = caches[0].state.nbytes()
    prefixes = Prefixes(3 * size)
    for cache in caches[:3]:
        prefixes.keep(cache)
    assert prefixes.find([0, 1, 2, 9]) is caches[0]  # used: kept for longer
    prefixes.keep(caches[3])
    assert (len(prefixes), prefixes.bytes) == (3, 3 * size)
    assert prefixes.find([1, 1, 2]) is None
    assert prefixes.find([0, 1, 2]) is caches[0]
    Prefixes(size - 1).keep(caches[0])
