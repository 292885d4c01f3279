"""The architectures of `transformers` that vanilla has too, by their `model_type`."""

from __future__ import annotations

from torch import Tensor

from holo_cli.checkpoint.read import MODEL_PREFIX, TensorFile
from holo_cli.config.model_schema import ModelConfig
from holo_cli.export.form import Form
from holo_cli.export.gpt2 import GPT2
from holo_cli.export.llama import LLAMA, MISTRAL, QWEN2

FORMS: dict[str, Form] = {"gpt2": GPT2, "llama": LLAMA, "mistral": MISTRAL, "qwen2": QWEN2}


def form_of(model: str, config: ModelConfig) -> str | None:
    """The `model_type` that a model is in `transformers`; None where it has none there."""
    recipe = getattr(config, "recipe", None)
    if model != "vanilla" or recipe not in ("classic", "llama"):
        return None
    if recipe == "classic":
        return "gpt2"
    return "qwen2" if getattr(config, "qkv_bias", False) else "llama"


def their_tensors(file: TensorFile, form: Form) -> dict[str, Tensor]:
    """The weights under their names; a tied head is stored once."""
    tensors = {}
    for stored in file.shapes:
        name = stored.removeprefix(MODEL_PREFIX)
        if name == stored or stored in file.header.shared:
            continue
        theirs, turned = form.theirs(name)
        tensor = file.read(stored)
        tensors[theirs] = tensor.T.contiguous() if turned else tensor
    return tensors
