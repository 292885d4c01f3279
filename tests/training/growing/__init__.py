"""A model that grows, for the tests of training: vanilla whose depth rises in stages.

Laid out like a folder of `holo_cli/models/`, and found through `registry.module_name`.
"""

from __future__ import annotations

import pytest

from holo_cli import registry


def register(patch: pytest.MonkeyPatch) -> None:
    """Make it a model that the registry knows, as "growing"."""
    module_name, names = registry.module_name, (*registry.model_names(), "growing")

    def found(name: str) -> str:
        return "tests.training.growing" if name == "growing" else module_name(name)

    patch.setattr(registry, "module_name", found)
    patch.setattr(registry, "model_names", lambda: names)
