"""Makes constraints.txt and constraints-cuda.txt: `make constraints`, or with UPGRADE=1.

Every package that the project's environment contains, with its version and the hashes of all its
files on the Python package index, for every system and Python from 3.11 on (environment markers
say which package belongs to which). Versions in the present files stay unless they no longer fit;
UPGRADE=1 takes the newest.

Two files, because torch exists in builds: the one on the index for Linux needs NVIDIA's libraries
(three gigabytes), which a build for CPUs does without. They are in constraints-cuda.txt.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAIN, CUDA = ROOT / "constraints.txt", ROOT / "constraints-cuda.txt"
OF_CUDA = re.compile(r"(nvidia-|cuda-|triton\b)")
# The wheel of torch 2.13.0+cpu for Linux x86-64 and Python 3.11 is not on the index.
CPU_BUILDS = {
    "torch==2.13.0": ["6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"],
}
HEADS = {
    MAIN: "# The environment that the tests run in, every package with the hashes of its files.",
    CUDA: "# What the build of torch on the package index needs beside constraints.txt on Linux.",
}


def compiled(uv: str) -> str:
    """uv's resolution of pyproject.toml with the extras that tests need, as text."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    with tempfile.TemporaryDirectory() as folder:
        out, more = Path(folder, "out.txt"), Path(folder, "build.in")
        more.write_text("\n".join([*build["requires"], "editables"]), encoding="utf-8")
        if not os.environ.get("UPGRADE"):  # uv keeps the versions of the file that it writes
            known = [path.read_text(encoding="utf-8") for path in (MAIN, CUDA) if path.exists()]
            out.write_text("\n".join(known), encoding="utf-8")
        command = [
            uv, "pip", "compile", "pyproject.toml", str(more), "--output-file", str(out),
            "--universal", "--python-version", "3.11", "--generate-hashes", "--extra", "dev",
            "--extra", "hf", "--extra", "gguf", "--no-header", "--no-annotate", "--no-config",
            "--quiet",
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True)
        return out.read_text(encoding="utf-8")


def main() -> None:
    packages = re.split(r"\n(?=\S)", compiled(sys.argv[1]).strip())
    parts: dict[Path, list[str]] = {MAIN: [], CUDA: []}
    for package in packages:
        pin = package.split()[0]
        for digest in CPU_BUILDS.get(pin, []):
            hashed = f" \\\n    --hash=sha256:{digest}"
            # uv keeps the hashes of a version that it keeps, with those that were added here
            package = package.replace(hashed, "") + hashed
        parts[CUDA if OF_CUDA.match(pin) else MAIN].append(package)
    for path, made in parts.items():
        text = "\n".join([HEADS[path], "# Made by `make constraints`; do not edit.", *made])
        path.write_text(text + "\n", encoding="utf-8")
        print(f"{path.name}: {len(made)} packages")


if __name__ == "__main__":
    main()
