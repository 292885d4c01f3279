"""Bytes that a row's forward pass keeps for its backward pass, measured once and looked up later.

Measuring runs the model, seconds for each preset. `holo models` needs the figure for every preset
of a model, so the presets of holo itself are in `row_memory.json`, measured on a CPU in both number
formats (`python -m benchmarks.row_memory` writes it; a test holds it against measuring). Everything
else (other settings, models from outside, GPUs) is measured at first use and remembered per
machine, version of torch and state of the code.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from holo_cli import registry
from holo_cli.checkpoint.rebuild import shapes_only
from holo_cli.hardware import cpu_fingerprint, remember, remembered
from holo_cli.parsing import read_json
from holo_cli.training.memory_estimate import activation_bytes, loss_bytes, weight_parts
from holo_cli.training.precision import pick_device, pick_dtype

if TYPE_CHECKING:
    from holo_cli.config.model_schema import ModelConfig
    from holo_cli.config.resolve import Resolved
    from holo_cli.models.base import LanguageModel

TABLE = Path(__file__).with_suffix(".json")
SHARED = ("layers", "models/backbone.py", "models/base.py", "models/recurrent.py")


def train_memory_bytes(
    resolved: Resolved, vocab_size: int, full: LanguageModel | None = None, *, measure: bool = False
) -> int:
    """The total of `memory_estimate.estimate`, without running a row that was measured before.

    `full` is the model on the meta device, where the caller has it already. `measure` ignores what
    is stored, and stores it again.
    """
    config = resolved.model.model_copy(update={"vocab_size": vocab_size})
    full = shapes_only(resolved.model_name, config) if full is None else full
    training = resolved.training
    row = row_bytes(resolved, config, full, measure=measure)
    parts = weight_parts(full, training) | {
        "activations": row * training.batch_size,
        "loss": loss_bytes(full, training, pick_device(training.device)),
    }
    return sum(parts.values())


def row_bytes(
    resolved: Resolved, config: ModelConfig, full: LanguageModel, *, measure: bool = False
) -> int:
    """Activations of one row at the model's context: from the table, remembered, or measured."""
    device = pick_device(resolved.training.device)
    dtype = pick_dtype(resolved.training.dtype, device)
    checkpointed = resolved.training.grad_checkpoint
    key = row_key(resolved.model_name, config, dtype, checkpointed)
    if device.type == "cpu" and not measure and (found := stored_figures().get(key)):
        return found
    name = _machine_key(resolved.model_name, key, device)
    known = None if measure else remembered(name)
    if isinstance(known, int):
        return known
    measured = activation_bytes(
        resolved.model_name, config, full, device, dtype, checkpointed=checkpointed
    )
    remember(name, measured)
    return measured


def row_key(name: str, config: ModelConfig, dtype: torch.dtype, checkpointed: bool) -> str:
    """What the bytes of a row depend on. The vocabulary is not among it: the head and the loss are
    counted apart, and the embedding keeps token ids alone."""
    values = config.model_copy(update={"vocab_size": 0}).model_dump(mode="json")
    # without what a config that lacks the key stands for, so that a new key makes no figure old
    told = {key: value for key, value in values.items() if value != config.before(key)}
    shown = json.dumps(told, sort_keys=True)
    text = f"{name} {shown} {dtype} {checkpointed}"
    return f"{name}/{hashlib.sha256(text.encode('utf-8')).hexdigest()[:16]}"


@cache
def stored_figures() -> dict[str, int]:
    """The stored figures by `row_key`."""
    stored: dict[str, Any] = read_json(TABLE)
    return {key: int(value) for key, value in stored["bytes"].items()}


def _machine_key(name: str, key: str, device: torch.device) -> str:
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_fingerprint()
    code = hashlib.sha256()
    root = registry.PACKAGE
    files = [f for part in SHARED for f in sorted((root / part).rglob("*.py")) or [root / part]]
    for path in (*registry.code_files(name), *files):
        code.update(path.read_bytes())
    return f"row_bytes/{key}/{device.type}/{kind}/{torch.__version__}/{code.hexdigest()[:12]}"
