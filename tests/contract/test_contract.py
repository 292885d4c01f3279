"""The contract of a model, item by item, over every model found (see holo_cli/models/README.md).

The checks are those of `holo check`, in `holo_cli/check/`; `tests/check/` shows that each can fail.
"""

from __future__ import annotations

import pytest

from holo_cli.check.cases import Case
from holo_cli.check.contract import NO_REFERENCE, Check


def test_contract(case: Case, check: Check) -> None:
    skipped = check.skipped(case)
    if skipped:
        assert skipped != NO_REFERENCE, f"{case.name} needs a reference.py"
        pytest.skip(skipped)
    check.run(case)
