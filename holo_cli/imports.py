"""Imports of large libraries, made quicker, and the end of a process that made them."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collections() -> Iterator[None]:
    """Imports inside run without garbage collections; what they made is never looked at again.

    Importing torch makes some 700 modules, nearly all of whose objects live until the process ends.
    The collections on the way take about a tenth of the time and free next to nothing. `freeze`
    keeps later collections short as well.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def quick_exit() -> None:
    """Let this process end without looking once more at everything that it imported.

    With torch that takes the interpreter's last collections half a second, and the memory goes
    with the process.
    """
    atexit.register(gc.freeze)
