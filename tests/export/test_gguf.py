"""GGUF: read back by the `gguf` package, by `transformers` and by llama.cpp, and refusals."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from holo_cli import registry
from holo_cli.checkpoint import CheckpointError
from holo_cli.data.tokenizers import Tokenizer, make_tokenizer
from holo_cli.errors import UsageError
from holo_cli.export import export
from holo_cli.export.gguf import GPT2_SPLIT, SPLITS

if TYPE_CHECKING:
    from tests.export.conftest import Run

TEXT = "the cat sat on the mat. 고양이가 매트에 앉았다. a cat, a mat, a 고양이! "
SIZES: dict[str, Any] = {"heads": 4, "width": 64, "context": 32}
CASES: dict[str, dict[str, Any]] = {
    "gpt2": {"recipe": "classic", "gelu": "tanh", "mlp_ratio": 2.5},
    "llama": {"recipe": "llama", "kv_heads": 2, "tied": False, "rope_base": 5000.0},
    "llama-tied": {"recipe": "llama", "mlp_ratio": 2.5},
    "qwen2": {"recipe": "llama", "kv_heads": 1, "qkv_bias": True, "norm_eps": 1e-3},
}


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return make_tokenizer("bpe", texts=lambda: [TEXT] * 4, vocab_size=300, languages=("en", "ko"))


@pytest.fixture
def written(
    tmp_path: Path, make: Callable[..., Run], bpe: Tokenizer
) -> Callable[[str], tuple[Run, Path]]:
    """A run of a case, and its file."""

    def write(case: str) -> tuple[Run, Path]:
        run = make("vanilla", vocab_size=bpe.vocab_size, **SIZES, **CASES[case])
        run.header = run.header.model_copy(update={"tokenizer": bpe.to_dict()})
        return run, export(run.save(tmp_path / "run_best.safetensors"), "gguf").path

    return write


def opened(path: Path) -> Any:
    gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    return gguf.GGUFReader(path)


def values(reader: Any) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize("case", CASES)
def test_the_package_reads_sizes_weights_and_tokenizer(
    written: Callable[[str], tuple[Run, Path]], bpe: Tokenizer, case: str
) -> None:
    run, path = written(case)
    assert path.name == "run_best.gguf"
    reader = opened(path)
    found = values(reader)
    kind = case.partition("-")[0]
    config: Any = run.model.config
    assert found["general.architecture"] == kind
    assert found[f"{kind}.embedding_length"] == 64
    assert found[f"{kind}.feed_forward_length"] == round(config.mlp_ratio * 64)
    assert found[f"{kind}.vocab_size"] == bpe.vocab_size
    if kind != "gpt2":
        assert found[f"{kind}.attention.head_count_kv"] == (config.kv_heads or 4)
        assert found[f"{kind}.rope.freq_base"] == config.rope_base
        assert found[f"{kind}.attention.layer_norm_rms_epsilon"] == pytest.approx(config.norm_eps)
    tensors = {t.name: torch.from_numpy(t.data.copy()) for t in reader.tensors}
    assert all(t.data_offset % 32 == 0 for t in reader.tensors)
    state = run.model.state_dict()
    assert torch.equal(tensors["token_embd.weight"], state["token.weight"])
    assert torch.equal(tensors["blk.1.ffn_down.weight"], state["blocks.1.down.weight"])
    assert ("output.weight" in tensors) is (case == "llama")
    unique = {p.data_ptr(): p.numel() for p in run.model.parameters()}
    assert sum(t.numel() for t in tensors.values()) == sum(unique.values())
    if kind != "gpt2":
        assert torch.equal(tensors["blk.0.attn_q.weight"], order(kind, state["blocks.0.q.weight"]))
        assert torch.equal(tensors["blk.0.attn_v.weight"], state["blocks.0.v.weight"])
    tokens = found["tokenizer.ggml.tokens"]
    assert len(tokens) == bpe.vocab_size
    assert tokens[bpe.end] == "<|end|>"
    assert found["tokenizer.ggml.eos_token_id"] == bpe.end
    kinds = found["tokenizer.ggml.token_type"]
    assert [i for i, kind in enumerate(kinds) if kind == 3] == sorted(bpe.specials.values())
    merges = bpe.to_dict()["json"]["model"]["merges"]
    assert [line.split(" ") for line in found["tokenizer.ggml.merges"]] == [
        list(m) if isinstance(m, list) else m.split(" ") for m in merges
    ]


def order(kind: str, weight: Tensor) -> Tensor:
    """Rows as llama.cpp rotates them: of each head, 0, d/2, 1, d/2 + 1, ... in llama."""
    if kind != "llama":
        return weight
    d = 16
    rows = [h * d + i // 2 + i % 2 * d // 2 for h in range(len(weight) // d) for i in range(d)]
    return weight[rows]


@pytest.mark.parametrize("case", ["llama", "llama-tied", "qwen2"])
def test_transformers_reads_the_file_and_agrees(
    written: Callable[[str], tuple[Run, Path]], transformers: ModuleType, case: str
) -> None:
    """Its reader undoes the order of the rotation. (That of GPT-2 takes 1,024 positions only.)"""
    for needed in ("gguf", "accelerate"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    run, path = written(case)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    tokens = torch.randint(0, 250, (2, 32))
    with torch.no_grad():
        expected = run.model(tokens)
        assert expected.std() > 0.1
        assert (theirs.eval()(tokens).logits - expected).abs().max() < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_writes_the_same_greedy_text(
    written: Callable[[str], tuple[Run, Path]], bpe: Tokenizer, case: str
) -> None:
    library = pytest.importorskip("xllamacpp", reason="llama.cpp (xllamacpp) is not installed")
    run, path = written(case)
    ids = bpe.encode("the cat 고양이가")
    expected = list(ids)
    with torch.no_grad():
        for _ in range(12):
            expected.append(int(run.model(torch.tensor([expected]))[0, -1].argmax()))
    settings = library.CommonParams()
    settings.model.path, settings.n_ctx, settings.warmup = str(path), 32, False
    settings.cpuparams.n_threads = 1
    asked = {"prompt": ids, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
    asked |= {"verbose": True, "return_tokens": True}
    found = library.Server(settings).handle_completions(asked)
    assert found["__verbose"]["prompt"] == "the cat 고양이가"
    assert found["__verbose"]["tokens"] == expected[len(ids) :]


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}, GPT2_SPLIT),
        *(
            (
                {
                    "type": "Sequence",
                    "pretokenizers": [
                        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                         "invert": False},
                        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False,
                         "trim_offsets": True},
                    ],
                },
                name,
            )
            for pattern, name in SPLITS.items()
        ),
    ],
)  # fmt: skip
def test_a_known_rule_of_splitting_is_named(
    tmp_path: Path, make: Callable[..., Run], bpe: Tokenizer, rule: dict[str, Any], name: str
) -> None:
    from holo_cli.data.tokenizers.bpe import JsonTokenizer

    data = bpe.to_dict()["json"] | {"pre_tokenizer": rule}
    tokenizer = JsonTokenizer(json.dumps(data))
    run = make(recipe="llama", vocab_size=tokenizer.vocab_size)
    path = run.save(tmp_path / "run_best.safetensors", tokenizer=tokenizer.to_dict())
    result = export(path, "gguf")
    assert result.notes == ()
    assert values(opened(result.path))["tokenizer.ggml.pre"] == name


def test_what_differs_there_is_said(
    tmp_path: Path, make: Callable[..., Run], written: Callable[[str], tuple[Run, Path]]
) -> None:
    run, _ = written("llama")
    path = run.save(tmp_path / "own_best.safetensors")
    assert "the file names GPT-2's" in export(path, "gguf").notes[0]
    exact = export(make(recipe="classic").save(tmp_path / "exact_best.safetensors"), "gguf")
    assert "approximation with tanh" in exact.notes[0]
    assert "this is a char tokenizer" in exact.notes[1]
    assert values(opened(exact.path))["tokenizer.ggml.model"] == "none"


@pytest.mark.parametrize("name", registry.built_in())
def test_a_model_without_an_architecture_is_refused(
    tmp_path: Path, make: Callable[..., Run], name: str
) -> None:
    path = make(name, width=32).save(tmp_path / "run_best.safetensors")
    with pytest.raises(UsageError, match=f"no architecture for the model {name}") as refused:
        export(path, "gguf")
    assert "--to hf" in refused.value.next_step
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_nothing_half_is_left_and_nothing_replaced_unasked(
    tmp_path: Path, make: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(recipe="llama").save(tmp_path / "run_best.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="--to gguf writes a file"):
        export(path, "gguf", tmp_path / "folder")
    (tmp_path / "folder").rmdir()
    out = export(path, "gguf").path
    with pytest.raises(CheckpointError, match="exists already"):
        export(path, "gguf")
    before = out.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="Cannot export to"):
        export(path, "gguf", force=True)
    assert out.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [out.name, path.name]
