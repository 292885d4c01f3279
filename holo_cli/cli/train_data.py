"""The default data of `holo train`: the only prepared set, or the embedded stories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from holo_cli.cli.output import Output
from holo_cli.errors import UsageError
from holo_cli.names import quoted
from holo_cli.paths import DATA

if TYPE_CHECKING:
    from holo_cli.config.resolve import Resolved


def choose(resolved: Resolved, out: Output, *, prepare: bool = True) -> Resolved:
    """The config with `data.path` filled in. Raises UsageError if several sets are prepared.

    If none is prepared, the embedded stories are prepared first; with `prepare=False` the path
    stays empty."""
    if resolved.data.path or resolved.data.sets:
        return resolved
    from holo_cli.data.dataset import find_prepared

    sets = find_prepared(DATA)
    if len(sets) > 1:
        raise _several(sets)
    if sets:
        out.note(f"No --data was given: training on the only prepared set, {sets[0]}.")
        return resolved.replace({"data.path": str(sets[0])}, source="the only prepared set")
    if not prepare:
        out.note(
            "No --data was given and no set is prepared: training would use the embedded stories."
        )
        return resolved
    out.note("No --data was given and no set is prepared: preparing the embedded stories.")
    path = prepare_stories(out)
    return resolved.replace({"data.path": path}, source="the embedded stories")


def only_prepared(out: Output) -> Path:
    """The default set of a measurement: the only prepared one. Raises UsageError."""
    from holo_cli.data.dataset import find_prepared

    sets = find_prepared(DATA)
    if len(sets) == 1:
        out.note(f"No --data was given: using the only prepared set, {sets[0]}.")
        return sets[0]
    if sets:
        raise _several(sets)
    raise UsageError(
        "There is no prepared set.", next_step="Prepare one with: holo prepare stories"
    )


def _several(sets: Sequence[Path]) -> UsageError:
    names = ", ".join(path.name for path in sets)
    return UsageError(
        f"There are {len(sets)} prepared sets: {names}.",
        next_step=f"Choose one: --data {quoted(sets[0].name)}",
    )


def prepare_stories(out: Output) -> str:
    """Prepares the embedded stories in their default size and returns the path of the set."""
    from holo_cli.cli.progress import Preparing
    from holo_cli.data.prepare.prepare import prepare

    with Preparing(out) as progress:
        result = prepare(["stories"], progress=progress)
    return str(result.data)
