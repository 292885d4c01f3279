"""Finds the models and loads one by name.

A model is a folder under `holo_cli/models/` with a `config.py` and a `model.py`, an entry point of
an installed package, or a class in a file that a person named (see `plugins.py`). Listing imports
no torch. Presets are TOML files under `configs/<model>/`, or in `presets/` in the model's package.
On the command line underscores become hyphens (`brain_v1` -> `brain-v1`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from holo_cli import plugins
from holo_cli.errors import ModelError, UsageError, nearest
from holo_cli.plugins import CodeLocation, use

if TYPE_CHECKING:
    from holo_cli.config.model_schema import ModelConfig
    from holo_cli.models.base import LanguageModel

__all__ = ["use"]

PACKAGE = Path(__file__).resolve().parent
MODELS = PACKAGE / "models"
Builder = Callable[..., "LanguageModel"]


def configs_folder() -> Path:
    """Where presets are: inside an installed wheel, or at the root of a checkout."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


@cache
def built_in() -> tuple[str, ...]:
    """The models of holo itself, baseline first."""
    found = [p.parent.name for p in MODELS.glob("*/model.py") if (p.parent / "config.py").exists()]
    names = sorted(name.replace("_", "-") for name in found)
    return tuple(sorted(names, key=lambda name: (name != "vanilla", name)))


def model_names() -> tuple[str, ...]:
    """All models, as written on the command line: built-in, of installed packages, in files."""
    more = [name for name in sorted(plugins.installed()) if name not in built_in()]
    return (*built_in(), *more, *plugins.files())


def canonical(name: str) -> str | None:
    """The name of a known model as the registry has it; None for an unknown one.

    A class in a file is also found by its class alone, so that a file may be moved or renamed.
    """
    names = model_names()
    if plugins.is_file(name):
        class_name = name.rpartition(":")[2]
        same = [n for n, origin in plugins.files().items() if origin.class_name == class_name]
        return name if name in names else same[0] if len(same) == 1 else None
    name = name.replace("_", "-")
    return name if name in names else None


def find(name: str) -> CodeLocation:
    """Where a model's code is. Raises UsageError for an unknown name, ModelError for one that two
    packages give, or that a package gives to a model beside one of holo."""
    found = canonical(name)
    if found is None and plugins.is_file(name):
        raise UsageError(
            f"The model '{name}' is a class in a Python file that was not named.",
            next_step=f"Add --model path/to/{name}, or set {plugins.VARIABLE}.",
        )
    if found is None:
        raise UsageError(
            f"There is no model '{name}'.",
            next_step=f"{nearest(name, model_names())} `holo models` lists them.",
        )
    if complaint := clash(found):
        raise ModelError(complaint, next_step="Uninstall one, or rename its entry point.")
    if found in built_in():
        return CodeLocation(found, "holo_cli.models." + found.replace("-", "_"))
    return plugins.files()[found] if plugins.is_file(found) else plugins.installed()[found][0]


def clash(name: str) -> str:
    """A sentence about a name that several models have; empty for all others."""
    rivals = plugins.installed().get(name, ())
    packages = " and ".join(f"{o.package} {o.version}".strip() for o in rivals)
    if rivals and name in built_in():
        return (
            f"The package {packages} registers a model '{name}', which is a model of holo itself."
        )
    if len(rivals) > 1:
        return f"Two installed packages register a model '{name}': {packages}."
    return ""


def part(name: str, module: str) -> ModuleType | None:
    """A module of a model's folder, such as "reference" or "views"; None where there is none."""
    return plugins.part(find(name), module)


def config_class(name: str) -> type[ModelConfig]:
    """The config class of a model; of a built-in one without importing torch."""
    origin = find(name)
    if origin.class_name:
        return _outside(origin)[0]
    config: type[ModelConfig] = importlib.import_module(f"{origin.module}.config").Config
    return config


def model_class(name: str) -> Builder:
    """What builds the model from its config; imports torch."""
    origin = find(name)
    if origin.class_name:
        return _outside(origin)[1]
    model: Builder = importlib.import_module(f"{origin.module}.model").Model
    return model


@cache
def _outside(origin: CodeLocation) -> tuple[type[ModelConfig], Builder]:
    """Config class and builder of a single class; `models/outside.py` imports torch."""
    read: Callable[..., tuple[type[ModelConfig], Builder]] = importlib.import_module(
        "holo_cli.models.outside"
    ).config_and_builder
    return read(str(origin), *plugins.load_class(origin))


def mechanism(name: str) -> str:
    """One line about how the model mixes tokens."""
    return config_class(name).mechanism


def needs(name: str) -> dict[str, str]:
    """What a checkpoint of this model needs beside holo; {} for a built-in model."""
    return find(name).to_dict()


def code_files(name: str) -> list[Path]:
    """The files that a model's own code is in."""
    return plugins.code_files(find(name))


def short_name(name: str) -> str:
    """A model's name as part of a file name: of a class in a file, the class."""
    return name.rpartition(":")[2]


def presets_folder(name: str) -> Path | None:
    """Where the presets of a model are; None for a file that stands alone."""
    if find(name).name in built_in():
        return configs_folder() / name.replace("-", "_")
    place = plugins.folder(find(name))
    return None if place is None else place / "presets"


def preset_names(name: str) -> list[str]:
    """The presets of a model, smallest first as far as the usual names go; [] for one without."""
    order = ["tiny", "cortex", "full", "newton", "mini", "shakespeare-fast", "small", "25m"]
    order += ["wikitext103-25m", "gpt2-124m", "medium", "227m", "large", "xlarge"]
    folder = presets_folder(name)
    presets = [] if folder is None else [p.stem for p in folder.glob("*.toml")]
    return sorted(presets, key=lambda p: (order.index(p) if p in order else len(order), p))


def preset_path(name: str, preset: str) -> Path:
    """The TOML file of a preset; an unknown one fails with the nearest right name."""
    known, folder = preset_names(name), presets_folder(name)
    if preset not in known or folder is None:
        hint = (
            nearest(preset, known) if known else "Leave --preset out: its defaults give its size."
        )
        raise UsageError(f"Model '{name}' has no preset '{preset}'.", next_step=hint)
    return folder / f"{preset}.toml"


def build_model(name: str, config: ModelConfig) -> LanguageModel:
    """A freshly initialised model from its config (config.vocab_size must be set)."""
    if config.vocab_size < 1:
        raise UsageError(
            "A model needs a vocabulary size.",
            next_step="Pass vocab_size=..., or train on a prepared set.",
        )
    return model_class(name)(config)
