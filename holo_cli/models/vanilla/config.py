"""What can be set about vanilla."""

from __future__ import annotations

from typing import ClassVar, Literal

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
    gelu: Literal["exact", "tanh"] = Field(
        "exact",
        description="classic: GELU, or its approximation by tanh, as in GPT-2's own weights",
    )

    def without_effect(self) -> frozenset[str]:
        if self.recipe == "modern":
            return frozenset({"gelu"})
        return frozenset(BackboneConfig.model_fields.keys() - ModelConfig.model_fields.keys())
