"""What can be set about vanilla."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from holo_cli.config.model_schema import BackboneConfig, ModelConfig, Recipe


class Config(BackboneConfig):
    """The baseline in two recipes.

    `classic` reads the shared keys (layers, heads, width, mlp_ratio, dropout, context) and leaves
    the backbone's own (rope_base, soft_cap, conv, ...) unused.
    """

    mechanism: ClassVar[str] = "softmax attention"
    canon_places: ClassVar[str] = "ABCD"
    takes_values: ClassVar[bool] = True

    recipe: Recipe = Field("modern", description="modern, or the textbook's classic")

    def without_effect(self) -> frozenset[str]:
        if self.recipe == "modern":
            return frozenset()
        return frozenset(BackboneConfig.model_fields.keys() - ModelConfig.model_fields.keys())
