"""Finds the models by listing folders, and loads one by name.

Listing never imports torch, so `holo models` and shell completion stay quick: a model is any
folder under `holo_cli/models/` with a `config.py` and a `model.py`. Presets are TOML files under
`configs/<model>/`. On the command line underscores become hyphens (`brain_v1` -> `brain-v1`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from holo_cli.errors import UsageError, nearest

if TYPE_CHECKING:
    from holo_cli.config.model_schema import ModelConfig
    from holo_cli.models.base import LanguageModel

PACKAGE = Path(__file__).resolve().parent
MODELS = PACKAGE / "models"


def configs_folder() -> Path:
    """Where presets lie: inside an installed wheel, or at the root of a checkout."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


@cache
def model_names() -> tuple[str, ...]:
    """The models there are, as written on the command line, baseline first."""
    found = [p.parent.name for p in MODELS.glob("*/model.py") if (p.parent / "config.py").exists()]
    names = sorted(name.replace("_", "-") for name in found)
    return tuple(sorted(names, key=lambda name: (name != "vanilla", name)))


def module_name(name: str) -> str:
    """The package of a model: `brain-v1` -> `holo_cli.models.brain_v1`. Unknown names fail."""
    if name.replace("_", "-") not in model_names():
        raise UsageError(
            f"There is no model '{name}'.",
            next_step=f"{nearest(name, model_names())} `holo models` lists them.",
        )
    return "holo_cli.models." + name.replace("-", "_")


def config_class(name: str) -> type[ModelConfig]:
    """The config class of a model; imports pydantic but not torch."""
    config: type[ModelConfig] = importlib.import_module(module_name(name) + ".config").Config
    return config


def model_class(name: str) -> Callable[[ModelConfig], LanguageModel]:
    """What builds the model from its config; imports torch."""
    model: Callable[[ModelConfig], LanguageModel] = importlib.import_module(
        module_name(name) + ".model"
    ).Model
    return model


def preset_names(name: str) -> list[str]:
    """The presets of a model, smallest first as far as the usual names go."""
    module_name(name)
    order = ["tiny", "mini", "shakespeare-fast", "small", "25m", "medium", "large", "xlarge"]
    folder = configs_folder() / name.replace("-", "_")
    presets = [p.stem for p in folder.glob("*.toml")]
    return sorted(presets, key=lambda p: (order.index(p) if p in order else len(order), p))


def preset_path(name: str, preset: str) -> Path:
    """The TOML file of a preset; an unknown one fails with the nearest right name."""
    if preset not in preset_names(name):
        raise UsageError(
            f"Model '{name}' has no preset '{preset}'.",
            next_step=nearest(preset, preset_names(name)),
        )
    return configs_folder() / name.replace("-", "_") / f"{preset}.toml"


def build_model(name: str, config: ModelConfig) -> LanguageModel:
    """A freshly initialised model from its config (config.vocab_size must be set)."""
    if config.vocab_size < 1:
        raise UsageError(
            "A model needs a vocabulary size.",
            next_step="Pass vocab_size=..., or train on a prepared set.",
        )
    return model_class(name)(config)
