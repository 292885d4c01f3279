"""Reads settings from where people write them: TOML files, HOLO_* variables, `--set key=value`.

Everything becomes a list of `Given`: a dotted key, a value, and where it came from. Nothing is
checked here but the form; `messages.py` knows which keys exist and which values they take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holo_cli.errors import UsageError, nearest
from holo_cli.parsing import EncodingError, ParseError, parse_toml, read_toml

SECTIONS = ("model", "training", "data")
PREFIX = "HOLO_"
# Variables that begin with HOLO_ and are no setting.
OTHER_VARIABLES = frozenset(
    {
        "HOLO_API_KEY",
        "HOLO_DEBUG",
        "HOLO_BROWSER",
        "HOLO_EXIT_CODES",
        "HOLO_LANG",
        "HOLO_PLUGINS",
        "HOLO_RENDEZVOUS_TIMEOUT",
    }
)
# Flags whose name is not that of the key they set.
_FLAG_NAMES = {"data.path": "--data", "data.sets": "--data"}


@dataclass(frozen=True, slots=True)
class Given:
    """One setting as somebody wrote it. `text` is the raw text where it came as text."""

    key: str  # "training.lr"
    value: Any
    source: str  # "file my.toml", "env HOLO_TRAINING_LR", "--set", ...
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A parsed preset, recipe or config file.

    `given` holds its [model], [training] and [data] tables; `by_recipe` the tables under
    [recipe.NAME.*], which count only when that recipe is in force.
    """

    shown: str  # its path
    name: str | None  # the model it is for, where it says so
    preset: str | None
    recipe: str | None
    given: list[Given]
    by_recipe: dict[str, list[Given]]


def read_config_file(path: Path, source: str) -> ConfigFile:
    """Parse a config file; a missing, unreadable or malformed one fails in one sentence."""
    return _sort_out(_load_toml(path), path, source)


def _load_toml(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except FileNotFoundError:
        raise UsageError(
            f"There is no config file '{path}'.", next_step="Check the path after --config."
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}.") from None
    except EncodingError as error:
        raise UsageError(
            f"{path} cannot be read: {error}.", next_step="Save the file as UTF-8."
        ) from None
    except ParseError as error:
        raise UsageError(
            f"{path}: not valid TOML: {error}.",
            next_step='Lines are `key = value`; texts need quotes: schedule = "cosine".',
        ) from None


def _sort_out(table: dict[str, Any], path: Path, source: str) -> ConfigFile:
    texts: dict[str, str | None] = {"name": None, "preset": None, "recipe": None}
    given: list[Given] = []
    by_recipe: dict[str, list[Given]] = {}
    for key, value in table.items():
        if key == "recipe" and isinstance(value, dict):
            for recipe, tables in value.items():
                by_recipe[recipe] = _sections(tables, f"recipe.{recipe}.", path, source)
        elif key in texts:
            if not isinstance(value, str):
                raise UsageError(f'{path}: {key} must be a text, as in {key} = "...".')
            texts[key] = value
        elif key in SECTIONS:
            given += _sections({key: value}, "", path, source)
        else:
            raise UsageError(
                f"{path}: unknown top-level key '{key}'.",
                next_step=nearest(key, (*SECTIONS, *texts)),
            )
    return ConfigFile(str(path), texts["name"], texts["preset"], texts["recipe"], given, by_recipe)


def _sections(tables: Any, prefix: str, path: Path, source: str) -> list[Given]:
    if not isinstance(tables, dict):
        raise UsageError(f"{path}: {prefix.rstrip('.')} must be a table.")
    given = []
    for section, table in tables.items():
        if section not in SECTIONS:
            raise UsageError(
                f"{path}: unknown table [{prefix}{section}].", next_step=nearest(section, SECTIONS)
            )
        if not isinstance(table, dict):
            raise UsageError(
                f"{path}: {prefix}{section} must be a table, not a value.",
                next_step=f"Write [{prefix}{section}] on a line of its own, its keys below.",
            )
        given += [Given(f"{section}.{key}", value, source) for key, value in table.items()]
    return given


def read_env(env: Mapping[str, str], keys: Iterable[str]) -> list[Given]:
    """HOLO_TRAINING_LR=0.01 and the like. A HOLO_ variable that sets nothing fails by name."""
    by_variable = {PREFIX + key.replace(".", "_").upper(): key for key in keys}
    given = []
    for variable in sorted(v for v in env if v.startswith(PREFIX)):
        if variable in OTHER_VARIABLES:
            continue
        if variable not in by_variable:
            hint = nearest(variable, (*by_variable, *OTHER_VARIABLES))
            raise UsageError(
                f"The environment variable {variable} is no setting of holo.",
                next_step=hint if hint.startswith("Did") else f"Remove it: `unset {variable}`.",
            )
        text = env[variable]
        given.append(Given(by_variable[variable], scalar(text), f"env {variable}", text))
    return given


def read_sets(sets: Iterable[str]) -> list[Given]:
    """`--set training.lr=0.01`, in the order given; the last one of a key wins."""
    given = []
    for item in sets:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"--set {item}: not of the form key=value.",
                next_step="For example: --set training.lr=0.01",
            )
        given.append(Given(key.strip(), scalar(text.strip()), "--set", text.strip()))
    return given


def read_flags(flags: Mapping[str, Any]) -> list[Given]:
    """Values of the command line's own flags by dotted key; None means: not given."""
    return [Given(key, value, flag_name(key)) for key, value in flags.items() if value is not None]


def flag_name(key: str) -> str:
    """The flag of a key: "training.grad_accum" -> "--grad-accum"."""
    return _FLAG_NAMES.get(key) or "--" + key.rpartition(".")[2].replace("_", "-")


def scalar(text: str) -> Any:
    """A value typed on a command line: a TOML value where it is one, else the text itself."""
    try:
        parsed = parse_toml(f"value = {text}")
    except ParseError:
        return text
    # A line break would smuggle in a second key; such a text is only a text.
    return parsed["value"] if len(parsed) == 1 else text
