"""vanilla's recipe llama and the architectures of `transformers` that have its block: Llama, and
Mistral and Qwen2 without their sliding windows. Same mathematics, other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from holo_cli.config.model_schema import ModelConfig
from holo_cli.export.folder_files import NotImportable
from holo_cli.export.form import Form, check_fixed, real_number, whole_number

FIXED = {
    "hidden_act": "silu", "mlp_bias": False, "attention_bias": False, "partial_rotary_factor": 1.0,
}  # fmt: skip


def _settings(folder: Path, theirs: Mapping[str, Any], kind: str) -> dict[str, Any]:
    check_fixed(folder, theirs, FIXED)
    width = whole_number(folder, theirs, "hidden_size")
    heads = whole_number(folder, theirs, "num_attention_heads")
    context = whole_number(folder, theirs, "max_position_embeddings")
    head_width = whole_number(folder, theirs, "head_dim", max(width // heads, 1))
    if head_width * heads != width:
        raise NotImportable(
            folder, f"its {heads} heads have {head_width} dimensions each and its stream {width}, "
            "which vanilla divides among its heads",
            "There is no such setting in holo.",
        )  # fmt: skip
    _check_windows(folder, theirs, context)
    kv_heads = whole_number(
        folder, theirs, "num_key_value_heads", {"mistral": 8, "qwen2": 32}.get(kind, heads)
    )
    return {
        "layers": whole_number(folder, theirs, "num_hidden_layers"),
        "heads": heads,
        "kv_heads": 0 if kv_heads == heads else kv_heads,
        "width": width,
        "context": context,
        "mlp_ratio": whole_number(folder, theirs, "intermediate_size") / width,
        "norm_eps": real_number(folder, theirs, "rms_norm_eps", 1e-6),
        "rope_base": _rope_base(folder, theirs),
        "tied": theirs.get("tie_word_embeddings") is True,
        "qkv_bias": kind == "qwen2",
    }


def _rope_base(folder: Path, theirs: Mapping[str, Any]) -> float:
    """The base of the rotation, which newer files keep in a table; scaled ones are refused."""
    found: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        table = theirs.get(key)
        found |= table if isinstance(table, dict) else {}
    kind = found.get("rope_type", found.get("type", "default"))
    if kind != "default":
        raise NotImportable(
            folder, f"its rotary positions are scaled ({kind!r}), and holo's are not",
            "There is no such setting in holo.",
        )  # fmt: skip
    check_fixed(folder, found, {"partial_rotary_factor": 1.0})
    return real_number(folder, {**theirs, **found}, "rope_theta", 10_000.0)


def _check_windows(folder: Path, theirs: Mapping[str, Any], context: int) -> None:
    """Raises NotImportable where a layer sees less than the whole past."""
    window = theirs.get("sliding_window")
    if theirs.get("use_sliding_window") is False:  # Qwen2 names a window that it does not use
        window = None
    other = [kind for kind in theirs.get("layer_types") or () if kind != "full_attention"]
    if other or (isinstance(window, int) and window < context):
        raise NotImportable(
            folder, f"its attention sees a window of {window} tokens of {context}, and vanilla's "
            "all of them",
            "There is no such setting in vanilla.",
        )  # fmt: skip


def _written(config: ModelConfig) -> dict[str, Any]:
    biased = getattr(config, "qkv_bias", False)
    return {
        "architectures": ["Qwen2ForCausalLM" if biased else "LlamaForCausalLM"],
        "model_type": "qwen2" if biased else "llama",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "hidden_size": config.width,
        "intermediate_size": round(config.mlp_ratio * config.width),
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": getattr(config, "kv_heads", 0) or config.heads,
        "hidden_act": "silu",
        "rms_norm_eps": getattr(config, "norm_eps", 1e-5),
        "rope_theta": getattr(config, "rope_base", 10_000.0),
        "attention_dropout": 0.0,
        "tie_word_embeddings": getattr(config, "tied", True),
    } | ({"use_sliding_window": False} if biased else {"attention_bias": False, "mlp_bias": False})


LLAMA = Form(
    recipe="llama",
    root="model.",
    layers="layers",
    whole={
        "token.weight": "model.embed_tokens.weight",
        "norm.weight": "model.norm.weight",
        "head.weight": "lm_head.weight",
    },
    block={
        "norm1": "input_layernorm",
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "out": "self_attn.o_proj",
        "norm2": "post_attention_layernorm",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    },
    settings=lambda folder, theirs: _settings(folder, theirs, "llama"),
    written=_written,
    derived=(".rotary_emb.inv_freq",),
)
MISTRAL = replace(LLAMA, settings=lambda folder, theirs: _settings(folder, theirs, "mistral"))
QWEN2 = replace(LLAMA, settings=lambda folder, theirs: _settings(folder, theirs, "qwen2"))
