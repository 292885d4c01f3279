"""What `holo train` trains on when nobody said: the only prepared set, or the embedded stories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holo_cli.cli.output import Output
from holo_cli.errors import UsageError

if TYPE_CHECKING:
    from holo_cli.config.resolve import Resolved

ROOT = Path("data")


def choose(resolved: Resolved, out: Output, *, prepare: bool = True) -> Resolved:
    """The config with `data.path` filled in, saying so; several sets and none named is an error.

    With no set at all the stories are prepared now; `prepare=False` leaves the path empty then.
    """
    if resolved.data.path:
        return resolved
    from holo_cli.data.dataset import find_prepared

    sets = find_prepared(ROOT)
    if len(sets) > 1:
        names = ", ".join(path.name for path in sets)
        raise UsageError(
            f"There are {len(sets)} prepared sets: {names}.",
            next_step=f"Choose one: --data {sets[0].name}",
        )
    if sets:
        out.note(f"No --data: training on the only prepared set, {sets[0]}.")
        return resolved.replace({"data.path": str(sets[0])}, source="the only prepared set")
    if not prepare:
        out.note("No --data and nothing prepared: training would use the embedded stories.")
        return resolved
    out.note("No --data and nothing prepared: preparing the embedded stories.")
    path = prepare_stories(out)
    return resolved.replace({"data.path": path}, source="the embedded stories")


def only_prepared(out: Output) -> Path:
    """The set to measure on when none was named: the only prepared one. Raises UsageError."""
    from holo_cli.data.dataset import find_prepared

    sets = find_prepared(ROOT)
    if len(sets) == 1:
        out.note(f"No --data: using the only prepared set, {sets[0]}.")
        return sets[0]
    if sets:
        names = ", ".join(path.name for path in sets)
        raise UsageError(
            f"There are {len(sets)} prepared sets: {names}.",
            next_step=f"Choose one: --data {sets[0].name}",
        )
    raise UsageError(
        "There is no prepared set to measure on.", next_step="Make one: holo prepare stories"
    )


def prepare_stories(out: Output) -> str:
    """Prepare the embedded stories in their usual size; the folder's path."""
    from holo_cli.cli.progress import Preparing
    from holo_cli.data.prepare.prepare import prepare

    with Preparing(out) as progress:
        result = prepare(["stories"], progress=progress)
    return str(result.data)
