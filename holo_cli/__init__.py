"""holo: a command-line laboratory for language models that mix tokens in unusual ways.

    import holo_cli as holo

    holo.models()                                  # the names of the models
    lm = holo.load("checkpoints/my-run_best.safetensors")
    lm.generate("Once upon a time", max_new_tokens=50)
    model = holo.build("vanilla", preset="tiny", vocab_size=256)

Importing this is light: torch and the rest come with the first use. What is unusual: `models` is
both the package `holo_cli.models` and a function. Python puts a package's submodule under its
name the moment anybody imports it, so a plain function of that name would vanish; the package is
made callable instead.
"""

from __future__ import annotations

import importlib
import types
from typing import TYPE_CHECKING, Any

from holo_cli import models
from holo_cli.errors import (
    CheckpointError,
    DataError,
    HoloError,
    Stopped,
    TrainingError,
    UsageError,
)

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from holo_cli.inference.chat.session import ChatSession
    from holo_cli.inference.generation.loaded_model import LoadedModel
    from holo_cli.inference.generation.sampling import SamplingConfig
    from holo_cli.models.base import LanguageModel

__version__ = "0.1.0"

__all__ = [
    "ChatSession",
    "CheckpointError",
    "DataError",
    "HoloError",
    "LanguageModel",
    "LoadedModel",
    "SamplingConfig",
    "Stopped",
    "TrainingError",
    "UsageError",
    "__version__",
    "build",
    "load",
    "models",
]

_LAZY = {
    "ChatSession": "holo_cli.inference.chat.session",
    "LanguageModel": "holo_cli.models.base",
    "LoadedModel": "holo_cli.inference.generation.loaded_model",
    "SamplingConfig": "holo_cli.inference.generation.sampling",
}


class _CallablePackage(types.ModuleType):
    """A package that can be called."""

    def __call__(self) -> list[str]:
        """The names of the models, as written on the command line."""
        from holo_cli.registry import model_names

        return list(model_names())


models.__class__ = _CallablePackage


def load(
    path_or_run: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    model: str | None = None,
    compile_steps: bool = False,
) -> LoadedModel:
    """A checkpoint by path, by run name, or (default) the newest: `.model`, `.tokenizer`,
    `.config`, `.header`, `.generate(prompt, ...)`.

    `model`: "path/to/mixer.py:ClassName" where the checkpoint needs a class in a file, which is
    then run; no checkpoint runs one by itself. `compile_steps` makes the decoding step one graph by
    torch.compile. Raises CheckpointError, UsageError for `model`.
    """
    from holo_cli.inference.generation.loaded_model import load as load_checkpoint
    from holo_cli.registry import use

    if model is not None:
        use(model)
    return load_checkpoint(path_or_run, device=device, dtype=dtype, compile_steps=compile_steps)


def build(
    name: str,
    preset: str | None = None,
    *,
    vocab_size: int,
    recipe: str | None = None,
    **overrides: Any,
) -> LanguageModel:
    """A freshly initialised model. `name` is one of `models()`, or "path/to/mixer.py:ClassName",
    which runs that file. `overrides` are keys of `model.`: layers=4, width=128, ...

    HOLO_* variables of the environment are not read: the arguments say everything. Seed with
    `torch.manual_seed`. Raises UsageError for names, keys and values that do not exist or fit, and
    for weights that the memory cannot hold.
    """
    from holo_cli.config.resolve import resolve
    from holo_cli.registry import build_model, use
    from holo_cli.training.capacity import check_capacity

    name = use(name)
    flags = {f"model.{key}": value for key, value in overrides.items()}
    config = resolve(name, preset=preset, recipe=recipe, flags=flags, env={}).model
    config = config.model_copy(update={"vocab_size": vocab_size})
    check_capacity(name, config)
    return build_model(name, config)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
