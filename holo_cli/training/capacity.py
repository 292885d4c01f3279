"""Refuses what no memory of this machine can hold, before anything is allocated.

The bound is a lower one, from shapes alone: the model is built on the meta device, where tensors
have no storage. `memory_estimate.py` then measures what passes. Without this an absurd size ends in
an abort of the allocator, or in minutes of swapping that no signal interrupts.
"""

from __future__ import annotations

from collections.abc import Mapping

import psutil
import torch

from holo_cli.checkpoint.rebuild import shapes_only
from holo_cli.config.model_schema import ModelConfig
from holo_cli.config.resolve import Resolved
from holo_cli.errors import UsageError
from holo_cli.models.base import LanguageModel
from holo_cli.training.precision import pick_device

# bytes per token of a batch, and per token, block and unit of width: the input of every block is
# kept for the backward pass, in bfloat16 at the least, whatever the mechanism
TOKEN_BYTES, KEPT_BYTES = 16, 2


def capacity(device: torch.device) -> int:
    """Bytes of memory that a device has in all; the machine's with its swap space."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return psutil.virtual_memory().total + psutil.swap_memory().total


def model_bytes(model: LanguageModel) -> int:
    """Bytes of a model's parameters and of its tables."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def check_capacity(name: str, config: ModelConfig, device: torch.device | None = None) -> None:
    """Raises UsageError for a model whose weights alone do not fit, or that no shapes can have."""
    device = device or torch.device("cpu")
    _check_width(config, device)
    _check({"the weights": model_bytes(shapes(name, config))}, device, force_helps=False)


def check_run(resolved: Resolved, *, force: bool = False) -> None:
    """Raises UsageError for a run that needs more than the memory and the swap space of its device,
    unless `force`. `model.vocab_size` must be known."""
    if force:
        return
    config, device = resolved.training, pick_device(resolved.training.device)
    _check_width(resolved.model, device)
    model = shapes(resolved.model_name, resolved.model)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    tokens = config.batch_size * resolved.model.context
    kept = tokens * (TOKEN_BYTES + KEPT_BYTES * resolved.model.layers * resolved.model.width)
    # weights, gradients and the momentum of every weight; AdamW has a second one
    parts = {"the weights": 2 * weights + model_bytes(model), "one batch": kept}
    _check(parts, device)


def _check_width(config: ModelConfig, device: torch.device) -> None:
    """Before there are shapes: some constructors compute tables in Python, for ever if absurd."""
    mlp = config.layers * config.width * min(1.0, config.mlp_ratio)
    _check({"the weights": int(4 * config.width * (config.vocab_size + mlp))}, device)


def check_measured(needed: int, device: torch.device, *, force: bool = False) -> None:
    """Raises UsageError where a measured estimate is more than the device has, unless `force`."""
    if not force:
        _check({"the run": needed}, device)


def check_rows(rows: int, bytes_per_row: int, option: str, device: torch.device) -> None:
    """Raises UsageError where an option asks for more rows of a batch than fit."""
    needed, limit = rows * bytes_per_row, capacity(device)
    if needed > limit:
        raise UsageError(
            f"{option} {rows} needs at least {_size(needed)} of memory, and this machine has "
            f"{_size(limit)}.",
            next_step="Use a smaller number.",
        )


def shapes(name: str, config: ModelConfig) -> LanguageModel:
    """The model without storage. Raises UsageError for a config that no model can have."""
    try:
        return shapes_only(name, config)
    except ValueError as error:
        raise UsageError(
            f"No model '{name}' can be built with this config: {error}.",
            next_step="Use smaller numbers for the keys of `model.`.",
        ) from error


def _check(parts: Mapping[str, int], device: torch.device, force_helps: bool = True) -> None:
    needed, limit = sum(parts.values()), capacity(device)
    if needed <= limit:
        return
    largest = max(parts, key=lambda name: parts[name])
    has = f"The {device.type} device has" if device.type == "cuda" else "This machine has"
    raise UsageError(
        f"This run needs at least {_size(needed)} of memory, most of it for {largest}. "
        f"{has} {_size(limit)}.",
        next_step="Use a smaller --batch-size, --context or --preset, or start anyway with --force."
        if force_helps
        else "Use a smaller --preset, or smaller numbers for the keys of `model.`.",
    )


def _size(size: int) -> str:
    return f"{size / 1e12:,.1f} TB" if size >= 1e12 else f"{size / 1e9:,.1f} GB"
