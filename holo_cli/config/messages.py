"""Checks settings and says in one sentence what is wrong with one, where, and what is right.

Pydantic does the checking of values; its reports name types and positions, so they are turned
here into sentences that name the key, the value as written, and where it was written.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from holo_cli import registry
from holo_cli.config.model_schema import ModelConfig
from holo_cli.config.sources import SECTIONS, Given
from holo_cli.config.training_schema import DataConfig, TrainingConfig
from holo_cli.errors import UsageError, nearest

Schema = dict[str, FieldInfo]
C = TypeVar("C", bound=BaseModel)

_KINDS = {
    "int": "not a whole number",
    "float": "not a number",
    "bool": "not true or false",
    "string": "not a text",
}
_LIMITS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_LISTS = {int: [2, 4, 8], float: [0.1, 0.3], str: ["ko", "en"]}  # examples


def schema_of(model: type[ModelConfig]) -> Schema:
    """Every key that can be set for a model, dotted, with its pydantic field."""
    sections: tuple[type[BaseModel], ...] = (model, TrainingConfig, DataConfig)
    return {
        f"{section}.{key}": field
        for section, config in zip(SECTIONS, sections, strict=True)
        for key, field in config.model_fields.items()
    }


def where(source: str) -> str:
    """A provenance as it reads inside brackets: "file my.toml" -> "in my.toml"."""
    return "in " + source.removeprefix("file ") if source.startswith("file ") else source


def check_key(given: Given, schema: Schema, model_name: str) -> None:
    """Fail by name for a key that does not exist, naming the nearest one or the right model."""
    if given.key == "model.vocab_size":
        raise UsageError(
            f"model.vocab_size ({where(given.source)}): set from the tokenizer, not by hand.",
            next_step="Choose it when preparing: holo prepare NAME --vocab-size N.",
        )
    if given.key in schema:
        return
    gone = registry.config_class(model_name).removed.get(given.key.removeprefix("model."))
    if gone:
        raise UsageError(
            f"{given.key} ({where(given.source)}): removed, {gone.why}.",
            next_step="Take the key out, or use an older version of holo.",
        )
    owner = _owner(given.key, model_name)
    if owner:
        raise UsageError(
            f"{given.key} ({where(given.source)}): a key of model '{owner}', not of "
            f"'{model_name}'.",
            next_step=f"Use --model {owner}, or take the key out.",
        )
    raise UsageError(
        f"{given.key} ({where(given.source)}): unknown key.",
        next_step=suggest(given.key, schema),
    )


def _owner(key: str, model_name: str) -> str | None:
    section, _, leaf = key.partition(".")
    if section != "model":
        return None
    known = registry.built_in()  # not those of packages, which would be imported for a hint
    others = [name for name in registry.model_names() if name in known and name != model_name]
    return next((n for n in others if leaf in registry.config_class(n).model_fields), None)


def suggest(key: str, known: Iterable[str]) -> str:
    """The nearest key: close in the same section, or the same name in another one.

    Sections are compared apart from names: else "training." alone would make any two keys alike.
    """
    known = list(known)
    section, dot, leaf = key.rpartition(".")
    sections = difflib.get_close_matches(section, SECTIONS, n=1, cutoff=0.6) if dot else []
    same = {k.rpartition(".")[2]: k for k in known if k.partition(".")[0] in sections}
    elsewhere = {k.rpartition(".")[2]: k for k in reversed(known)}
    candidates = [(same, 0.6), (elsewhere, 0.75)] if same else [(elsewhere, 0.6)]
    for names, cutoff in candidates:
        close = difflib.get_close_matches(leaf, names, n=1, cutoff=cutoff)
        if close:
            return f"Did you mean '{names[close[0]]}'?"
    return "Known: " + ", ".join(sorted(same.values() or known)) + "."


def coerce(given: Given, field: FieldInfo) -> Any:
    """The value to hand to pydantic: what was typed as text, read as its field wants it.

    >>> coerce(Given("data.path", 2024, "--set", "2024"), DataConfig.model_fields["path"])
    '2024'
    """
    value = given.value
    kinds = get_args(field.annotation) or (field.annotation,)
    if given.text is not None and field.annotation is str and not isinstance(value, str):
        return given.text
    if type(None) in kinds and isinstance(value, str) and value.lower() in ("none", "null", ""):
        return None
    # Pydantic takes true for 1 and infinity for a number; in a config both are slips.
    if isinstance(value, bool) and bool not in kinds and (int in kinds or float in kinds):
        raise UsageError(_sentence(given, _KINDS["float" if float in kinds else "int"]))
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(_sentence(given, "not a finite number"))
    return value


def validate(config: type[C], values: Mapping[str, Given], section: str) -> C:
    """Build one config from its settings, by dotted key; the first thing wrong is a UsageError."""
    fields = config.model_fields
    own = {k.partition(".")[2]: g for k, g in values.items() if k.partition(".")[0] == section}
    try:
        return config(**{leaf: coerce(given, fields[leaf]) for leaf, given in own.items()})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        leaf = str(first["loc"][0]) if first["loc"] else ""
        if leaf in own:
            problem, hint = _problem(dict(first), own[leaf].value, fields[leaf])
            raise UsageError(_sentence(own[leaf], problem), next_step=hint) from None
        raise UsageError(_with_sources(first["msg"], values)) from None


def _problem(error: Mapping[str, Any], value: Any, field: FieldInfo) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _LIMITS and len(error["loc"]) == 1:
        return _range(field), ""
    if kind == "tuple_type":
        listed = next(iter(get_args(field.annotation)), int)
        return f"not a list, as in {_LISTS[listed]}", ""
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        hint = nearest(str(value), known)
        return f"not one of {', '.join(known)}", hint if hint.startswith("Did") else ""
    family = kind.partition("_")[0]
    if family in _KINDS:
        return _KINDS[family], ""
    return str(error["msg"]).removeprefix("Value error, "), ""


def _range(field: FieldInfo) -> str:
    """Between which limits the numbers of a field are: both of them, whichever was crossed."""
    limits = {
        name: _plain(getattr(limit, name))
        for limit in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(limit, name)
    }
    match limits:
        case {"ge": low, "le": high}:
            return f"must be from {low} to {high}"
        case {"ge": low, "lt": high}:
            return f"must be at least {low} but less than {high}"
        case {"gt": low, "le": high}:
            return f"must be greater than {low}, at most {high}"
        case {"gt": low, "lt": high}:
            return f"must be greater than {low} but less than {high}"
        case {"ge": low}:
            return f"must be at least {low}"
        case {"gt": low}:
            return f"must be greater than {low}"
        case {"le": high}:
            return f"must be at most {high}"
        case _:
            return f"must be less than {limits['lt']}"


def _plain(number: Any) -> str:
    """A limit without the end of a float that is whole: 1 and not 1.0."""
    return str(int(number)) if number == int(number) < 1e15 else f"{number:g}"


def _sentence(given: Given, problem: str) -> str:
    return f"{given.key} = {given.value!r} ({where(given.source)}): {problem}."


def _with_sources(message: str, values: Mapping[str, Given]) -> str:
    """A complaint about several keys, and in a sentence of its own where each of them was set."""
    message = message.removeprefix("Value error, ").rstrip(".")
    named = [key for key in dict.fromkeys(re.findall(r"\w+\.\w+", message)) if key in values]
    if not named:
        return message + "."
    sources = ", ".join(f"{k} from {where(values[k].source)}" for k in named)
    return f"{message}. Where they are set: {sources}."
