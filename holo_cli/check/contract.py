"""The checks of the contract in order, and how they are run on one case of a model."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from holo_cli.check import costs, decoding, learning
from holo_cli.check.cases import Case
from holo_cli.check.compare import CheckFailed
from holo_cli.errors import HoloError

PASSED, FAILED = "pass", "FAIL"
NOT_CLAIMED, NO_REFERENCE = "not claimed", "no reference"


@dataclass(frozen=True)
class Check:
    """`run` measures a case and raises CheckFailed; `required` says what passes."""

    name: str
    required: str
    run: Callable[[Case], str]

    def skipped(self, case: Case) -> str:
        """Why the check is not run on this case; empty where it is."""
        if self.run is learning.mixer_is_needed and case.claims.recall is None:
            return NOT_CLAIMED
        by_reference = (decoding.equals_reference, decoding.gradients_equal_reference)
        return NO_REFERENCE if self.run in by_reference and not case.has_formula else ""


CHECKS = (
    Check("shapes", "finite in float32 and bfloat16, bfloat16 close", decoding.shapes),
    Check("causality by gradient", "0 from later tokens", decoding.causal_by_gradient),
    Check("causality by replacement", "at most 1e-11, 40 times", decoding.causal_by_replacement),
    Check("reach", "above 1e-7, beyond a convolution", decoding.long_reach),
    Check("independent rows", "at most 1e-11", decoding.independent_rows),
    Check("step = forward", "at most 1e-9, every split", decoding.step_is_forward),
    Check("state is a value", "at most 1e-9", decoding.state_is_a_value),
    Check("selected rows", "at most 1e-9", decoding.selected_rows),
    Check("fast = reference", "at most 1e-9", decoding.equals_reference),
    Check("gradients = reference", "1e-9 + 1e-7 of the value", decoding.gradients_equal_reference),
    Check("parameters trained", "all of them", learning.every_parameter_trained),
    Check("chunked loss", "at most 1e-7", learning.chunked_loss),
    Check("gradient checkpointing", "no bit differs", learning.gradient_checkpointing),
    Check("saved tensors", "parameters, unchanged by forward", learning.saved_tensors),
    Check("stop and resume", "no bit differs", learning.resumes_exactly),
    Check("overfits a batch", "below 0.1 nats", learning.overfits_a_batch),
    Check("disabling hurts", "at most 0.8 of disabled", learning.mixer_is_needed),
    Check("parameters and state", "as counted", costs.parameters_and_state),
    Check("FLOPs", "0.6 to 1 of the count", costs.flops),
)


@dataclass(frozen=True)
class CheckResult:
    """What one check found in one case; `message` says why it failed."""

    case: str
    check: str
    required: str
    measured: str
    result: str
    message: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_check(check: Check, case: Case) -> CheckResult:
    """Never raises for what a model's own code does wrong: that is a failed check."""
    began = time.perf_counter()
    skipped = check.skipped(case)
    if skipped:
        return CheckResult(case.label, check.name, check.required, "", skipped)
    try:
        measured, message = check.run(case), ""
    except CheckFailed as error:
        measured, message = "", str(error)
    except HoloError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a mixer's code raises is its result
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = str(error).strip().partition("\n")[0]
        measured, message = "", f"{type(error).__name__}: {said} ({last.filename}:{last.lineno})"
    result = FAILED if message else PASSED
    seconds = round(time.perf_counter() - began, 2)
    return CheckResult(case.label, check.name, check.required, measured, result, message, seconds)
