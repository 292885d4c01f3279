"""vanilla's keys, and the stages."""

from __future__ import annotations

from typing import ClassVar, Literal

from holo_cli.config.model_schema import BackboneConfig, Stage


class Config(BackboneConfig):
    """`depths[i]` blocks from share `at[i]` of the schedule on."""

    mechanism: ClassVar[str] = "attention, deeper by stages"

    depths: tuple[int, ...] = (1, 2, 4)
    at: tuple[float, ...] = (0.0, 0.25, 0.5)
    how: Literal["identity", "copy"] = "identity"

    def stages(self) -> tuple[Stage, ...]:
        return tuple(map(Stage, self.at, self.depths))
