"""Settings of the whole suite."""

from __future__ import annotations

import os

# as the command line does it: waiting threads sleep, so that tests are quick beside other work
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
