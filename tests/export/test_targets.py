"""Exports: weights alone, a folder that loads back, and GPT-2 for `transformers`."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from holo_cli.checkpoint import (
    CheckpointError,
    find_checkpoint,
    inspect_checkpoint,
    load_model,
    load_training,
    read_header,
    save,
)
from holo_cli.data.tokenizers import Tokenizer, make_tokenizer
from holo_cli.errors import UsageError
from holo_cli.export import export

if TYPE_CHECKING:
    from tests.export.conftest import Run

TEXT = "the cat sat on the mat. 고양이가 매트에 앉았다. a cat, a mat, a 고양이! "


@pytest.fixture
def last(tmp_path: Path, run: Run) -> Path:
    """A checkpoint with training state."""
    path = tmp_path / "small_last.safetensors"
    header = run.header.model_copy(update={"kind": "last", "state": {"position": 3}})
    save(
        path,
        header,
        run.tensors() | {"optimizer/m": torch.zeros(500), "optimizer/n": torch.ones(3)},
    )
    return path


def test_weights_lose_the_training_state_only(last: Path, run: Run, tokens: Tensor) -> None:
    result = export(last)
    assert result.path == last.with_name("small_weights.safetensors")
    assert result.bytes == result.path.stat().st_size < last.stat().st_size
    header, tensors = load_training(result.path)
    assert (header.kind, header.state, header.step) == ("weights", {}, 7)
    assert tensors.keys() == run.tensors().keys()
    assert torch.equal(load_model(result.path)[0](tokens), run.model(tokens))
    assert find_checkpoint("small", last.parent, ("best",)) == last  # training's own come first


def test_a_folder_loads_back(last: Path, run: Run, tokens: Tensor) -> None:
    result = export(last, "dir")
    assert result.path == last.with_name("small_last")
    files = {entry.name: entry.stat().st_size for entry in result.path.iterdir()}
    assert files.keys() == {"config.json", "model.safetensors", "tokenizer.json"}
    assert result.bytes == sum(files.values())
    config = json.loads((result.path / "config.json").read_text(encoding="utf-8"))
    assert config["model"] == "vanilla"
    assert "tokenizer" not in config
    stored = load_file(result.path / "model.safetensors")
    assert torch.equal(stored["embedding.token.weight"], run.model.state_dict()["head.weight"])
    assert "head.weight" not in stored
    model, tokenizer, header = load_model(result.path)
    assert torch.equal(model(tokens), run.model(tokens))
    assert tokenizer.fingerprint == run.tokenizer.fingerprint
    assert (header.kind, header.step) == ("weights", 7)
    parameters = sum(p.numel() for p in run.model.parameters())
    assert inspect_checkpoint(result.path)["parameters"] == parameters
    assert export(result.path, "weights").bytes == pytest.approx(
        export(last, "weights", out=last.with_name("b.safetensors")).bytes, rel=0.02
    )


def test_a_folder_whose_files_disagree_is_refused(last: Path) -> None:
    folder = export(last, "dir").path
    config = folder / "config.json"
    found = json.loads(config.read_text(encoding="utf-8"))
    found["config"]["model"]["layers"] = 3
    config.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"lacks the tensor 'model/blocks\.2"):
        load_model(folder)
    config.write_text('{"model_type": "gpt2"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="not made by `holo export --to dir`"):
        read_header(folder)
    config.write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is not JSON"):
        read_header(folder)


@pytest.mark.parametrize("to", ["weights", "dir"])
def test_nothing_is_replaced_unless_forced(last: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / "there"
    out.write_text("precious")
    with pytest.raises(CheckpointError, match="exists already") as caught:
        export(last, to, out)
    assert "--force" in caught.value.next_step
    assert out.read_text() == "precious"
    export(last, to, out, force=True)
    assert load_model(out)[2].step == 7
    if to == "dir":
        (out / "note").write_text("old")
        with pytest.raises(CheckpointError, match="exists already"):
            export(last, to, out)
        export(last, to, out, force=True)
        assert not (out / "note").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_checkpoint_is_never_exported_onto_itself(last: Path) -> None:
    before = last.read_bytes()
    with pytest.raises(UsageError, match="the checkpoint itself"):
        export(last, "weights", last, force=True)
    assert last.read_bytes() == before


def test_a_full_disk_leaves_nothing(
    last: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No room"):
        export(last, "dir")
    assert [entry.name for entry in tmp_path.iterdir()] == [last.name]


def test_an_unknown_target_names_the_nearest(last: Path) -> None:
    with pytest.raises(UsageError, match="weights") as caught:
        export(last, "weight")
    assert caught.value.exit_code == 2


# -- transformers ---------------------------------------------------------------------------------


def with_tokenizer(run: Run, tokenizer: Tokenizer, path: Path) -> Path:
    header = run.header.model_copy(update={"tokenizer": tokenizer.to_dict()})
    save(path, header, run.tensors())
    return path


def test_transformers_computes_the_same_logits(tmp_path: Path, make: Callable[..., Run]) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    run = make(recipe="classic", layers=3, heads=4, width=32, mlp_ratio=2.5, context=24)
    result = export(run.save(tmp_path / "c_best.safetensors"), "hf")
    assert result.path == tmp_path / "c_best-hf"
    assert result.notes == ()
    model, info = transformers.GPT2LMHeadModel.from_pretrained(
        result.path, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = torch.randint(0, run.tokenizer.vocab_size, (3, 24))
    with torch.no_grad():
        difference = (model.eval()(tokens).logits - run.model(tokens)).abs().max()
        assert run.model(tokens).std() > 0.1
    assert difference < 1e-5
    assert model.config.eos_token_id == run.tokenizer.end
    assert model.lm_head.weight is model.transformer.wte.weight


def _bpe() -> Tokenizer:
    return make_tokenizer("bpe", texts=lambda: [TEXT] * 4, vocab_size=300, languages=("en", "ko"))


def _char() -> Tokenizer:
    return make_tokenizer("char", texts=lambda: [TEXT], languages=("en", "ko"))


@pytest.mark.parametrize("kind", [_bpe, _char])
def test_transformers_splits_text_the_same_way(
    tmp_path: Path, make: Callable[..., Run], kind: Callable[[], Tokenizer]
) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    tokenizer = kind()
    run = make(recipe="classic", vocab_size=tokenizer.vocab_size)
    path = with_tokenizer(run, tokenizer, tmp_path / "c_best.safetensors")
    theirs = transformers.AutoTokenizer.from_pretrained(export(path, "hf").path)
    for text in (TEXT, " 앉았다 cat", "한cat!\n", "", "zebra"):
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == tokenizer.decode(ids)
    assert theirs.eos_token_id == tokenizer.end
    assert (
        theirs.decode([tokenizer.end, *tokenizer.encode("cat")], skip_special_tokens=True) == "cat"
    )
    assert theirs.model_max_length == 12


def test_a_tokenizer_without_that_form_is_said(
    tmp_path: Path, make: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    import holo_cli.export.hf_folder as module

    monkeypatch.setattr(module, "write_tokenizer", lambda *args: False)
    path = make(recipe="classic").save(tmp_path / "c_best.safetensors")
    result = export(path, "hf")
    assert "No tokenizer was written" in result.notes[0]
    files = {"config.json", "generation_config.json", "model.safetensors"}
    assert {entry.name for entry in result.path.iterdir()} == files


def test_exporting_needs_no_transformers(
    tmp_path: Path, classic: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    blocked: Any = None
    monkeypatch.setitem(sys.modules, "transformers", blocked)
    assert export(classic.save(tmp_path / "c_best.safetensors"), "hf").bytes > 0


def test_force_never_deletes_a_folder_that_is_no_export(last: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("three years", encoding="utf-8")
    with pytest.raises(UsageError, match="did not export"):
        export(last, "dir", mine, force=True)
    assert (mine / "thesis.txt").read_text(encoding="utf-8") == "three years"
