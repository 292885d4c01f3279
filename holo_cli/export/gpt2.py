"""vanilla's classic recipe as the GPT-2 of `transformers`: same mathematics, other names.

GPT-2 there keeps its matrices as (in, out), the transpose of `nn.Linear`; the fused query, key and
value projection has the same order; GELU is the exact one, "gelu", or
"gelu_new" with `model.gelu=tanh`; the head is tied. `transformers` itself is not needed to write
the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from holo_cli.checkpoint.find import CONFIG_FILE, WEIGHTS_FILE
from holo_cli.checkpoint.read import MODEL_PREFIX, TensorFile
from holo_cli.checkpoint.write import write_tensors
from holo_cli.config.model_schema import ModelConfig
from holo_cli.data.tokenizers import Tokenizer
from holo_cli.errors import UsageError
from holo_cli.files import atomic_write_json

# ours -> theirs, inside a block; weights of linear layers are transposed
BLOCK = {
    "norm1": "ln_1",
    "qkv": "attn.c_attn",
    "out": "attn.c_proj",
    "norm2": "ln_2",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}
LINEAR = ("qkv", "out", "up", "down")
WHOLE = {
    "token.weight": "transformer.wte.weight",
    "position.weight": "transformer.wpe.weight",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
}


def write_gpt2(file: TensorFile, config: ModelConfig, folder: Path) -> tuple[str, ...]:
    """Fill a folder for `GPT2LMHeadModel.from_pretrained`; returns notes about the tokenizer.

    Raises UsageError for every other model, before anything is written.
    """
    header = file.header
    recipe = getattr(config, "recipe", None)
    if header.model != "vanilla" or recipe != "classic":
        name = f"{header.model} ({recipe})" if recipe else header.model
        raise UsageError(
            f"transformers has no architecture for the model {name}; "
            "only vanilla's classic recipe is one it knows, as GPT-2.",
            next_step="Use --to dir for a folder with plain files.",
        )
    tokenizer = file.tokenizer()
    atomic_write_json(folder / CONFIG_FILE, gpt2_config(config, tokenizer.end))
    write_tensors(folder / WEIGHTS_FILE, gpt2_tensors(file), lambda _: {"format": "pt"})
    if not _write_tokenizer(tokenizer, folder):
        return (
            f"No tokenizer was written: a {tokenizer.kind} tokenizer has no tokenizer.json; "
            "encode the text yourself.",
        )
    end = next(name for name, i in tokenizer.specials.items() if i == tokenizer.end)
    atomic_write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end,
            "eos_token": end,
            "model_max_length": config.context,
            "clean_up_tokenization_spaces": False,
        },
    )
    return ()


def gpt2_config(config: ModelConfig, end: int) -> dict[str, Any]:
    """The config.json of the same model in GPT-2's words."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": round(config.mlp_ratio * config.width),
        "activation_function": "gelu_new" if getattr(config, "gelu", "") == "tanh" else "gelu",
        "layer_norm_epsilon": 1e-5,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
    }


def gpt2_tensors(file: TensorFile) -> dict[str, Tensor]:
    """The weights under GPT-2's names; the head is tied and stored once."""
    tensors = {}
    for stored in file.shapes:
        name = stored.removeprefix(MODEL_PREFIX)
        if name == stored or name == "head.weight":
            continue
        tensor = file.read(stored)
        if name in WHOLE:
            tensors[WHOLE[name]] = tensor
            continue
        blocks, layer, part, kind = name.split(".")
        assert blocks == "blocks", name
        transposed = part in LINEAR and kind == "weight"
        theirs = f"transformer.h.{layer}.{BLOCK[part]}.{kind}"
        tensors[theirs] = tensor.T.contiguous() if transposed else tensor
    return tensors


def _write_tokenizer(tokenizer: Tokenizer, folder: Path) -> bool:
    """Write tokenizer.json as the `tokenizers` library reads it; False for kinds it cannot express.

    An alphabet of characters becomes a BPE without merges, which likewise leaves out what it
    does not know.
    """
    from holo_cli.data.tokenizers.bpe import JsonTokenizer
    from holo_cli.data.tokenizers.char import CharTokenizer

    if isinstance(tokenizer, JsonTokenizer):
        tokenizer.save(folder)
        return True
    if not isinstance(tokenizer, CharTokenizer):
        return False
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    by_id = sorted(tokenizer.specials.items(), key=lambda item: item[1])
    vocabulary = {character: i for i, character in enumerate(tokenizer.characters)}
    library = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": name, **flags, "special": True} for name, i in by_id],
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    atomic_write_json(folder / "tokenizer.json", library, indent=None)
    return True
