"""The typed config: from names and files to checked values that remember where they came from.

    defaults < recipe < preset < config file < HOLO_* environment < command line

Later layers win, key by key. A preset or a file may hold [recipe.NAME.training] and the like,
which is laid over its common part when that recipe is in force. `Resolved.provenance` has one
entry for every key, so a dry run can say where each value was set. Needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holo_cli import registry
from holo_cli.config import messages as check
from holo_cli.config.added import completed
from holo_cli.config.model_schema import ModelConfig
from holo_cli.config.sources import (
    ConfigFile,
    Given,
    flag_name,
    read_config_file,
    read_env,
    read_flags,
    read_sets,
)
from holo_cli.config.training_schema import DataConfig, TrainingConfig
from holo_cli.errors import UsageError, nearest
from holo_cli.names import existing

DEFAULT_PRESET = "tiny"
DEFAULT_RECIPE = "modern"
_ENDS_WITH_ITS_RUN = ("training.target_loss", "training.time_limit", "training.init_seed")


@dataclass(frozen=True)
class Resolved:
    """A whole run's config: which model, its three sections, and each key's provenance.

    `provenance` maps every dotted key, and "name", "preset" and "recipe", to one of "default",
    "recipe NAME", "preset NAME (FILE)", "file FILE", "env VARIABLE", "--flag", "--set",
    "checkpoint".
    """

    model_name: str
    preset: str | None
    model: ModelConfig
    training: TrainingConfig
    data: DataConfig
    provenance: dict[str, str] = field(default_factory=dict)
    recipe: str = DEFAULT_RECIPE

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data, the form of a checkpoint's header; `from_dict` reads it back."""
        config = {
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "data": self.data.model_dump(mode="json"),
        }
        return {
            "model": self.model_name,
            "preset": self.preset,
            "recipe": self.recipe,
            "config": config,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Resolved:
        """Rebuild from `to_dict` or a checkpoint's header (other keys of it are ignored).

        Raises UsageError for an unknown model, and for keys or values this version does not know.
        """
        name = str(stored["model"])
        kind = registry.config_class(name)
        tables = dict(stored["config"])
        tables["model"] = kind.completed(tables["model"])
        tables["training"] = completed(TrainingConfig, tables["training"])
        values = {
            f"{section}.{key}": Given(f"{section}.{key}", value, "checkpoint")
            for section, table in tables.items()
            for key, value in table.items()
        }
        schema = check.schema_of(kind)
        for given in values.values():
            if given.key != "model.vocab_size":
                check.check_key(given, schema, name)
        recipe = stored.get("recipe", DEFAULT_RECIPE)
        provenance = dict(stored.get("provenance") or dict.fromkeys(values, "checkpoint"))
        return _build(name, stored.get("preset"), recipe, values, provenance)

    def replace(self, changes: Mapping[str, Any], source: str | None = None) -> Resolved:
        """The same with some dotted keys changed and everything checked again.

        `source` is their provenance; left out, the flag that sets the key: `training.steps` is
        from `--steps`. Defaults that depend on changed keys follow them. Raises UsageError as
        `resolve` does.
        """
        schema = check.schema_of(type(self.model))
        free = self._at_linked_defaults()
        values = {
            f"{section}.{key}": Given(
                f"{section}.{key}", value, self.provenance.get(f"{section}.{key}", "default")
            )
            for section, config in self._sections()
            for key, value in config.model_dump().items()
            if f"{section}.{key}" not in free
        }
        for key, value in changes.items():
            values[key] = Given(key, value, source or flag_name(key))
            if key != "model.vocab_size":
                check.check_key(values[key], schema, self.model_name)
        provenance = {**self.provenance, **{key: values[key].source for key in changes}}
        return _build(self.model_name, self.preset, self.recipe, values, provenance)

    def values(self) -> dict[str, Any]:
        """Every dotted key with its value, in the order of the config classes."""
        return {
            f"{section}.{key}": value
            for section, config in self._sections()
            for key, value in config.model_dump(mode="json").items()
        }

    def _at_linked_defaults(self) -> set[str]:
        """Dotted keys of the model that are at a default which depends on its other keys.

        Those of a stored run from before a default changed have another one, and keep it.
        """
        values = self.model.model_dump()
        given = {
            key: value
            for key, value in values.items()
            if self.provenance.get(f"model.{key}", "default") != "default"
        }
        return {
            f"model.{key}"
            for key, value in self.model.linked_defaults(given).items()
            if key not in given and values[key] == value
        }

    def _sections(self) -> tuple[tuple[str, ModelConfig | TrainingConfig | DataConfig], ...]:
        return (("model", self.model), ("training", self.training), ("data", self.data))


def resolve(
    model_name: str | None = None,
    preset: str | None = None,
    recipe: str | None = None,
    file: str | Path | None = None,
    sets: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> Resolved:
    """Lay all layers over each other and check the result.

    `model_name` may be left out when `file` says `name = "..."`; `preset` defaults to the file's,
    then to "tiny"; `recipe` to the file's, the preset's, then "modern". `sets` are "key=value"
    texts; `flags` maps dotted keys to values, None meaning not given; `env` defaults to the
    process's environment. Raises UsageError naming the key, where it was set, and the nearest
    right one.
    """
    config_file = read_config_file(existing(file), f"file {file}") if file is not None else None
    chosen = {"name": "--model", "preset": "--preset", "recipe": "--recipe"}
    if config_file and model_name is None and config_file.name:
        model_name, chosen["name"] = config_file.name, f"file {file}"
    if model_name is None:
        raise UsageError(
            "No model was named.",
            next_step=f"Add --model, one of: {', '.join(registry.model_names())}.",
        )
    schema = check.schema_of(registry.config_class(model_name))
    model_name = registry.canonical(model_name) or model_name
    if config_file:
        _check_model(config_file, model_name, str(file))
        if preset is None and config_file.preset:
            preset, chosen["preset"] = config_file.preset, f"file {file}"
    if preset is None:
        preset, chosen["preset"] = default_preset(model_name), "default"
    preset_file = _read_preset(model_name, preset)
    for source, candidate in ((f"file {file}", config_file), (f"preset {preset}", preset_file)):
        if recipe is None and candidate and candidate.recipe:
            recipe, chosen["recipe"] = candidate.recipe, source
    if recipe is None:
        recipe, chosen["recipe"] = DEFAULT_RECIPE, "default"

    layers = _recipe_layer(recipe, schema)
    for candidate in (preset_file, config_file):
        if candidate:
            for name in candidate.by_recipe:
                _check_recipe(name, f"[recipe.{name}] in {candidate.shown}: ")
            layers += candidate.given + candidate.by_recipe.get(recipe, [])
    layers += read_env(os.environ if env is None else env, schema)
    layers += read_sets(sets)
    for given in layers:
        check.check_key(given, schema, model_name)
    for given in read_flags(flags or {}):
        if given.key != "model.vocab_size":  # code may set it, who has read the tokenizer
            check.check_key(given, schema, model_name)
        layers.append(given)
    values = {given.key: given for given in layers}
    _fit_warmup(values, layers)
    provenance = {key: values[key].source if key in values else "default" for key in schema}
    return _build(model_name, preset, recipe, values, {**chosen, **provenance})


def resolve_from(
    stored: Mapping[str, Any],
    shown: str,
    file: str | Path | None = None,
    sets: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> Resolved:
    """The config of a run that starts from a checkpoint: the other layers over what it stores.

    `stored` is a checkpoint's header as a dict and `shown` how it is named in messages. What ended
    that run (`training.target_loss`, `training.time_limit`) and its growth do not carry over.
    Raises UsageError as `resolve` does.
    """
    source = f"checkpoint {shown}"
    stored_run = Resolved.from_dict(stored)
    name, kind = stored_run.model_name, type(stored_run.model)
    schema = check.schema_of(kind)
    layers = [
        Given(key, value, source)
        for key, value in stored_run.values().items()
        if key not in _ENDS_WITH_ITS_RUN
    ]
    if file is not None:
        config_file = read_config_file(existing(file), f"file {file}")
        _check_model(config_file, name, str(file))
        layers += config_file.given + config_file.by_recipe.get(stored_run.recipe, [])
    layers += read_env(os.environ if env is None else env, schema)
    layers += read_sets(sets)
    layers += read_flags(flags or {})
    for given in layers:
        if given.source != source:
            check.check_key(given, schema, name)
    values = {given.key: given for given in layers}
    _fit_warmup(values, layers)
    provenance = {key: values[key].source if key in values else "default" for key in schema}
    chosen = {"name": source, "preset": source, "recipe": source}
    return _build(name, stored_run.preset, stored_run.recipe, values, {**chosen, **provenance})


def recipe_names() -> list[str]:
    """The recipes there are: the TOML files under configs/recipes/."""
    return sorted(path.stem for path in (registry.configs_folder() / "recipes").glob("*.toml"))


def default_preset(model_name: str) -> str | None:
    """What a run uses when no preset is named: "tiny", or the model's first."""
    names = registry.preset_names(model_name)
    return DEFAULT_PRESET if DEFAULT_PRESET in names else next(iter(names), None)


def _read_preset(model_name: str, preset: str | None) -> ConfigFile | None:
    if preset is None:
        return None
    path = registry.preset_path(model_name, preset)
    root = registry.configs_folder().parent
    shown = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    parsed = read_config_file(path, f"preset {preset} ({shown})")
    _check_model(parsed, model_name, shown)
    return parsed


def _recipe_layer(recipe: str, schema: check.Schema) -> list[Given]:
    """A recipe's settings, without those [model] keys that this model does not have."""
    _check_recipe(recipe, "")
    path = registry.configs_folder() / "recipes" / f"{recipe}.toml"
    given = read_config_file(path, f"recipe {recipe}").given
    return [g for g in given if g.key in schema or not g.key.startswith("model.")]


def _check_recipe(recipe: str, place: str) -> None:
    if recipe not in recipe_names():
        raise UsageError(
            f"{place}There is no recipe '{recipe}'.", next_step=nearest(recipe, recipe_names())
        )


def _check_model(config_file: ConfigFile, model_name: str, shown: str) -> None:
    if config_file.name and registry.canonical(config_file.name) != model_name:
        raise UsageError(
            f"{shown} is a config of model '{config_file.name}', not of '{model_name}'.",
            next_step=f"Use --model {config_file.name}, or another --config.",
        )


def _fit_warmup(values: dict[str, Given], layers: list[Given]) -> None:
    """`--steps 20` alone should run: a warm-up from an earlier layer shrinks to fit."""
    steps, warmup = values.get("training.steps"), values.get("training.warmup")
    fields = TrainingConfig.model_fields
    asked = steps.value if steps else fields["steps"].default
    present = warmup.value if warmup else fields["warmup"].default
    both_numbers = isinstance(asked, int) and isinstance(present, int | float)
    if not steps or not both_numbers or present <= asked:
        return
    if warmup is None or layers.index(warmup) < layers.index(steps):
        source = f"shortened from {present} to fit {check.where(steps.source)}"
        values["training.warmup"] = Given("training.warmup", asked // 10, source)


def _build(
    name: str,
    preset: str | None,
    recipe: str,
    values: Mapping[str, Given],
    provenance: dict[str, str],
) -> Resolved:
    return Resolved(
        model_name=name,
        preset=preset,
        model=check.validate(registry.config_class(name), values, "model"),
        training=check.validate(TrainingConfig, values, "training"),
        data=check.validate(DataConfig, values, "data"),
        provenance=provenance,
        recipe=recipe,
    )
