"""A Slurm of four shell scripts: tasks run in the background, in the order of their numbers.

Like Slurm it starts a task again that asked for it (`scontrol requeue`) or whose machine was lost
(killed by signal 9), with the same numbers and in the same folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SCRIPTS = {
    "sbatch": """
for a in "$@"; do
  case "$a" in
    --array=0-*) last=${a#--array=0-};;
    --partition=none) echo "sbatch: error: invalid partition specified: none" >&2; exit 1;;
  esac
  script=$a
done
n=$(cat "$S/next" 2>/dev/null || echo 41); echo $((n + 1)) > "$S/next"
i=0
while [ "$i" -le "$last" ]; do
  touch "$S/queue/${n}_$i"
  "$S/bin/task" "$n" "$i" "$script" > /dev/null 2>&1 < /dev/null &
  i=$((i + 1))
done
echo "$n"
""",
    "task": """
id=$1_$2
while :; do
  rm -f "$S/requeue/$id"
  SLURM_ARRAY_JOB_ID=$1 SLURM_ARRAY_TASK_ID=$2 SLURM_CPUS_PER_TASK=1 sh "$3" >> "$S/$id.log" 2>&1 &
  pid=$!
  echo "$pid" > "$S/pid/$id"
  wait "$pid"
  [ "$?" -eq 137 ] && touch "$S/requeue/$id"
  [ -e "$S/requeue/$id" ] || break
  echo "$id" >> "$S/requeued"
done
rm -f "$S/queue/$id"
""",
    "squeue": 'ls "$S/queue"\n',
    "scontrol": 'touch "$S/requeue/$2"\n',
    "scancel": """
for id in "$@"; do
  [ -e "$S/queue/$id" ] && kill -TERM "$(cat "$S/pid/$id")"
done
exit 0
""",
}


class FakeSlurm:
    def __init__(self, home: Path) -> None:
        self.home = home

    def arrays(self) -> int:
        """How many arrays were submitted."""
        path = self.home / "next"
        return int(path.read_text()) - 41 if path.exists() else 0

    def requeued(self) -> list[str]:
        """The tasks that were started again."""
        path = self.home / "requeued"
        return path.read_text().split() if path.exists() else []

    def queue(self) -> list[str]:
        return sorted(path.name for path in (self.home / "queue").iterdir())


def install(home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Put the scripts on the path."""
    for folder in ("bin", "queue", "pid", "requeue"):
        (home / folder).mkdir(parents=True)
    for name, script in SCRIPTS.items():
        path = home / "bin" / name
        path.write_text(f"#!/bin/sh\nS='{home}'\n{script}", encoding="utf-8")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return FakeSlurm(home)
