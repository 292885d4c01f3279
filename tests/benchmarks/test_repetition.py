"""The bench of repetition: its batch is what `holo generate` writes, its measures what they say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from benchmarks.repetition import (
    Passages,
    continued,
    hindered,
    loops,
    loss,
    measure,
    passages,
    repeated,
    row_key,
    summary,
    training_words,
)
from holo_cli.data.dataset import PreparedData
from holo_cli.data.prepare.prepare import prepare
from holo_cli.errors import DataError
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.registry import build_model, config_class

LINES = (
    "the fox ran over the hill and saw the sea. " * 20,
    "여우가 언덕을 넘어 바다를 보았다. " * 20,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("both")
    texts = [f"{n} {line}" for n in range(20) for line in LINES]
    (folder / "both.txt").write_text("\n\n\n".join(texts), encoding="utf-8")
    prepare(
        ["both"],
        source=str(folder / "both.txt"),
        out=folder / "both",
        tokenizer="bpe",
        vocab_size=300,
    )
    return PreparedData.open(folder / "both")


@pytest.fixture(scope="module")
def loaded(data: PreparedData) -> LoadedModel:
    vocab = data.tokenizer.vocab_size
    shape = {"vocab_size": vocab, "layers": 1, "heads": 2, "width": 16, "context": 64}
    torch.manual_seed(0)
    model = build_model("vanilla", config_class("vanilla")(**shape))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
    header: Any = SimpleNamespace(
        run="mine",
        model="vanilla",
        config={"training": {}},
        losses=SimpleNamespace(val=1.0),
        step=1,
    )
    return LoadedModel(model.eval(), data.tokenizer, cast(Any, header))


@pytest.mark.parametrize("options", [{}, {"span_penalty": 0.8}, {"temperature": 0.8, "seed": 3}])
def test_a_batch_is_decoded_as_single_samples_are(
    loaded: LoadedModel, data: PreparedData, options: dict[str, Any]
) -> None:
    """Row 0 has the random numbers of the only sample; greedily every row can be compared."""
    text = passages(data, 4, 8, 24)["ko"]
    config = SamplingConfig(**({"temperature": 0.0} | options), num_samples=len(text.prompts))
    batch = continued(loaded, text.prompts, 24, config)
    engine = loaded.engine
    engine.banned = torch.cat([engine.banned, torch.tensor([data.tokenizer.end])])
    for n in range(len(batch) if config.is_greedy else 1):
        alone = SamplingConfig(**({"temperature": 0.0} | options), max_new_tokens=24)
        decoding = engine.generate(text.prompts[n].tolist(), alone)
        for _ in decoding:
            pass
        assert decoding.new_tokens(0) == batch[n].tolist()


def test_measures() -> None:
    assert repeated(["a", "b", "c", "d", "e"]) == 0
    assert repeated(["a", "b", "c", "a", "b", "c"]) == pytest.approx(0.25)  # abc, bca, cab, abc
    assert repeated([]) == 0
    assert loops([1] * 24)
    assert not loops([1] * 23)
    assert not loops(list(range(100)))
    assert loops([7, 8, *range(30), *range(30), *range(30)])
    assert not loops([*range(30), *range(30), *range(30), 5])


def test_passages_by_language_do_not_cross_documents(data: PreparedData) -> None:
    found = passages(data, 6, 8, 24)
    assert found.keys() == {"en", "ko"}
    for code, text in found.items():
        assert text.prompts.shape[1] == 8
        assert text.following.shape[1] == 24
        assert not (torch.cat(text, 1) == data.tokenizer.end).any()
        written = data.tokenizer.decode(torch.cat(text, 1)[0].tolist())
        assert ("우" in written or "다" in written) == (code == "ko")
    with pytest.raises(DataError, match="too few passages"):
        passages(data, 6, 8, 10**6)


def test_what_an_option_hinders(loaded: LoadedModel) -> None:
    same = Passages(torch.full((2, 8), 65), torch.full((2, 16), 65))
    assert hindered(loaded, same, {"span_penalty": 0.0}) == 0
    assert 0.5 < hindered(loaded, same, {}) < 1  # its own first tokens repeat the prompt alone
    assert hindered(loaded, same, {"span_penalty": 100.0}) == 1
    other = Passages(torch.arange(65, 73)[None], torch.arange(80, 96)[None])
    assert hindered(loaded, other, {"span_penalty": 100.0}) == 0
    assert loss(loaded, same) > 0


def test_rows_are_not_measured_twice(loaded: LoadedModel, data: PreparedData) -> None:
    texts = passages(data, 4, 8, 24)
    known = training_words(data)
    asked: tuple[Any, ...] = (data, texts, known)
    rows = list(measure(None, *asked, set())) + list(measure(loaded, *asked, set(), ["plain"]))
    assert len(rows) == 2 + 2 * 2
    assert not list(measure(loaded, *asked, {row_key(row) for row in rows}, ["plain"]))
    default = list(measure(loaded, *asked, set(), ["default"]))
    assert [row["temperature"] for row in default] == ["greedy"] * 2
    page = summary(rows)
    assert page.count("| mine |") == 4
    assert page.count("| text |") == 4  # beside the greedy and the sampled rows
