"""The models that a server has, as many of them loaded as a memory budget allows.

All are loaded once at the start: a file that cannot be served is reported then, and sizes are
known. What does not fit is loaded again when it is asked for, in place of what was not used for
longest and is not at work. A loaded model needs its file no longer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holo_cli.checkpoint.find import find_checkpoint
from holo_cli.errors import HoloError, UsageError, nearest
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.serve.refusal import Refusal
from holo_cli.serve.scheduler import Served

Load = Callable[[Path], LoadedModel]


@dataclass
class PooledModel:
    """A model by its name. `busy` counts the requests that use it."""

    path: Path
    about: dict[str, Any]
    bytes: int
    served: Served | None
    used: float = 0.0
    busy: int = 0


class ModelPool:
    """Models by name. Loaded and unloaded by the event loop's thread alone."""

    def __init__(self, load: Load, budget: int | None, prefix_bytes: int) -> None:
        self._load = load
        self._budget = budget
        self._prefix_bytes = prefix_bytes
        self.entries: dict[str, PooledModel] = {}
        self._loading = asyncio.Lock()
        self.loads = 0

    def open(self, checkpoints: Sequence[str | None]) -> None:
        """Loads each checkpoint. Raises HoloError for one that cannot be served, or that exceeds
        the budget alone."""
        for typed in checkpoints:
            path = find_checkpoint(typed).resolve()
            loaded = self._load(path)
            name = loaded.header.run or path.stem
            if name in self.entries:
                raise UsageError(
                    f"Two of the checkpoints are called '{name}'.",
                    next_step="Give each --checkpoint once, one for each run.",
                )
            size = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
            if self._budget is not None and size > self._budget:
                raise UsageError(
                    f"The model '{name}' takes {size / 1e6:.0f} MB, more than --memory-budget.",
                    next_step="Raise --memory-budget, or leave that checkpoint out.",
                )
            entry = PooledModel(path, _about(name, loaded), size, None)
            self.entries[name] = entry
            if self.used_bytes + size <= (self._budget or self.used_bytes + size):
                entry.served = self._served(loaded)

    @property
    def used_bytes(self) -> int:
        """Of the weights of loaded models."""
        return sum(e.bytes for e in self.entries.values() if e.served is not None)

    async def acquire(self, name: str | None) -> tuple[str, Served]:
        """The model of that name (None: the first one), loaded; to be given back after use.

        Raises Refusal where there is none, its file is gone, or the budget is in use.
        """
        if name is None:
            name = next(iter(self.entries), "")
        entry = self.entries.get(name)
        if not self.entries:
            raise Refusal(404, "The server has no model.", code="model_not_found", param="model")
        if entry is None:
            hint = nearest(name, self.entries)
            raise Refusal(
                404, f"There is no model '{name}'. {hint}", code="model_not_found", param="model"
            )
        entry.busy += 1  # before the first await: it must not be unloaded in between
        try:
            async with self._loading:
                if entry.served is None:
                    self._make_room(entry.bytes)
                    entry.served = await self._loaded(name, entry)
        except BaseException:
            entry.busy -= 1
            raise
        entry.used = time.monotonic()
        return name, entry.served

    def release(self, name: str) -> None:
        """After `acquire`."""
        self.entries[name].busy -= 1

    async def _loaded(self, name: str, entry: PooledModel) -> Served:
        try:
            return self._served(await asyncio.to_thread(self._load, entry.path))
        except HoloError as error:
            raise Refusal(
                503, f"The model '{name}' cannot be loaded: {error.message}", code="model_gone"
            ) from error

    def _served(self, loaded: LoadedModel) -> Served:
        self.loads += 1
        return Served.of(loaded, self._prefix_bytes)

    def _make_room(self, size: int) -> None:
        if self._budget is None:
            return
        idle = [e for e in self.entries.values() if e.served is not None and not e.busy]
        idle.sort(key=lambda entry: entry.used)
        while self.used_bytes + size > self._budget:
            if not idle:
                raise Refusal(
                    503,
                    "The memory for models is in use. Try again later.",
                    code="models_busy",
                    wait=1,
                )
            idle.pop(0).served = None


def _about(name: str, loaded: LoadedModel) -> dict[str, Any]:
    """What /v1/models says of a model, beside OpenAI's keys."""
    config, header = loaded.config, loaded.header
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "holo",
        "holo": {
            "model": header.model,
            "step": header.step,
            "parameters": sum(p.numel() for p in loaded.model.parameters()),
            "context": config.context,
            "unlimited": loaded.model.context_limit is None,
            "languages": sorted(code for code in header.data.languages if code),
            "only_continues": loaded.only_continues,
        },
    }
