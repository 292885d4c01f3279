"""Exports for `transformers`: every model loads, agrees and generates there."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from holo_cli import registry
from holo_cli.export import export
from holo_cli.export.hf_folder import CODE
from holo_cli.inference.generation.loaded_model import load

if TYPE_CHECKING:
    from tests.export.conftest import Run

OWN = [("vanilla", {}), *((name, {}) for name in registry.built_in() if name != "vanilla")]
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("vanilla", {"tied": False, "bigrams": 61, "conv": 4, "suffix": True}),
    ("ngt", {"tied": False}),
]
STOCK: list[tuple[str, dict[str, Any]]] = [
    ("GPT2LMHeadModel", {"recipe": "classic", "mlp_ratio": 2.5}),
    ("LlamaForCausalLM", {"recipe": "llama", "kv_heads": 1, "rope_base": 500.0}),
    ("Qwen2ForCausalLM", {"recipe": "llama", "qkv_bias": True, "tied": False, "norm_eps": 0.01}),
]
SIZES: dict[str, Any] = {"width": 32, "context": 48}


def exported(run: Run, folder: Path) -> Path:
    return export(run.save(folder / "run_best.safetensors"), "hf").path


def load_there(library: ModuleType, folder: Path, **options: Any) -> Any:
    model, info = library.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True, **options
    )
    assert not any(info.values()), info
    return model.eval()


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, 15, (2, 12), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("name", "keys"), OWN + OPTIONS)
def test_every_model_has_its_logits_and_texts_there(
    tmp_path: Path,
    make: Callable[..., Run],
    transformers: ModuleType,
    ids: Tensor,
    name: str,
    keys: dict[str, Any],
) -> None:
    run = make(name, **SIZES, **keys)
    folder = exported(run, tmp_path)
    model = load_there(transformers, folder)
    assert type(model).__name__ == "HoloForCausalLM"
    with torch.no_grad():
        expected = run.model(ids)
        assert expected.std() > 0.01
        torch.testing.assert_close(model(ids, use_cache=False).logits, expected)
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-5)
    greedy = {"max_new_tokens": 8, "do_sample": False}
    with_cache = model.generate(ids, **greedy)
    assert torch.equal(with_cache, model.generate(ids, use_cache=False, **greedy))
    assert torch.equal(with_cache[:, :12], ids)
    # the same text as holo's own, from the same ids
    own = load(tmp_path / "run_best.safetensors", device="cpu")
    text = "abc 가나 mon"
    prompt = torch.tensor([own.prompts.encode(text)])
    there = model.generate(prompt, **greedy)[0, prompt.shape[1] :].tolist()
    plain = {"temperature": 0, "span_penalty": 0, "max_new_tokens": 8}
    assert own.tokenizer.decode(there) == own.generate(text, **plain)


@pytest.mark.parametrize(("name", "keys"), STOCK)
def test_two_recipes_are_architectures_of_transformers(
    tmp_path: Path,
    make: Callable[..., Run],
    transformers: ModuleType,
    ids: Tensor,
    name: str,
    keys: dict[str, Any],
) -> None:
    run = make("vanilla", **SIZES, heads=4, **keys)
    folder = exported(run, tmp_path)
    assert not (folder / CODE.name).exists()
    model = load_there(transformers, folder)
    assert type(model).__name__ == name
    with torch.no_grad():
        assert (model(ids).logits - run.model(ids)).abs().max() < 1e-5
        assert run.model(ids).std() > 0.01
    assert model.config.eos_token_id == run.tokenizer.end


def test_rows_with_padding_are_computed_without_it(
    tmp_path: Path, make: Callable[..., Run], transformers: ModuleType, ids: Tensor
) -> None:
    run = make("ngt", **SIZES)
    model = load_there(transformers, exported(run, tmp_path))
    mask = torch.ones_like(ids)
    mask[1, :5] = 0  # on the left, as for generating
    greedy = {"max_new_tokens": 6, "do_sample": False}
    both = model.generate(ids, attention_mask=mask, **greedy)
    alone = model.generate(ids[1:, 5:], **greedy)
    assert torch.equal(both[1, 12:], alone[0, 7:])
    assert torch.equal(both[:1], model.generate(ids[:1], **greedy))
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0  # on the right, as for scoring
    with torch.no_grad():
        found = model(ids, attention_mask=mask).logits
        torch.testing.assert_close(found[0, :9], run.model(ids[:1, :9])[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1], run.model(ids)[1], rtol=1e-4, atol=1e-5)
        # and a row continues after its own last token
        cache = model(ids, attention_mask=mask).past_key_values
        more = model(
            ids[:, :1], attention_mask=torch.cat([mask, mask[:, :1]], 1), past_key_values=cache
        )
        whole = torch.cat([ids[:1, :9], ids[:1, :1]], dim=1)
        torch.testing.assert_close(more.logits[0, 0], run.model(whole)[0, -1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="rows, positions"):
        model(ids, attention_mask=mask[:, None, None])


def test_beams_samples_and_a_kept_cache(
    tmp_path: Path, make: Callable[..., Run], transformers: ModuleType, ids: Tensor
) -> None:
    model = load_there(transformers, exported(make("mamba", **SIZES), tmp_path))
    beams = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(ids, **beams), model.generate(ids, use_cache=False, **beams))
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    padded = model.generate(ids, attention_mask=mask, **beams)
    assert torch.equal(padded[1, 12:], model.generate(ids[1:, 5:], **beams)[0, 7:])
    with torch.no_grad():
        first = model(ids[:, :7])
        rest = model(ids[:, 7:], past_key_values=first.past_key_values)
        assert rest.past_key_values.get_seq_length() == 12
        again = model(ids[:, 7:], past_key_values=first.past_key_values)  # a cache is a value
        assert torch.equal(rest.logits, again.logits)
        torch.testing.assert_close(
            torch.cat([first.logits, rest.logits], 1),
            model(ids, use_cache=False).logits,
            rtol=1e-4,
            atol=1e-5,
        )
        last = model(ids, logits_to_keep=1).logits
        assert last.shape[1] == 1
        torch.testing.assert_close(last[:, 0], model(ids).logits[:, -1])


def test_training_there_has_the_loss_of_both(
    tmp_path: Path, make: Callable[..., Run], transformers: ModuleType, ids: Tensor
) -> None:
    run = make("brain-v2", **SIZES)
    model = load_there(transformers, exported(run, tmp_path))
    labels = ids.clone()
    labels[0, 3:6] = -100
    found = model(ids, labels=labels, use_cache=False)
    logits = run.model(ids)[:, :-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
    torch.testing.assert_close(found.loss, expected)
    torch.manual_seed(0)
    loss = model.train()(ids, labels=labels).loss
    torch.manual_seed(0)
    hidden = run.model.train().hidden(ids)
    logits = run.model.head(hidden.x)[:, :-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
    torch.testing.assert_close(loss, expected + sum(hidden.aux.values()))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_is_saved_there_loads_again(
    tmp_path: Path, make: Callable[..., Run], transformers: ModuleType, ids: Tensor
) -> None:
    run = make("holographic", **SIZES)
    model = load_there(transformers, exported(run, tmp_path))
    model.save_pretrained(tmp_path / "again")
    back = load_there(transformers, tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(back(ids).logits, model(ids).logits)
    assert back.model.head.weight is back.model.embedding.token.weight
    assert back.get_input_embeddings().weight is back.get_output_embeddings().weight
    half = load_there(transformers, tmp_path / "again", dtype=torch.bfloat16)
    assert half(ids).logits.isfinite().all()
    assert next(half.parameters()).dtype == torch.bfloat16


def test_tokens_that_holo_never_samples_are_suppressed(
    tmp_path: Path, make: Callable[..., Run]
) -> None:
    run = make()
    folder = exported(run, tmp_path)
    stored = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    markers = [i for name, i in run.tokenizer.specials.items() if name != "<|end|>"]
    assert stored["suppress_tokens"] == markers
    assert stored["eos_token_id"] == run.tokenizer.end


def test_without_holo_the_modelling_file_says_what_to_install(
    transformers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "holo_cli", missing)
    spec = importlib.util.spec_from_file_location("modelling_without_holo", CODE)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match="pip install holo-cli"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_the_export_says_that_loading_it_runs_code(
    tmp_path: Path, make: Callable[..., Run]
) -> None:
    result = export(make("gla").save(tmp_path / "run_best.safetensors"), "hf")
    assert "trust_remote_code=True, which runs its modelling file" in result.notes[0]
    names = {path.name for path in result.path.iterdir()}
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "modeling_holo.py",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert (result.path / CODE.name).read_bytes() == CODE.read_bytes()
