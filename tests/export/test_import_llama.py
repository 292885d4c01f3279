"""Import of Llama, Mistral and Qwen2: the logits of `transformers`, and refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from holo_cli.checkpoint import CheckpointError, load_model, read_header
from holo_cli.data.tokenizers import make_tokenizer
from holo_cli.export import export
from holo_cli.export.import_folder import import_folder
from holo_cli.inference.generation.loaded_model import load

if TYPE_CHECKING:
    from tests.export.conftest import Run

TEXT = "the cat sat on the mat. 고양이가 매트에 앉았다. a cat, a mat, a 고양이! "
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-3}),
    "llama-grouped-tied": ("Llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama-theta": ("Llama", {"num_key_value_heads": 1, "rope_theta": 500_000.0}),
    "mistral": ("Mistral", {"num_key_value_heads": 2, "sliding_window": None}),
    "mistral-wide": ("Mistral", {"num_key_value_heads": 2, "sliding_window": 24}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen2-tied": ("Qwen2", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
}


def write_tokenizer(folder: Path, end: str = "</s>") -> int:
    """A tokenizer.json whose last token is `end`; returns its id."""
    tokenizer = make_tokenizer("bpe", texts=lambda: [TEXT] * 4, vocab_size=300)
    text = (tokenizer.save(folder)).read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text.replace("<|end|>", end), encoding="utf-8")
    return tokenizer.end


def random_folder(library: ModuleType, folder: Path, case: str, **more: Any) -> Any:
    """A folder with random weights, and its model."""
    kind, keys = CASES[case]
    folder.mkdir()
    end = write_tokenizer(folder)
    ids = {"bos_token_id": None, "eos_token_id": end, "vocab_size": end + 1}
    config = getattr(library, f"{kind}Config")(**SIZES, **ids, **keys)
    torch.manual_seed(0)
    model = getattr(library, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, **more)
    return model


@pytest.mark.parametrize("case", CASES)
def test_logits_and_texts_are_those_of_transformers(
    tmp_path: Path, transformers: ModuleType, case: str
) -> None:
    theirs = random_folder(transformers, tmp_path / "theirs", case)
    path = tmp_path / "ours_best.safetensors"
    found = import_folder(tmp_path / "theirs", path, "ours")
    assert found.notes == ()
    model, tokenizer, header = load_model(path)
    assert (header.recipe, header.config["model"]["recipe"]) == ("llama", "llama")
    tokens = torch.randint(0, tokenizer.vocab_size, (3, 24))
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert expected.std() > 0.1
        assert (expected - model(tokens)).abs().max() < 1e-4 * expected.abs().max()
    unique = {p.data_ptr(): p.numel() for p in theirs.parameters()}
    assert found.parameters == sum(unique.values())
    assert tokenizer.end == theirs.config.eos_token_id
    own = load(path, device="cpu")
    ids = own.prompts.encode("the cat")
    there = theirs.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
    here = own.engine.model.init_state(1)
    logits, here = model.step(torch.tensor([ids]), here)
    greedy = []
    for _ in range(8):
        greedy.append(int(logits[0, -1].argmax()))
        if greedy[-1] == tokenizer.end:
            break
        logits, here = model.step(torch.tensor([greedy[-1:]]), here)
    assert there[0, len(ids) :].tolist() == greedy


@pytest.mark.parametrize("case", ["llama-grouped-tied", "llama", "qwen2"])
def test_shards_and_the_way_back(tmp_path: Path, transformers: ModuleType, case: str) -> None:
    folder = tmp_path / "theirs"
    theirs = random_folder(transformers, folder, case, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    path = tmp_path / "ours_best.safetensors"
    import_folder(folder, path, "ours")
    back = export(path, "hf").path
    again = transformers.AutoModelForCausalLM.from_pretrained(back).eval()
    assert type(again) is type(theirs)
    tokens = torch.randint(0, theirs.config.vocab_size, (2, 24))
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, theirs(tokens).logits)
    tokenizer = transformers.AutoTokenizer.from_pretrained(back)
    assert tokenizer(TEXT)["input_ids"] == load_model(path)[1].encode(TEXT)
    assert tokenizer.eos_token_id == theirs.config.eos_token_id


def test_an_imported_model_is_trained_further(
    tmp_path: Path, transformers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holo_cli.training.start_from import open_start

    random_folder(transformers, tmp_path / "theirs", "qwen2")
    path = tmp_path / "ours_best.safetensors"
    import_folder(tmp_path / "theirs", path, "ours")
    start = open_start(path)
    assert start.header.config["training"]["optimizer"] == "adamw"
    assert "blocks.0.q.bias" in start.tensors


# -- folders that cannot be used, made without transformers ---------------------------------------


@pytest.fixture
def folder(tmp_path: Path, make: Callable[..., Run]) -> Path:
    """An exported Llama with its tokenizer."""
    tokenizer = make_tokenizer("bpe", texts=lambda: [TEXT] * 4, vocab_size=300)
    sizes = {"layers": 2, "heads": 4, "kv_heads": 2, "width": 32, "mlp_ratio": 2.5, "context": 24}
    run = make(recipe="llama", tied=False, vocab_size=tokenizer.vocab_size, **sizes)
    run.header = run.header.model_copy(update={"tokenizer": tokenizer.to_dict()})
    return export(run.save(tmp_path / "c_best.safetensors"), "hf").path


def test_the_export_comes_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "back_best.safetensors"
    import_folder(folder, path, "back")
    tokens = torch.randint(0, 250, (2, 24))
    back, first = load_model(path)[0], load_model(tmp_path / "c_best.safetensors")[0]
    torch.testing.assert_close(back(tokens), first(tokens), rtol=0, atol=0)
    assert read_header(path).config["model"]["kv_heads"] == 2


def change(**values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def index(**weight_map: Any) -> Callable[[Path], None]:
    """An index in place of the file; by default all tensors are in one shard."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").rename(folder / "all.safetensors")
        names = dict.fromkeys(tensors, "all.safetensors") | weight_map
        (folder / INDEX).write_text(json.dumps({"weight_map": names}))

    return damage


def tensors(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        found = load_file(path)
        edit(found)
        save_file(found, path)

    return damage


def as_text(name: str, text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(text)

    return damage


def as_tensor(name: str) -> Callable[[Path], None]:
    """One more tensor, of that name."""
    return tensors(lambda found: found.update({name: torch.ones(2)}))


def not_finite(found: dict[str, Any]) -> None:
    found["model.norm.weight"][3] = float("inf")


def with_index(name: str, text: str) -> Callable[[Path], None]:
    """An index and its shard, then this text in one of them."""

    def damage(folder: Path) -> None:
        index()(folder)
        (folder / name).write_text(text)

    return damage


INDEX = "model.safetensors.index.json"
NO_SHARD = "which is no file of this folder"


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (change(model_type="qwen3"), "its model_type is 'qwen3', and vanilla has no form like"),
        (change(model_type="mixtral"), "These have one: gpt2, llama, mistral, qwen2"),
        (change(hidden_act="gelu"), "its hidden_act is 'gelu'"),
        (change(attention_bias=True), "its attention_bias is True"),
        (change(mlp_bias=True), "its mlp_bias is True"),
        (change(head_dim=16), "its 4 heads have 16 dimensions each and its stream 32"),
        (change(sliding_window=8), "a window of 8 tokens of 24"),
        (change(layer_types=["full_attention", "sliding_attention"]), "sees a window"),
        (change(rope_scaling={"rope_type": "llama3", "factor": 8.0}), r"scaled \('llama3'\)"),
        (change(rope_scaling={"type": "linear", "factor": 2.0}), r"scaled \('linear'\)"),
        (change(rope_parameters={"rope_type": "yarn"}), r"scaled \('yarn'\)"),
        (change(rope_theta="large"), "no usable 'rope_theta'"),
        (change(rope_theta=0.5), "fits no model"),
        (change(rms_norm_eps=0), "fits no model"),
        (change(num_key_value_heads=3), "fits no model"),
        (change(num_key_value_heads=1), "its config asks for"),
        (change(num_hidden_layers=3), "lacks the tensor for 'blocks.2"),
        (change(intermediate_size=72), "its config asks for"),
        (change(tie_word_embeddings=True), "ties the head to the embedding and they differ"),
        (change(hidden_size=None), "no usable 'hidden_size'"),
        (as_text("config.json", "{"), "its config.json is not JSON"),
        (as_text("config.json", "[1]"), "its config.json is not a JSON object"),
        (as_text("tokenizer.json", "{}"), "its tokenizer.json is no tokenizer"),
        (tensors(lambda t: t.pop("lm_head.weight")), "lacks the tensor for 'head.weight'"),
        (as_tensor("model.layers.0.self_attn.q_norm.weight"), "its architecture does not have"),
        (as_tensor("model.layers.x.mlp.up_proj.weight"), "its architecture does not have"),
        (tensors(not_finite), "NaN or infinite|not finite"),
        (index(**{"model.norm.weight": "b.safetensors"}), "it lacks 'b.safetensors'"),
        (index(**{"model.norm.weight": "../all.safetensors"}), NO_SHARD),
        (index(**{"model.norm.weight": "/etc/all.safetensors"}), NO_SHARD),
        (index(**{"model.norm.weight": "c:\\all.safetensors"}), NO_SHARD),
        (index(**{"model.norm.weight": "pytorch_model.bin"}), NO_SHARD),
        (index(**{"model.norm.weight": "a\0.safetensors"}), NO_SHARD),
        (index(**{"model.norm.weight": 3}), "has no table of files"),
        (index(**{"model.extra.weight": "all.safetensors"}), "lacks the tensor 'model.extra"),
        (with_index(INDEX, "[]"), "not a JSON object"),
        (with_index(INDEX, "{}"), "has no table of files"),
        (with_index("all.safetensors", "no tensors"), "its all.safetensors is"),
        (lambda f: (f / "model.safetensors").unlink(), "Pickled weights are not read"),
    ],
)  # fmt: skip
def test_what_vanilla_cannot_compute_is_refused_and_nothing_written(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object], match: str
) -> None:
    damage(folder)
    path = tmp_path / "back_best.safetensors"
    with pytest.raises(CheckpointError) as refused:
        import_folder(folder, path, "back")
    said = f"{refused.value.message} {refused.value.next_step}"
    assert re.search(match, said), said
    assert said.count("\n") == 0
    assert not path.exists()


def test_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it is no folder"):
        import_folder(tmp_path / "nothing", tmp_path / "x_best.safetensors", "x")


def test_an_index_of_all_tensors_is_read(folder: Path, tmp_path: Path) -> None:
    index()(folder)
    import_folder(folder, tmp_path / "back_best.safetensors", "back")
    assert load_model(tmp_path / "back_best.safetensors")[2].recipe == "llama"


# -- the tokenizer's own end ----------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["id", "list"])
def test_their_end_of_text_becomes_ours(folder: Path, tmp_path: Path, ends: str) -> None:
    """Its row was trained, and generation ends there."""
    end = write_tokenizer(folder, "<|endoftext|>")
    change(eos_token_id=end if ends == "id" else [end, 3])(folder)
    path = tmp_path / "back_best.safetensors"
    assert import_folder(folder, path, "back").notes == ()
    tokenizer = load_model(path)[1]
    assert tokenizer.end == end
    assert tokenizer.vocab_size == end + 1
    assert tokenizer.encode("<|endoftext|>") != [end]


def test_an_end_that_is_a_plain_piece_is_found(folder: Path, tmp_path: Path) -> None:
    """As in GPT-2's own file, where it is in the vocabulary too."""
    end = write_tokenizer(folder, "<|endoftext|>")
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["model"]["vocab"]["<|endoftext|>"] = end
    path.write_text(json.dumps(data), encoding="utf-8")
    change(eos_token_id=end)(folder)
    out = tmp_path / "back_best.safetensors"
    import_folder(folder, out, "back")
    assert load_model(out)[1].end == end
    data["added_tokens"] = []
    path.write_text(json.dumps(data), encoding="utf-8")
    import_folder(folder, out, "back")
    assert load_model(out)[1].end == end


def test_without_one_the_mark_gets_a_row_of_its_own(folder: Path, tmp_path: Path) -> None:
    write_tokenizer(folder, "</s>")
    change(eos_token_id=None)(folder)
    path = tmp_path / "back_best.safetensors"
    found = import_folder(folder, path, "back")
    assert "begin at the mean of the others" in found.notes[0]
    model, tokenizer, _ = load_model(path)
    table = model.head.weight
    assert tokenizer.end == len(table) - 1
    torch.testing.assert_close(table[-1], table[:-1].mean(0))
