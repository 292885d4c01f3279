"""`make audit`: known vulnerabilities of the pinned packages, by pip-audit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNREACHABLE = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "SSLError",
               "HTTPError", "Could not connect", "Failed to query",
               "Connection refused")  # fmt: skip


def main() -> int:
    command = [sys.argv[1], "--disable-pip", "--no-deps", "--progress-spinner", "off"]
    for name in ("constraints.txt", "constraints-cuda.txt"):
        command += ["--requirement", str(ROOT / name)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode and any(sign in ran.stderr for sign in UNREACHABLE):
        print("Not audited: the database of vulnerabilities cannot be reached from here.")
        return 0
    print(ran.stdout + ran.stderr, end="")
    return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
