"""Kills holo, damages its files and takes its surroundings away; judges every end.

    python -m benchmarks.faults                        the long form, about half an hour
    python -m benchmarks.faults --short                a few cases of each kind, in seconds
    python -m benchmarks.faults --what mutations --count 500
    python -m benchmarks.faults --case mutation-1234   one case again, its files kept

Campaigns: `kills` (trainings of every model), `prepare` (preparations), `scenarios` (disks,
folders, processes, clocks, links, archive bombs, code in caches, sizes, variables) and `mutations`
(damaged files, read by the real commands). Every end that is neither a right result nor one
sentence with a documented exit code is a fault; `verdict.py` names them.

Rows are appended to `--out` as JSON Lines. The same command resumes a run that was stopped;
The files that are damaged are kept beside it, so that a case can be repeated to the bit. `--report`
prints the Markdown tables of the rows that are there. Exit code 1: there were faults.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.faults import kills, kills_prepare, mutations, report, sandbox, world
from benchmarks.faults import scenarios as machine
from benchmarks.faults import scenarios_strangers as strangers
from benchmarks.faults.place import Place
from benchmarks.faults.rows import CaseRows, OtherRunError

Row = dict[str, Any]
WHAT = ("kills", "prepare", "scenarios", "mutations")
COUNTS = {"kills": 100, "prepare": 40, "mutations": 10_000}
SHORT = {"kills": 2, "prepare": 2, "mutations": 20}
SHORT_SCENARIOS = ("two_trainings", "gone_readers")
SCENARIOS = {one.__name__: one for one in (*machine.SCENARIOS, *strangers.SCENARIOS)}
DEFAULT_OUT = Path("bench/faults.jsonl")
ENVIRONMENT = {"HOLO_LANG": "en", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class Bench:
    """The world, made once, and the cases by name."""

    def __init__(self, folder: Path, seed: int, pristine: Path, *, whole: bool) -> None:
        """`pristine`: the world, made unless it is there. `whole`: with bench rows."""
        self.folder, self.seed, self.pristine = folder, seed, pristine.absolute()
        self.references = kills.References(folder / "references")
        sandbox.warm_up()
        if not pristine.exists():
            world.build(folder / "world", bench=whole)
            shutil.copytree(folder / "world", pristine)
        self.source = folder / "source.txt"
        text = (self.pristine / "story.txt").read_text(encoding="utf-8")
        kills_prepare.write_source(self.source, text, kills_prepare.COPIES if whole else 4)

    def run(self, case: str) -> Row:
        """Run one case; its files stay in the folder `case` until the next."""
        kind, _, name = case.partition("-")
        at = self.folder / "case"
        runs: dict[str, Callable[[], Row]] = {
            "kill": lambda: kills.train_case(
                int(name), self.seed, self.pristine, self.references, at
            ),
            "prepare": lambda: kills_prepare.prepare_case(
                int(name), self.seed, self.source, self.references, at
            ),
            "scenario": lambda: self._scenario(name, at),
            "mutation": lambda: mutations.run_case(int(name), self.seed, self.pristine, at),
        }
        started = time.monotonic()
        row = runs[kind]()
        return {"case": case, "took": round(time.monotonic() - started, 2), **row}

    def _scenario(self, name: str, folder: Path) -> Row:
        scenario = SCENARIOS[name]
        description = (scenario.__doc__ or name).strip().rstrip(".")
        fault = scenario(Place(folder, self.pristine, self.references))
        return {"target": name, "damage": description, "command": "", "fault": fault}


def cases(what: str, first: int, count: int | None, short: bool) -> list[str]:
    """The names of a campaign's cases."""
    if what == "scenarios":
        return [f"scenario-{name}" for name in (SHORT_SCENARIOS if short else SCENARIOS)]
    number = count or (SHORT if short else COUNTS)[what]
    kind = {"kills": "kill", "prepare": "prepare", "mutations": "mutation"}[what]
    return [f"{kind}-{n}" for n in range(first, first + number)]


def code_tested() -> str:
    """The commit, with a mark if files differ from it; "" outside a repository."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


def about(rows: CaseRows) -> Iterator[str]:
    """The lines above the tables: when, with what, on what."""
    from holo_cli.experiment.machine import machine_line

    commit, seed = rows.about["commit"] or "unknown", rows.about["seed"]
    yield f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit}, seed {seed}."
    yield machine_line()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("--what", action="append", choices=WHAT, help="campaign (default: all)")
    made.add_argument("--count", type=int, help="cases of each campaign (default: 100, 40, 10,000)")
    made.add_argument(
        "--first", type=int, default=0, metavar="N", help="number of the first case (default: 0)"
    )
    made.add_argument("--short", action="store_true", help="a few cases of each campaign")
    made.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    made.add_argument(
        "--out", type=Path, help="rows (default: bench/faults.jsonl; none with --short)"
    )
    made.add_argument("--case", metavar="KIND-N", help="run this case alone and show it")
    made.add_argument("--report", action="store_true", help="print the tables of the rows in --out")
    return made


def main(arguments: list[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    os.environ.update(ENVIRONMENT)
    if asked.report:
        rows = CaseRows.read(asked.out or DEFAULT_OUT)
        print(report.markdown(rows, list(about(rows))), end="")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="holo-faults-"))
    folder.chmod(0o755)  # a scenario gives up the rights of root
    keep = False
    out = asked.out or (folder / "rows.jsonl" if asked.short else DEFAULT_OUT)
    try:
        if asked.case:  # on whatever code
            rows = CaseRows(folder / "rows.jsonl", {})
        else:
            rows = CaseRows(out, {"commit": code_tested(), "seed": asked.seed})
        bench = Bench(folder, asked.seed, out.with_suffix(".world"), whole=not asked.short)
        if asked.case:
            keep = True
            return show(bench, asked.case)
        return run_all(bench, rows, asked)
    except OtherRunError as error:
        print(f"{error} Choose another --out.", file=sys.stderr)
        return 2
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def run_all(bench: Bench, rows: CaseRows, asked: argparse.Namespace) -> int:
    """Run what has no row yet; the exit code."""
    names = [
        case
        for what in asked.what or WHAT
        for case in cases(what, asked.first, asked.count, asked.short)
    ]
    for number, case in enumerate(names, start=1):
        if case in rows:
            continue
        row = bench.run(case)
        rows.add(row)
        if row["fault"]:
            print(f"{case}: {row['target']}: {row['damage']}: {row['fault']}", file=sys.stderr)
        if number % 500 == 0:
            print(f"{number} of {len(names)} cases", file=sys.stderr)
    print(report.markdown(rows, [] if asked.short else list(about(rows))), end="")
    return int(any(report.is_fault(row) for row in rows))


def show(bench: Bench, case: str) -> int:
    """One case again, with its command, its output and its files."""
    row = bench.run(case)
    for key, value in row.items():
        print(f"{key:<10} {str(value)!r}"[:400])
    print(f"files      {bench.folder / 'case'}")
    return int(report.is_fault(row))


if __name__ == "__main__":
    sys.exit(main())
