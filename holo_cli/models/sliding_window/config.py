"""Config of sliding-window attention."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.config.tunable import tunable, tunable_choices


class Config(BackboneConfig):
    """vanilla's attention over a bounded part of the past."""

    mechanism: ClassVar[str] = "softmax attention over the last tokens and the first ones"
    canon_places: ClassVar[str] = "ABCD"
    takes_values: ClassVar[bool] = True

    window: int = Field(
        64, ge=1, description="number of tokens that attention sees, the present one included",
        json_schema_extra=tunable(16, 256, log=True),
    )  # fmt: skip
    sinks: int = Field(
        4, ge=0, description="first tokens of a text that attention always sees; 0 is off",
        json_schema_extra=tunable_choices(0, 1, 4, 8),
    )  # fmt: skip
