"""Config of gated linear attention."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from holo_cli.config.model_schema import UnrotatedConfig
from holo_cli.config.tunable import tunable, tunable_choices


class Config(UnrotatedConfig):
    """Gated linear attention (Yang et al. 2023). The order of tokens enters by the decay, unless
    `rope_fraction` rotates keys and queries."""

    mechanism: ClassVar[str] = "gated linear attention: a matrix state that fades per channel"

    key_ratio: float = Field(
        0.5, gt=0, le=4, description="width of a head's keys and queries, as a share of C / H",
        json_schema_extra=tunable_choices(0.25, 0.5, 1.0),
    )  # fmt: skip
    decay_rank: int = Field(
        16, ge=1, le=1024, description="rank of the map from the stream to the decays",
        json_schema_extra=tunable(4, 64, log=True),
    )  # fmt: skip
    temperature: float = Field(
        16.0, gt=0, le=1000, description="log decays are divided by it: higher forgets more slowly",
        json_schema_extra=tunable(2.0, 64.0, log=True),
    )  # fmt: skip

    @model_validator(mode="after")
    def _keys_have_a_width(self) -> Config:
        width = self.width // self.heads * self.key_ratio
        if width < 1 or width != int(width):
            raise ValueError(
                f"model.key_ratio ({self.key_ratio}) times model.width / model.heads "
                f"({self.width // self.heads}) must be a whole number, 1 or more"
            )
        if self.rope_fraction and width % 2:
            raise ValueError(
                f"model.key_ratio ({self.key_ratio}) gives keys of {int(width)} channels, which "
                "must be even with model.rope_fraction above 0: rotary positions rotate pairs"
            )
        return self

    @property
    def key_width(self) -> int:
        """K: width of a head's keys and queries."""
        return int(self.width // self.heads * self.key_ratio)

    def without_effect(self) -> frozenset[str]:
        return frozenset({"query_gain"})
