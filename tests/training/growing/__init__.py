"""A model that grows, for the tests of training: vanilla whose depth rises in stages.

Laid out like a folder of `holo_cli/models/`, and found as a model of an installed package.
"""

from __future__ import annotations

import pytest

from holo_cli import plugins
from holo_cli.plugins import CodeLocation


def register(patch: pytest.MonkeyPatch) -> None:
    """Make it a model that the registry knows, as "growing"."""
    origin = CodeLocation("growing", "tests.training.growing", package="tests")
    patch.setattr(plugins, "installed", lambda: {"growing": (origin,)})
