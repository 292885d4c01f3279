"""examples/cluster: valid as far as that can be told without a cluster."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from holo_cli.cli.app import app
from holo_cli.config.resolve import resolve
from holo_cli.experiment.plan import plan_names

yaml = pytest.importorskip("yaml", reason="PyYAML comes with huggingface_hub")

FOLDER = Path(__file__).parents[1] / "examples" / "cluster"
SCRIPTS, TASKS = sorted(FOLDER.glob("*.sbatch")), sorted(FOLDER.glob("*.yaml"))
SBATCH = {
    "array", "cpus-per-task", "gpus-per-node", "job-name", "mem", "nodes", "ntasks-per-node",
    "open-mode", "requeue", "signal", "time",
}  # fmt: skip
# of https://docs.skypilot.co/en/latest/reference/yaml-spec.html
SKY = {"name", "workdir", "num_nodes", "resources", "envs", "file_mounts", "setup", "run"}
RESOURCES = {"accelerators", "cloud", "cpus", "disk_size", "infra", "memory", "use_spot"}
STORAGE = {"name", "source", "store", "mode", "persistent"}


def script_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return text if path.suffix == ".sbatch" else str(yaml.safe_load(text)["run"])


def commands(text: str) -> list[list[str]]:
    """The command lines of holo in a script, with a number for each variable."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*$", "", text))
    found = []
    for line in joined.split("\n"):
        line = re.sub(r"\$\{?[A-Z_]+(:-\d+)?\}?|\$\w+", "1", line)
        for quoted in re.findall(r'--wrap "(holo [^"]*)"', line):
            found.append(shlex.split(quoted)[1:])
        words = shlex.split(line) if "holo" in line and "$(" not in line else []
        if "holo_cli.torchrun" in words:
            found.append(words[words.index("--") + 1 :])
        elif words[:1] == ["holo"]:
            found.append(words[1:])
    return found


@pytest.mark.parametrize("path", [*SCRIPTS, *TASKS], ids=lambda path: path.name)
def test_every_command_parses(path: Path) -> None:
    found = commands(script_of(path))
    assert found
    for words in found:
        parsed = parse(words)
        if "launcher" in parsed:
            assert parsed["preset"] in plan_names("compare")
        elif "grad_accum" in parsed:
            flags = {"training.shard": parsed["shard"] or None}
            resolve(parsed["model"], parsed["preset"], sets=parsed["sets"] or (), flags=flags)


def parse(words: list[str]) -> dict[str, Any]:
    """The parameters of a command line; raises what click raises for a wrong one."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    return dict(command.make_context("holo", list(words)).params)


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
@pytest.mark.parametrize("path", [*SCRIPTS, *TASKS], ids=lambda path: path.name)
def test_the_shell_accepts_it(path: Path) -> None:
    ran = subprocess.run(
        ["bash", "-n"], input=script_of(path), text=True, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_options_of_slurm(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/bash\n")
    given = re.findall(r"(?m)^#SBATCH --([a-z-]+)", text)
    assert given
    assert set(given) <= SBATCH
    assert "requeue" in given
    # Slurm reads them before the first command only
    assert text.rindex("#SBATCH") < text.index("set -")


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.name)
def test_keys_of_skypilot(path: Path) -> None:
    task = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(task) <= SKY
    assert set(task["resources"]) <= RESOURCES
    assert task["resources"]["use_spot"] is True
    for target, mount in task["file_mounts"].items():
        assert target.startswith("/")
        assert set(mount) <= STORAGE
        assert mount["mode"] in ("MOUNT", "COPY", "MOUNT_CACHED")


def test_the_readme_names_every_file() -> None:
    named = set(
        re.findall(r"`([\w-]+\.(?:sbatch|yaml))`", (FOLDER / "README.md").read_text("utf-8"))
    )
    assert named == {path.name for path in (*SCRIPTS, *TASKS)}
