"""Estimates the memory of a run before it starts, and measures what the machine has."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from holo_cli import registry
from holo_cli.checkpoint.rebuild import shapes_only
from holo_cli.config.model_schema import ModelConfig
from holo_cli.config.resolve import Resolved
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.models.base import LanguageModel
from holo_cli.training.capacity import check_run
from holo_cli.training.loss import chunk_rows
from holo_cli.training.precision import autocast, pick_device, pick_dtype

# A model of more parameters is measured by its first blocks (a multiple of every model's pattern).
MEASURED_WHOLE = 100_000_000
MEASURED_LAYERS = 4
MEASURED_CONTEXT = 4096  # tokens of the longest row that is run to be measured


def saved_bytes_per_row(model: LanguageModel, dtype: torch.dtype, context: int) -> int:
    """Bytes that one row's forward pass keeps for its backward pass, by running one.

    A row longer than MEASURED_CONTEXT is not run, which could take what is to be foreseen, but
    told from three shorter ones: what is kept grows by a constant, with T and with T^2.
    """
    if context <= MEASURED_CONTEXT:
        return _measured_row(model, dtype, context)
    # all of them long: mechanisms keep other things in short rows
    lengths = [MEASURED_CONTEXT * share // 4 for share in (2, 3, 4)]
    sizes = [_measured_row(model, dtype, length) for length in lengths]
    a, b, c = (
        size * math.prod((context - x) / (length - x) for x in lengths if x != length)
        for size, length in zip(sizes, lengths, strict=True)
    )  # Lagrange's form of the parabola through them
    return max(round(a + b + c), sizes[-1] * context // MEASURED_CONTEXT)


def _measured_row(model: LanguageModel, dtype: torch.dtype, context: int) -> int:
    """Bytes that autograd saves for a row of this length.

    Runs the model and counts every saved storage once, except the weights: exact for this model on
    this device, whatever its mechanism.
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}
    kept: list[torch.Tensor] = []  # storages must live on, or their addresses are used again

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(t)
        return t

    tokens = torch.zeros(1, context, dtype=torch.int64, device=model.device)
    was_training = model.training
    model.train()
    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        autocast(model.device, dtype),
    ):
        out = model.hidden(tokens)
    model.train(was_training)
    del out
    return sum(seen.values())


def memory_parts(
    model: LanguageModel, config: TrainingConfig, dtype: torch.dtype
) -> dict[str, int]:
    """Bytes by part: weights, gradients, optimizer, activations, loss.

    Activations are measured on one row and scaled by the batch. The process itself (Python and
    the libraries, some 300 MB) comes on top.
    """
    context = model.config.context
    return weight_parts(model, config) | {
        "activations": saved_bytes_per_row(model, dtype, context) * config.batch_size,
        "loss": loss_bytes(model, config, model.device),
    }


def loss_bytes(model: LanguageModel, config: TrainingConfig, device: torch.device) -> int:
    """Bytes of the loss over a chunk of tokens on a device; `model` may be on the meta device."""
    vocab = model.head.weight.shape[0]
    context = model.config.context
    # float32 tables of a chunk: logits, gradients, those collected; and the penalty's own
    tables, columns = (9, max(vocab, context)) if config.unlikelihood else (3, vocab)
    chunk = chunk_rows(torch.empty(0, device=device), columns)
    rows = min(chunk, config.batch_size * context)
    return 4 * tables * columns * rows


def activation_bytes(
    name: str, config: ModelConfig, full: LanguageModel, device: torch.device, dtype: torch.dtype,
    *, checkpointed: bool,
) -> int:  # fmt: skip
    """Bytes that one row of a model keeps, by building it (its first blocks, where it is large, and
    scaling them) and running the row. `full` is the model, on any device."""
    model = registry.build_model(name, _measured_config(config, full)).to(device)
    model.grad_checkpoint = checkpointed
    row = saved_bytes_per_row(model, dtype, config.context)
    return row * config.layers // model.config.layers


def _measured_config(config: ModelConfig, full: LanguageModel) -> ModelConfig:
    """The config of what is built to be measured: of a large model its first blocks."""
    large = full.describe().parameters > MEASURED_WHOLE and config.layers > MEASURED_LAYERS
    return config.at_depth(MEASURED_LAYERS) if large else config


def memory_figures(
    model: LanguageModel, config: TrainingConfig, dtype: torch.dtype
) -> dict[str, int]:
    """The estimate of a run with this model, and the free memory of its device, for events."""
    needed = sum(memory_parts(model, config, dtype).values())
    return {"memory_bytes": needed, "available_bytes": available_bytes(model.device)}


def weight_parts(model: LanguageModel, config: TrainingConfig) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer state, by counting."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    matrices = model.matrices() if config.optimizer == "muon" else {}
    muon = sum(p.numel() * p.element_size() for p in matrices.values())
    return {
        "weights": weights,
        "gradients": weights * (3 if config.world_invariant else 1),  # and sums in float64
        "optimizer": muon + 2 * (weights - muon),
    }


def at_full_depth(
    parts: dict[str, int], model: LanguageModel, full: LanguageModel, config: TrainingConfig
) -> dict[str, int]:
    """The `memory_parts` of `model` as they will be when it has the depth of `full`.

    `full` may be on the meta device: its weights are counted, activations scaled by depth.
    """
    activations = parts["activations"] * full.config.layers // model.config.layers
    return parts | weight_parts(full, config) | {"activations": activations}


def estimate(resolved: Resolved, vocab_size: int, *, force: bool = False) -> dict[str, int]:
    """What a run would take, for `--dry-run`: parameters and bytes, by part and `total_bytes`.

    Builds the model, on the device of the run, to measure one row of it; of a model with more than
    MEASURED_WHOLE parameters only its first blocks, which are then scaled. Raises UsageError,
    unless `force`, for a run that cannot fit by its shapes alone.
    """
    device = pick_device(resolved.training.device)
    config = resolved.model.model_copy(update={"vocab_size": vocab_size})
    # refused like the run itself: to measure a row the model is built
    check_run(replace(resolved, model=config), force=force)
    full = shapes_only(resolved.model_name, config)
    described = full.describe()
    model = registry.build_model(resolved.model_name, _measured_config(config, full)).to(device)
    model.grad_checkpoint = resolved.training.grad_checkpoint
    dtype = pick_dtype(resolved.training.dtype, device)
    parts = at_full_depth(
        memory_parts(model, resolved.training, dtype), model, full, resolved.training
    )
    return (
        {
            "parameters": described.parameters,
            "active_parameters": described.active_parameters,
        }
        | {f"{name}_bytes": value for name, value in parts.items()}
        | {"total_bytes": sum(parts.values())}
    )


def memory_warning(needed: int, free: int) -> str | None:
    """A warning if a run probably does not fit into the free memory, else None."""
    if needed <= 0.9 * free:
        return None
    return (
        f"This run needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free. "
        "Try a smaller --batch-size with --grad-accum, or --grad-checkpoint."
    )


def available_bytes(device: torch.device) -> int:
    """Memory that is free for a run on a device: its own, or the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def rss_bytes() -> int:
    """Resident memory of this process now."""
    return psutil.Process().memory_info().rss


def peak_rss_bytes() -> int | None:
    """Largest resident size of this process so far; None where the kernel does not count it.

    On Linux `VmHWM`, which psutil does not read: `ru_maxrss` begins with the size of the parent
    process, so that a small run of a large parent would seem as large as that.
    """
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        peak = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
        return None if peak is None else int(peak.split()[1]) * 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )
