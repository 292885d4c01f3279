"""Config of ngt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from holo_cli.config.added import added_key
from holo_cli.config.model_schema import MAX_NUMBER, BackboneConfig
from holo_cli.config.tunable import tunable, tunable_choices

POWER_LIMIT = 16.0  # above it weights of far tokens would underflow float32


class Config(BackboneConfig):
    """Gravity between tokens. Coordinates are in units of their own root mean square.

    `rope_base` and `rope_fraction` turn the coordinates by position. Of the kernels, `gravity`
    reads power, learn_power and eps, `lorentz` reads beta, and `classic` reads eps.
    """

    mechanism: ClassVar[str] = "gravity between learned masses in learned coordinates"
    takes_values: ClassVar[bool] = True

    kernel: Literal["gravity", "gaussian", "lorentz", "classic"] = Field(
        "gravity",
        description="weight as a function of distance; classic: an earlier one, for comparison",
    )
    coords: int | None = Field(
        None, ge=1, description="coordinates per head, even; unset: half of a head",
        json_schema_extra=tunable_choices(None, 4, 8, 16, 32),
    )  # fmt: skip
    separate_coords: bool = Field(True, description="separate coordinates for queries and keys")
    coords_from: Literal["position", "position+token"] = Field(
        "position", description="inputs of the coordinates in the first layer"
    )
    power: float = Field(
        8.0, ge=0, lt=POWER_LIMIT, description="weight decreases as this power of distance; 0: not",
        json_schema_extra=tunable(2.0, 14.0, when={"kernel": ["gravity"]}),
    )  # fmt: skip
    learn_power: bool = Field(False, description="learn the power per head, starting at `power`")
    eps: float = Field(
        0.01,
        ge=0.01,
        le=MAX_NUMBER,
        description="minimum added to squared distances; each head adds a learned amount",
        json_schema_extra=tunable(0.01, 1.0, log=True, when={"kernel": ["gravity", "classic"]}),
    )
    beta: float = Field(
        1.0, gt=0, le=MAX_NUMBER,
        description="initial curvature of space is -1/beta; learned per head",
        json_schema_extra=tunable(0.1, 10.0, log=True, when={"kernel": ["lorentz"]}),
    )  # fmt: skip
    mass_in_value: bool = Field(
        True, description="masses scale values instead of weights; off with kernel classic",
        json_schema_extra=added_key(before=False),
    )  # fmt: skip
    radius_mode: Literal["none", "soft", "hard"] = Field(
        "none",
        description="soft: attraction fades beyond a learned radius; hard: evaluation cuts it off",
    )
    radius: float = Field(
        4.0, ge=0, le=MAX_NUMBER, description="initial radius; learned per head",
        json_schema_extra=tunable(1.0, 8.0, when={"radius_mode": ["soft", "hard"]}),
    )  # fmt: skip
    tau: float = Field(
        1.0,
        gt=0,
        le=MAX_NUMBER,
        description="width of the transition at the radius, in squared distance",
        json_schema_extra=tunable(0.1, 10.0, log=True, when={"radius_mode": ["soft", "hard"]}),
    )  # fmt: skip
    far_field: Literal["exact", "blocks"] = Field(
        "exact", description="blocks: each far block of tokens attracts as one body"
    )
    far_block: int = Field(
        64, ge=2, le=4096, description="tokens per block where model.far_field is blocks"
    )
    exact_blocks: int = Field(
        8, ge=0, le=4096,
        description="far blocks per token that still attract token by token, those of most weight",
    )  # fmt: skip
    lambda_repulsion: float = Field(
        0.0,
        ge=0,
        le=MAX_NUMBER,
        description="weight of the loss that keeps coordinates apart; 0 is off",
    )
    repulsion_interval: int = Field(
        1, ge=1, description="steps over which repulsion's pairs and weight are spread"
    )
    repulsion_pairs: int = Field(
        256, ge=1, description="pairs of tokens that repel each other, per interval and head"
    )

    @classmethod
    def linked_defaults(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The older force is between masses."""
        return {"mass_in_value": given.get("kernel") != "classic"}

    @property
    def dimensions(self) -> int:
        """Coordinates per head, d: as set, or the largest even number within half a head."""
        return self.coords or max(2, self.width // self.heads // 4 * 2)

    @property
    def sets(self) -> int:
        """G: points per token and head; 1, or 2 for a query and a key."""
        return 2 if self.separate_coords else 1

    def without_effect(self) -> frozenset[str]:
        return frozenset({"query_gain"})

    def caution(self) -> str:
        if self.kernel == "lorentz" and self.heads == 1:
            # points are normalized over all heads: with one, every length is the same
            return (
                "With one head model.kernel = lorentz is the same as gaussian. "
                "Use two heads or more."
            )
        return ""

    @model_validator(mode="after")
    def _coordinates_are_even(self) -> Config:
        if self.dimensions % 2:
            raise ValueError(
                f"model.coords ({self.coords}) must be even: rotary positions rotate pairs"
            )
        return self

    @model_validator(mode="after")
    def _learned_power_is_positive(self) -> Config:
        if self.learn_power and self.power == 0:
            raise ValueError("model.power must be above 0 where model.learn_power is on")
        return self

    @model_validator(mode="after")
    def _blocks_are_of_plain_gravity(self) -> Config:
        if self.far_field == "blocks" and (
            self.kernel != "gravity" or self.radius_mode != "none" or self.learn_power
        ):
            raise ValueError(
                "model.far_field = blocks needs model.kernel = gravity, model.radius_mode = none "
                "and model.learn_power = false"
            )
        return self

    @model_validator(mode="after")
    def _classic_has_no_radius(self) -> Config:
        if self.kernel == "classic" and self.radius_mode != "none":
            raise ValueError(
                f"model.radius_mode = {self.radius_mode} does not go with model.kernel = classic: "
                "there weight rises with distance"
            )
        return self
