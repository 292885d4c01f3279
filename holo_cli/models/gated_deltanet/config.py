"""Config of Gated DeltaNet."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from holo_cli.config.model_schema import UnrotatedConfig


class Config(UnrotatedConfig):
    """Gated DeltaNet, with its own gates or those of Gated DeltaNet-2. The order of
    tokens enters by the decay and the convolution, unless `rope_fraction` rotates keys and queries.
    """

    mechanism: ClassVar[str] = "gated delta rule: a matrix state in which a key's value is replaced"

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
