"""vanilla's classic recipe and the GPT-2 of `transformers`: same mathematics, other names.

GPT-2 there keeps its matrices as (in, out), the transpose of `nn.Linear`; the fused query, key and
value projection has the same order; GELU is the exact one, "gelu", or "gelu_new" with
`model.gelu=tanh`; the head is tied.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holo_cli.config.model_schema import ModelConfig
from holo_cli.export.folder_files import NotImportable
from holo_cli.export.form import Form, check_fixed, real_number, whole_number

GELUS = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
# what holo computes one way and GPT-2 may be told to compute otherwise
FIXED = {
    "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True, "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False,
}  # fmt: skip


def _settings(folder: Path, theirs: Mapping[str, Any]) -> dict[str, Any]:
    activation = theirs.get("activation_function", "gelu_new")
    if activation not in GELUS:
        raise NotImportable(
            folder, f"its activation is {activation!r}", f"Known: {', '.join(GELUS)}."
        )
    check_fixed(folder, theirs, FIXED)
    width = whole_number(folder, theirs, "n_embd")
    inner = whole_number(folder, theirs, "n_inner", 4 * width)
    return {
        "layers": whole_number(folder, theirs, "n_layer"),
        "heads": whole_number(folder, theirs, "n_head"),
        "width": width,
        "context": whole_number(folder, theirs, "n_positions"),
        "mlp_ratio": inner / width,
        "dropout": real_number(folder, theirs, "resid_pdrop", 0.0),
        "gelu": GELUS[activation],
    }


def _written(config: ModelConfig) -> dict[str, Any]:
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
    }


GPT2 = Form(
    recipe="classic",
    root="transformer.",
    layers="h",
    whole={
        "token.weight": "transformer.wte.weight",
        "position.weight": "transformer.wpe.weight",
        "norm.weight": "transformer.ln_f.weight",
        "norm.bias": "transformer.ln_f.bias",
        "head.weight": "lm_head.weight",
    },
    block={
        "norm1": "ln_1",
        "qkv": "attn.c_attn",
        "out": "attn.c_proj",
        "norm2": "ln_2",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    },
    settings=_settings,
    written=_written,
    transposed=frozenset({"qkv", "out", "up", "down"}),
    derived=(".attn.bias", ".attn.masked_bias"),
)
