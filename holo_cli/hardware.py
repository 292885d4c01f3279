"""What machine this is, and figures of it that are measured once and remembered."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

from holo_cli.files import atomic_write_text
from holo_cli.parsing import read_json
from holo_cli.paths import machine_file

_CPU_LINES = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features")


def cpu_name() -> str:
    """The processor's name as its maker gives it."""
    for line in _first_cpu():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_fingerprint() -> str:
    """Equal on processors of one model and the same instructions: names alone are too general."""
    known = [line for line in _first_cpu() if line.partition(":")[0].strip() in _CPU_LINES]
    text = "\n".join(known) or f"{platform.processor()} {platform.machine()}"
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def remembered(name: str) -> Any:
    """A figure of this machine from an earlier process, or None."""
    try:
        found = read_json(machine_file())
    except (OSError, ValueError):  # none yet, or damaged: measured again
        return None
    return found.get(name) if isinstance(found, dict) else None


def remember(name: str, value: Any) -> None:
    """Store a figure for later processes; if the folder is not writable, each measures again."""
    path = machine_file()
    try:
        known = read_json(path)
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(known | {name: value}, indent=2) + "\n")
    except OSError:
        return


def _first_cpu() -> list[str]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return []
    return info.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines()
