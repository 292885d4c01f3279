"""`holo export --to gguf`: vanilla's recipes classic and llama as one file for llama.cpp.

Names are llama.cpp's. Its llama architecture rotates neighbouring dimensions, (0, 1), (2, 3), ...,
where vanilla and Qwen2 pair i with i + d/2: the rows of queries and keys are put in that order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from holo_cli.checkpoint.header import damaged
from holo_cli.checkpoint.read import MODEL_PREFIX, TensorFile
from holo_cli.config.model_schema import ModelConfig
from holo_cli.data.tokenizers import Tokenizer
from holo_cli.data.tokenizers.bpe import JsonTokenizer
from holo_cli.errors import UsageError
from holo_cli.export.foreign import form_of
from holo_cli.export.gguf_file import BOOL, FLOAT32, I32, TEXT, U32, Values, write_gguf_file

WHOLE = {
    "token.weight": "token_embd.weight",
    "position.weight": "position_embd.weight",
    "norm.weight": "output_norm.weight",
    "norm.bias": "output_norm.bias",
    "head.weight": "output.weight",
}
BLOCK = {
    "norm1": "attn_norm", "qkv": "attn_qkv", "q": "attn_q", "k": "attn_k", "v": "attn_v",
    "out": "attn_output", "norm2": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up",
    "down": "ffn_down",
}  # fmt: skip
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # kinds of tokens
# How a tokenizer.json that llama.cpp knows splits text into words, by the name it has there.
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    CONTRACTIONS + r"\p{N}" + REST: "qwen2",
    CONTRACTIONS + r"\p{N}{1,3}" + REST: "llama-bpe",
}
GPT2_SPLIT = "gpt-2"


def check_architecture(model: str, config: ModelConfig) -> str:
    """The architecture of a model in GGUF. Raises UsageError for a model without one."""
    kind = form_of(model, config)
    if kind is None:
        recipe = getattr(config, "recipe", None)
        name = f"{model} ({recipe})" if recipe else model
        raise UsageError(
            f"GGUF has no architecture for the model {name}; it has one for vanilla's recipes "
            "classic and llama.",
            next_step="Use --to hf for a folder that transformers loads, or --to dir.",
        )
    return kind


def write_gguf(file: TensorFile, config: ModelConfig, path: Path) -> tuple[str, ...]:
    """Write the file; returns notes for the user. Raises UsageError and OSError."""
    kind = check_architecture(file.header.model, config)
    tokenizer = file.tokenizer()
    if tokenizer.vocab_size > config.vocab_size:
        raise damaged(file.path, "its tokenizer has more tokens than its model")
    words, notes = _tokenizer(tokenizer, config.vocab_size)
    name: Values = {"general.name": (TEXT, file.header.run or "vanilla")}
    values = {"general.architecture": (TEXT, kind), **name, **_sizes(kind, config), **words}
    write_gguf_file(path, values, _tensors(file, config, kind))
    if kind == "gpt2" and getattr(config, "gelu", "exact") == "exact":
        message = (
            "llama.cpp computes the GELU of GPT-2 by its approximation with tanh and this model "
            "was trained with the exact one: its logits there differ slightly."
        )
        notes = (message, *notes)
    return notes


def _sizes(kind: str, config: ModelConfig) -> dict[str, tuple[Any, Any]]:
    own: dict[str, tuple[Any, Any]] = {
        "context_length": (U32, config.context),
        "embedding_length": (U32, config.width),
        "block_count": (U32, config.layers),
        "feed_forward_length": (U32, round(config.mlp_ratio * config.width)),
        "attention.head_count": (U32, config.heads),
        "vocab_size": (U32, config.vocab_size),
    }
    if kind == "gpt2":
        own["attention.layer_norm_epsilon"] = (FLOAT32, 1e-5)
    else:
        own |= {
            "attention.head_count_kv": (U32, getattr(config, "kv_heads", 0) or config.heads),
            "attention.layer_norm_rms_epsilon": (FLOAT32, getattr(config, "norm_eps", 1e-5)),
            "rope.freq_base": (FLOAT32, getattr(config, "rope_base", 10_000.0)),
            "rope.dimension_count": (U32, config.width // config.heads),
        }
    values = {f"{kind}.{key}": value for key, value in own.items()}
    return values | {"general.file_type": (U32, 0)}  # all float32


def _tensors(file: TensorFile, config: ModelConfig, kind: str) -> dict[str, Tensor]:
    found = {}
    for stored in file.shapes:
        name = stored.removeprefix(MODEL_PREFIX)
        if name == stored or stored in file.header.shared:
            continue
        tensor = file.read(stored)
        if name in WHOLE:
            found[WHOLE[name]] = tensor
            continue
        _, layer, part, leaf = name.split(".")
        if kind == "llama" and part in ("q", "k"):
            tensor = _neighbours(tensor, config.width // config.heads)
        found[f"blk.{layer}.{BLOCK[part]}.{leaf}"] = tensor
    return found


def _neighbours(weight: Tensor, head_width: int) -> Tensor:
    """Rows (heads d, ...) with dimension i of each head beside i + d/2."""
    halves = weight.unflatten(0, (-1, 2, head_width // 2))
    return halves.transpose(1, 2).reshape(weight.shape)


# -- the tokenizer --------------------------------------------------------------------------------


def _tokenizer(
    tokenizer: Tokenizer, vocab_size: int
) -> tuple[dict[str, tuple[Any, Any]], tuple[str, ...]]:
    """The keys of a byte-level BPE; of other kinds only a key that says there is none."""
    data = tokenizer.to_dict().get("json") if isinstance(tokenizer, JsonTokenizer) else None
    if data is None or not _is_byte_level(data):
        message = (
            f"No tokenizer was written: GGUF holds byte-level BPE, and this is a {tokenizer.kind} "
            "tokenizer; give llama.cpp token ids."
        )
        return {"tokenizer.ggml.model": (TEXT, "none")}, (message,)
    split = _split(data)
    notes: tuple[str, ...] = ()
    if split is None:
        message = (
            "llama.cpp has no name for the rule by which this tokenizer splits text into words; "
            "the file names GPT-2's, so that some texts become other tokens there."
        )
        notes = (message,)
    model = data["model"]
    names = [f"[PAD{i}]" for i in range(vocab_size)]
    kinds = [UNUSED] * vocab_size
    for piece, i in model["vocab"].items():
        names[i], kinds[i] = piece, NORMAL
    for token in data.get("added_tokens") or []:
        names[token["id"]] = token["content"]
        kinds[token["id"]] = CONTROL if token.get("special") else USER_DEFINED
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return {
        "tokenizer.ggml.model": (TEXT, "gpt2"),
        "tokenizer.ggml.pre": (TEXT, split or GPT2_SPLIT),
        "tokenizer.ggml.tokens": (TEXT, names),
        "tokenizer.ggml.token_type": (I32, kinds),
        "tokenizer.ggml.merges": (TEXT, merges),
        "tokenizer.ggml.bos_token_id": (U32, tokenizer.end),
        "tokenizer.ggml.eos_token_id": (U32, tokenizer.end),
        "tokenizer.ggml.add_bos_token": (BOOL, False),
    }, notes


def _is_byte_level(data: dict[str, Any]) -> bool:
    decoder = data.get("decoder") or {}
    return data["model"].get("type") == "BPE" and decoder.get("type") == "ByteLevel"


def _split(data: dict[str, Any]) -> str | None:
    """llama.cpp's name of the rule by which a tokenizer.json splits text; None for another one."""
    rule = data.get("pre_tokenizer") or {}
    if rule.get("type") == "ByteLevel" and rule.get("use_regex", True):
        return GPT2_SPLIT
    for part in rule.get("pretokenizers") or []:
        pattern = part.get("pattern")
        if isinstance(pattern, dict) and pattern.get("Regex") in SPLITS:
            return SPLITS[pattern["Regex"]]
    return None
