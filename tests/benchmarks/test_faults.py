"""The fault bench: its damage, its verdicts, its rows, and a short run of all its campaigns."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.faults import mutate, report
from benchmarks.faults.rows import CaseRows, OtherRunError

if sys.platform == "win32":
    pytest.skip("the bench forks its commands", allow_module_level=True)

from benchmarks.faults import targets, verdict
from benchmarks.faults.kills import events
from benchmarks.faults.sandbox import Outcome

DOCUMENT = json.dumps({"a": [1, 2.5, {"b": "text"}], "c": None, "d": True}).encode()
TOML = b'# a comment\nname = "x"\n[model]\nwidth = 16\n'


def outcome(code: int | None = 1, stderr: str = "Error: No.\n", **changes: object) -> Outcome:
    values = {"signal": 0, "stdout": "", "seconds": 0.1, "grown": 0} | changes
    return Outcome(code=code, stderr=stderr, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("damage", "data"),
    [
        (mutate.damage_bytes, b"some bytes of a file"),
        (mutate.damage_json_bytes, DOCUMENT),
        (mutate.damage_lines, DOCUMENT + b"\n" + DOCUMENT + b"\n"),
        (mutate.damage_toml, TOML),
    ],
)
def test_damage_changes_the_file_and_can_be_repeated(
    damage: Callable[[random.Random, bytes], mutate.Damage], data: bytes
) -> None:
    seen = set()
    for number in range(200):
        what, damaged = damage(random.Random(number), data)
        assert damaged != data
        assert (what, damaged) == damage(random.Random(number), data)
        seen.add(damaged)
    assert len(seen) > 50


def test_every_target_has_its_share() -> None:
    assert sum(target.share for target in targets.TARGETS) == 1000
    drawn = [targets.by_number(number).name for number in range(1000)]
    assert {t.name: t.share for t in targets.TARGETS} == {n: drawn.count(n) for n in drawn}


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (outcome(), ""),
        (outcome(0, ""), ""),
        (outcome(None, hung=True), "hang"),
        (outcome(None, signal=11), "signal"),
        (outcome(1, "Error: Unexpected KeyError: 'x'\n"), "unexplained"),
        (outcome(99, "Traceback (most recent call last):\nKeyError: 'x'\n"), "unexplained"),
        (outcome(134, ""), "exit code"),
        (outcome(0, "", grown=4 << 30), "memory"),
        (outcome(1, "Error: Out of memory.\n"), "memory"),
        (outcome(1, "Error: No \x1b]0;title\x07.\n"), "control"),
        (outcome(0, "", stdout="\u202e"), "control"),
        (outcome(1, ""), "silent"),
        (outcome(1, "Error: No.\nError: forged.\n"), "silent"),
        (outcome(0, "a.py:3: UserWarning: x\n"), "foreign"),
    ],
)
def test_verdicts(end: Outcome, kind: str) -> None:
    assert verdict.fault(end).partition(":")[0] == kind


def test_a_terminal_may_get_colours_but_no_commands() -> None:
    coloured = "\x1b[1mname\x1b[0m\r\x1b[K"
    assert verdict.fault(outcome(0, coloured, terminal=True)) == ""
    assert verdict.fault(outcome(0, coloured + "\x1b[2J", terminal=True)).startswith("control")
    assert verdict.fault(outcome(0, "", stdout="\x1b[2J", generates=True)) == ""


def test_rows_resume_and_are_never_mixed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    CaseRows(path, {"seed": 0}).add({"case": "kill-1", "fault": ""})
    with path.open("a") as file:
        file.write('{"case": "kill-2", "fa')  # the process was killed here
    again = CaseRows(path, {"seed": 0})
    assert "kill-1" in again
    assert "kill-2" not in again
    again.add({"case": "kill-2", "fault": ""})
    assert len(CaseRows.read(path)) == 2
    with pytest.raises(OtherRunError):
        CaseRows(path, {"seed": 1})


def test_the_report_lists_every_fault() -> None:
    common = {"target": "weights", "damage": "x", "exit": 0, "seconds": 0.1, "grown_mib": 1}
    rows = [
        {"case": "mutation-0", "fault": "", **common},
        {"case": "mutation-1", "fault": "accepted: the damage was not noticed", **common},
        {"case": "scenario-x", "fault": "skipped: no mounts here", **common},
    ]
    shown = report.markdown(rows, ["today"])
    assert "| Mutations | 2 | 0 | 0 | 0 | 1 |" in shown
    assert "| weights | accepted: the damage was not noticed | mutation-1 | 1 |" in shown
    assert "Exceptions\n\nNone." in report.markdown([rows[0], rows[2]], [])


def test_events_of_a_killed_process_end_with_the_last_complete_line() -> None:
    assert events('{"event": "save"}\nnoise\n{"event": "tra') == [{"event": "save"}]


def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    """A few cases of every campaign through the real commands, in a process of its own."""
    out = tmp_path / "rows.jsonl"
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--short", "--out", str(out)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=900,
        env=os.environ | {"FAULTS_PATIENCE": "10"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Exceptions\n\nNone." in ran.stdout
    kinds = [report.campaign_of(row["case"]) for row in CaseRows.read(out)]
    assert set(kinds) == {"kill", "prepare", "scenario", "mutation"}
