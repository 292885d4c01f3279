"""Config of Mamba-2 and Mamba-3."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from holo_cli.config.model_schema import MAX_NUMBER, BackboneConfig
from holo_cli.config.tunable import tunable, tunable_choices


class Config(BackboneConfig):
    """A selective state space with one decay per head, in two versions."""

    mechanism: ClassVar[str] = "selective state space: Mamba-2 or Mamba-3"

    version: Literal[2, 3] = Field(
        2,
        description="2: scalar decay, short convolution (Mamba-2); 3: rotating state, "
        "trapezoidal input (Mamba-3)",
    )
    expand: int = Field(
        2, ge=1, le=8, description="channels of the state space, as a multiple of the width"
    )
    state_size: int = Field(
        64, ge=2, le=512, description="numbers of state per channel, even",
        json_schema_extra=tunable_choices(16, 32, 64, 128),
    )  # fmt: skip
    inner_conv: int | None = Field(
        None,
        ge=0,
        le=16,
        description="width of the causal convolution on x, B and C; 0 is off "
        "(default: 4 in version 2, 0 in version 3)",
    )
    dt_min: float = Field(
        0.001, gt=0, le=MAX_NUMBER, description="smallest step size at the start of training",
        json_schema_extra=tunable(0.0001, 0.01, log=True),
    )  # fmt: skip
    dt_max: float = Field(
        0.1, gt=0, le=MAX_NUMBER, description="largest step size at the start of training",
        json_schema_extra=tunable(0.02, 1.0, log=True),
    )  # fmt: skip
    skip_start: float = Field(
        0.1,
        ge=0,
        le=10,
        description="what a head's own input is multiplied by at the start of training, D "
        "(the papers' code: 1)",
        json_schema_extra=tunable(0.0, 1.0),
    )

    @property
    def inner(self) -> int:
        """D: channels of the state space."""
        return self.expand * self.width

    @property
    def head_width(self) -> int:
        """P: channels per head."""
        return self.inner // self.heads

    @property
    def taps(self) -> int:
        """Width of the convolution on x, B and C; 0 without one."""
        if self.inner_conv is not None:
            return self.inner_conv
        return 4 if self.version == 2 else 0

    @property
    def angles(self) -> int:
        """R: pairs of numbers of state that rotate; 0 in version 2."""
        return round(self.rope_fraction * (self.state_size // 2)) if self.version == 3 else 0

    def without_effect(self) -> frozenset[str]:
        unused = {"query_gain", "rope_base"}
        return frozenset(unused | {"rope_fraction"} if self.version == 2 else unused)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Config:
        if self.dt_min > self.dt_max:
            raise ValueError(
                f"model.dt_min ({self.dt_min}) must be at most model.dt_max ({self.dt_max})"
            )
        if self.state_size % 2:
            raise ValueError(
                f"model.state_size ({self.state_size}) must be even: Mamba-3 rotates pairs"
            )
        return self
