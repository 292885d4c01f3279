"""Keys that a later version added: what a config stored without them stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

# Under `json_schema_extra`: the value that a key stands for where a stored config lacks it, because
# the config was written before the key existed. Without it a missing key means today's default.
BEFORE = "before"


def added_key(before: Any) -> dict[str, Any]:
    """For `Field(json_schema_extra=...)` of a key whose default changes what a run computes."""
    return {BEFORE: before}


def value_before(kind: type[BaseModel], name: str) -> Any:
    """What a key stands for in a config that was stored without it, as JSON has it."""
    extra = kind.model_fields[name].json_schema_extra
    if isinstance(extra, dict) and BEFORE in extra:
        return extra[BEFORE]
    return default_of(kind, name)


def default_of(kind: type[BaseModel], name: str) -> Any:
    """A key's default, as JSON stores it."""
    default = kind.model_fields[name].get_default(call_default_factory=True)
    return list(default) if isinstance(default, tuple) else default


def completed(kind: type[BaseModel], stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored config with what later keys stand for."""
    missing = {name: value_before(kind, name) for name in kind.model_fields if name not in stored}
    return missing | dict(stored)
