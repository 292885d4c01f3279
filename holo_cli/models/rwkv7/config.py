"""Config of RWKV-7."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from holo_cli.config.model_schema import UnrotatedConfig
from holo_cli.config.tunable import tunable


class Config(UnrotatedConfig):
    """The time mixing of RWKV-7. The order of tokens enters by the decay and by the token
    shift or the convolution, unless `rope_fraction` rotates keys and queries."""

    mechanism: ClassVar[str] = "RWKV-7: a matrix state with decay and learning rate per channel"

    rank: int = Field(
        0,
        ge=0,
        le=1024,
        description="rank of the maps to decay and learning rate, half of the output gate's; 0 is "
        "2.5 sqrt(C), rounded to a multiple of 32",
        json_schema_extra=tunable(8, 128, log=True),
    )

    @property
    def token_shift(self) -> bool:
        """Whether each projection reads a mix of a token and its predecessor: where `conv` is 0;
        the convolution takes its place."""
        return self.conv == 0

    @property
    def gate_rank(self) -> int:
        """Rank of the maps to decay and learning rate."""
        return self.rank or max(32, 32 * round(2.5 * self.width**0.5 / 32))

    def without_effect(self) -> frozenset[str]:
        return frozenset({"query_gain"})
