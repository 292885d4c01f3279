"""Every model found, in every configuration that its `reference.py` lists, at small shapes."""

from __future__ import annotations

import pytest

from holo_cli import registry
from holo_cli.check.cases import Case, cases_of
from holo_cli.check.contract import CHECKS, Check
from holo_cli.check.learning import resumes_exactly


def pairs() -> list[tuple[Case, Check]]:
    """Every check with every case; resuming, which takes seconds, with each model's first case."""
    return [
        (case, check)
        for name in registry.model_names()
        for number, case in enumerate(cases_of(name))
        for check in CHECKS
        if number == 0 or check.run is not resumes_exactly
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "check" in metafunc.fixturenames:
        found = pairs()
        ids = [f"{case.name}:{case.label}-{check.name}" for case, check in found]
        metafunc.parametrize(("case", "check"), found, ids=ids)
