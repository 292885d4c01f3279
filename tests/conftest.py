"""Settings of the whole suite."""

from __future__ import annotations

import os

# as the command line does it: waiting threads sleep, so that tests are quick beside other work
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# models in tests are so small that a second thread only costs; the cores run tests side by side
os.environ.setdefault("OMP_NUM_THREADS", "1")
