"""The campaign of mutations: one damaged file, one command that reads it, one verdict."""

from __future__ import annotations

import fnmatch
import hashlib
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.faults import targets, verdict, world
from benchmarks.faults.sandbox import Outcome

Row = dict[str, Any]
TERMINALS = 0.3  # of the commands write to a terminal, the others to files


def run_case(number: int, seed: int, pristine: Path, folder: Path) -> Row:
    """Damage, run, judge. `folder` is emptied before and holds the case afterwards."""
    rng = random.Random(f"{seed}-mutation-{number}")
    target = targets.by_number(number)
    shutil.rmtree(folder, ignore_errors=True)
    copy_files(pristine, folder, target.needs)
    file = folder / target.file
    what, damaged = target.damage(rng, file.read_bytes())
    file.write_bytes(damaged)
    use = rng.choice(target.uses)
    before = digests(folder)
    command = world.holo(folder, *use.arguments, stdin=use.stdin)
    command.terminal = rng.random() < TERMINALS
    outcome = command.run()
    return {
        "target": target.name,
        "damage": what,
        "command": " ".join(use.arguments),
        "terminal": command.terminal,
        "exit": outcome.code,
        "message": verdict.message(outcome),
        "fault": _fault(use, outcome, before, digests(folder)),
        "seconds": round(outcome.seconds, 3),
        "grown_mib": outcome.grown >> 20,
    }


def _fault(
    use: targets.Use, outcome: Outcome, before: Mapping[str, str], after: Mapping[str, str]
) -> str:
    found = verdict.fault(outcome, labelled=use.labelled)
    if found:
        return found
    if use.must_refuse and outcome.code in (0, 3):
        return "accepted: the damage was not noticed"
    may = use.rewrites if outcome.code in (0, 3) else tuple(f for f in use.rewrites if ".lock" in f)
    changed = [
        name
        for name, digest in before.items()
        if after.get(name) != digest and not any(fnmatch.fnmatch(name, pattern) for pattern in may)
    ]
    if changed:
        return f"changed: {', '.join(changed)}"
    left = [name for name in after if name.endswith(".tmp")]
    return f"left behind: {', '.join(left)}" if left else ""


def copy_files(source: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Copy files and folders of the world, under the same names."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name)
        else:
            shutil.copyfile(source / name, folder / name)


def digests(folder: Path) -> dict[str, str]:
    """A hash of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
