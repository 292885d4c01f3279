"""Config of Gated DeltaNet."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from holo_cli.config.model_schema import BackboneConfig
from holo_cli.config.tunable import tunable_choices


class Config(BackboneConfig):
    """Gated DeltaNet, with its own gates or those of Gated DeltaNet-2. The order of
    tokens enters by the decay and the convolution, unless `rope_fraction` rotates keys and queries.
    """

    mechanism: ClassVar[str] = "gated delta rule: a matrix state in which a key's value is replaced"

    rope_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the dimensions of keys and queries that is rotated by position; the "
        "published form has none",
        json_schema_extra=tunable_choices(0.0, 0.5, 1.0),
    )
    conv: int = Field(
        4, ge=0, le=16, description="width of a short causal convolution before the mixer; 0 is off"
    )
    gates: Literal["gdn", "gdn2"] = Field(
        "gdn",
        description="gdn: one decay and one write strength per head; gdn2: decay and erase gate "
        "per channel of the keys, write gate per channel of the values",
    )

    def without_effect(self) -> frozenset[str]:
        return frozenset({"query_gain"})
