"""Import of GPT-2: the way back from an export, the same logits as `transformers`, and refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from holo_cli.checkpoint import CheckpointError, load_model, read_header
from holo_cli.data.tokenizers import make_tokenizer
from holo_cli.export import export
from holo_cli.export.import_folder import import_folder

if TYPE_CHECKING:
    from tests.export.conftest import Run

TEXT = "the cat sat on the mat. 고양이가 매트에 앉았다. a cat, a mat, a 고양이! "


@pytest.fixture
def folder(tmp_path: Path, make: Callable[..., Run]) -> Path:
    """An exported GPT-2 with its tokenizer."""
    tokenizer = make_tokenizer("bpe", texts=lambda: [TEXT] * 4, vocab_size=300)
    sizes = {"layers": 2, "heads": 4, "width": 32, "mlp_ratio": 2.5, "context": 24}
    run = make(recipe="classic", vocab_size=tokenizer.vocab_size, **sizes)
    run.header = run.header.model_copy(update={"tokenizer": tokenizer.to_dict()})
    return export(run.save(tmp_path / "c_best.safetensors"), "hf").path


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_way_back_gives_the_same_model_and_tokenizer(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "back_best.safetensors"
    found = import_folder(folder, path, "back")
    model, tokenizer, _ = load_model(path)
    first, before, _ = load_model(tmp_path / "c_best.safetensors")
    tokens = torch.tensor([tokenizer.encode(TEXT)[:20]])
    assert torch.equal(tokens[0], torch.tensor(before.encode(TEXT)[:20]))
    torch.testing.assert_close(model(tokens), first(tokens), rtol=0, atol=0)
    assert model.head.weight is model.token.weight
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert (read_header(path).run, read_header(path).recipe) == ("back", "classic")


@pytest.mark.parametrize("prefix", [True, False])
def test_logits_are_those_of_transformers(folder: Path, tmp_path: Path, prefix: bool) -> None:
    """With its own activation, and with tensors named as in the first files of GPT-2."""
    transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    change(folder, activation_function="gelu_new")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    if not prefix:
        weights = folder / "model.safetensors"
        plain = {k.removeprefix("transformer."): v for k, v in load_file(weights).items()}
        save_file(plain | {"h.0.attn.bias": torch.ones(1, 1, 24, 24)}, weights)
    path = tmp_path / "back_best.safetensors"
    import_folder(folder, path, "back")
    model, tokenizer, _ = load_model(path)
    tokens = torch.randint(0, tokenizer.vocab_size, (3, 24))
    with torch.no_grad():
        assert (theirs(tokens).logits - model(tokens)).abs().max() < 1e-5
        exact = load_model(tmp_path / "c_best.safetensors")[0]
        assert (exact(tokens) - model(tokens)).abs().max() > 1e-5


@pytest.mark.parametrize("rows", [-7, 5])
def test_the_vocabulary_becomes_the_tokenizer_s(folder: Path, tmp_path: Path, rows: int) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    table = tensors["transformer.wte.weight"]
    tensors["transformer.wte.weight"] = (
        table[:rows].clone() if rows < 0 else torch.cat([table, table[:rows]])
    )
    save_file(tensors, weights)
    path = tmp_path / "back_best.safetensors"
    found = import_folder(folder, path, "back")
    assert "rows without a token were left out" in found.notes[0]
    model, tokenizer, _ = load_model(path)
    kept = min(len(table), len(table) + rows)
    assert len(model.token.weight) == tokenizer.vocab_size == len(table)
    torch.testing.assert_close(model.token.weight[:kept], table[:kept])
    mean = table[:kept].mean(0).expand(len(table) - kept, -1)
    torch.testing.assert_close(model.token.weight[kept:], mean)


def broken(part: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = folder / "model.safetensors"
        tensors = load_file(weights)
        if part == "missing":
            del tensors["transformer.h.1.ln_1.bias"]
        elif part == "foreign":
            tensors["transformer.h.0.rotary"] = torch.ones(2)
        elif part == "deeper":
            tensors["transformer.h.9.ln_1.bias"] = torch.ones(32)
        elif part == "not a number":
            tensors["transformer.ln_f.bias"][3] = float("nan")
        elif part == "cut":
            weights.write_bytes(weights.read_bytes()[:300])
            return
        save_file(tensors, weights)

    return damage


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda f: (f / "config.json").unlink(), "it has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "its config.json is"),
        (lambda f: change(f, model_type="bloom"), "its model_type is 'bloom'"),
        (lambda f: change(f, model_type=["gpt2"]), "its model_type is"),
        (lambda f: change(f, model_type="holo"), "an export of holo itself"),
        (lambda f: change(f, activation_function="relu"), "its activation is 'relu'"),
        (lambda f: change(f, layer_norm_epsilon=1e-6), "its layer_norm_epsilon is 1e-06"),
        (lambda f: change(f, tie_word_embeddings=False), "its tie_word_embeddings is False"),
        (lambda f: change(f, n_embd=None), "no usable"),
        (lambda f: change(f, n_embd="wide"), "no usable 'n_embd'"),
        (lambda f: change(f, n_head=True), "no usable 'n_head'"),
        (lambda f: change(f, n_head=5), "fits no model"),
        (lambda f: change(f, n_layer=10**7), "fits no model"),
        (lambda f: change(f, n_layer=3), "lacks the tensor for 'blocks.2"),
        (lambda f: change(f, n_embd=64), "its config asks for"),
        (lambda f: (f / "tokenizer.json").unlink(), "it has no tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "its tokenizer.json is no tokenizer"),
        (lambda f: (f / "model.safetensors").unlink(), "Pickled weights are not read"),
        (broken("missing"), r"lacks the tensor for 'blocks\.1\.norm1\.bias'"),
        (broken("foreign"), "that its architecture does not have"),
        (broken("deeper"), "no such tensor"),
        (broken("not a number"), "not finite|NaN"),
        (broken("cut"), "its model.safetensors is"),
    ],
)
def test_what_is_no_gpt2_is_refused_and_nothing_written(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object], match: str
) -> None:
    damage(folder)
    path = tmp_path / "back_best.safetensors"
    with pytest.raises(CheckpointError) as refused:
        import_folder(folder, path, "back")
    assert re.search(match, f"{refused.value.message} {refused.value.next_step}"), refused.value
    assert not path.exists()
