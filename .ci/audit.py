"""`make audit`: known vulnerabilities of the pinned packages, by pip-audit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_REACHED = "Not audited: the database of known vulnerabilities cannot be reached from here."


def main() -> int:
    command = [sys.argv[1], "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    for name in ("constraints.txt", "constraints-cuda.txt"):
        command += ["--requirement", str(ROOT / name)]
    ran = subprocess.run([*command, "--format", "json"], capture_output=True, text=True)
    try:
        packages = json.loads(ran.stdout)["dependencies"]
    except (ValueError, KeyError):  # it ended before it could report
        print(NOT_REACHED if "Error" in ran.stderr else ran.stderr)
        return 0 if "Error" in ran.stderr else ran.returncode
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:  # a mirror that has files and no database
        print(NOT_REACHED)
        return 0
    for package in audited:
        for found in package["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "none yet"
            print(f"{package['name']} {package['version']}: {found['id']} (fixed in: {fixed})")
    print(f"{len(audited)} of {len(packages)} packages audited.")
    return 1 if any(package["vulns"] for package in audited) else 0


if __name__ == "__main__":
    sys.exit(main())
