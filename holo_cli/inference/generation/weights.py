"""The forms that a loaded model's weights can have for decoding.

`relay` changes nothing but the order of the numbers in memory. On CPUs a product of one row with
a matrix of more outputs than inputs is 1.6 to 1.9 times as fast if the matrix is stored by columns
(measured: docs/results/speed-log.md), and such matrices, head included, are three quarters of a
model. The weights stay the same tensors of the same shape.

`quantise` replaces linear layers, embedding and head by eight-bit ones (`layers/int8.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from holo_cli.layers.head import Head
from holo_cli.layers.int8 import Int8Embedding, Int8Head, Int8Linear, Int8Weight
from holo_cli.layers.interfaces import Mixer
from holo_cli.layers.mlp import MLP
from holo_cli.models.base import LanguageModel
from holo_cli.models.vanilla.attention import Attention

STORED, INT8 = "stored", "int8"
KINDS = (STORED, INT8)
_LEAST = 1 << 14  # numbers of a matrix; smaller ones stay in the processor's cache anyway


def relay(model: LanguageModel) -> None:
    """Store matrices by columns where decoding is faster so; only on a CPU, and idempotent."""
    if model.device.type != "cpu":
        return
    layers: list[nn.Module] = [m.up for m in model.modules() if type(m) is MLP]
    layers += [m.qkv for m in model.modules() if type(m) is Attention]  # others read theirs too
    weights = [layer.weight for layer in layers if type(layer) is nn.Linear]
    if type(model.head) is Head:
        weights.append(model.head.weight)
    for module in model.modules():
        if isinstance(module, Mixer):
            module.store_by_columns()
    for weight in weights:
        outputs, inputs = weight.shape
        large = outputs > inputs and weight.numel() >= _LEAST
        if large and weight.dtype is torch.float32 and weight.is_contiguous():
            weight.data = weight.data.t().contiguous().t()


@torch.no_grad()
def quantise(model: LanguageModel) -> int:
    """Give the model eight-bit weights, in place and for good; the number of their matrices.

    Layers whose weights the model uses in another way than by calling the layer stay as they are,
    and so do small matrices. Training is not possible afterwards.
    """
    model.eval()
    model.requires_grad_(False)
    replaced = {
        name: module
        for name, module in _called(model).items()
        if module.weight.numel() >= _LEAST and module.weight.is_floating_point()
    }
    for name, linear in replaced.items():
        model.set_submodule(name, Int8Linear(linear))
    _run(model)
    count = 0
    for name, linear in replaced.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, Int8Linear)
        if layer.weight_was_read:
            model.set_submodule(name, linear)
        count += not layer.weight_was_read
    return count + _quantise_head(model)


def _quantise_head(model: LanguageModel) -> int:
    head = model.head
    if type(head) is not Head:
        return 0
    matrix = Int8Weight(head.weight)
    for name, module in list(model.named_modules()):
        if type(module) is nn.Embedding and module.weight is head.weight:
            model.set_submodule(name, Int8Embedding(matrix))
    model.head = Int8Head(matrix, head.cap)
    return 1


def _called(model: LanguageModel) -> dict[str, nn.Linear]:
    """The linear layers that a step of the model calls, by name."""
    found: dict[str, nn.Linear] = {}
    handles = []
    for name, module in model.named_modules():
        if type(module) is nn.Linear:

            def note(layer: nn.Module, given: Any, name: str = name) -> None:
                assert isinstance(layer, nn.Linear)
                found[name] = layer

            handles.append(module.register_forward_pre_hook(note))
    try:
        _run(model)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _run(model: LanguageModel) -> None:
    """What decoding does: some tokens at once, then one."""
    state = model.init_state(1)
    with torch.inference_mode():
        for length in (3, 1):
            tokens = torch.zeros(1, length, dtype=torch.int64, device=model.device)
            _, state = model.step(tokens, state)
