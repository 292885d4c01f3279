"""What can be set about vanilla."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from holo_cli.config.model_schema import BackboneConfig, ModelConfig, Recipe

# keys that one recipe alone reads, and what llama reads of the backbone's
OF_MODERN = frozenset({"value_mass"})
OF_CLASSIC = frozenset({"gelu"})
OF_LLAMA = frozenset({"kv_heads", "norm_eps", "qkv_bias"})
SHARED_BY_LLAMA = frozenset({"rope_base", "tied"})


class Config(BackboneConfig):
    """The baseline in three recipes.

    `classic` and `llama` read the shared keys (layers, heads, width, mlp_ratio, dropout, context)
    and leave the backbone's own (soft_cap, conv, ...) unused, but for rope_base and tied, which
    `llama` reads.
    """

    mechanism: ClassVar[str] = "softmax attention"
    canon_places: ClassVar[str] = "ABCD"
    takes_values: ClassVar[bool] = True

    value_mass: bool = Field(
        False, description="values are scaled by a learned mass per head and token, as in ngt"
    )
    recipe: Recipe = Field("modern", description="modern, the textbook's classic, or llama")
    gelu: Literal["exact", "tanh"] = Field(
        "exact",
        description="classic: GELU, or its approximation by tanh, as in GPT-2's own weights",
    )
    kv_heads: int = Field(
        0,
        ge=0,
        le=100_000,
        description="llama: heads of keys and values, each for several queries; 0: one for each",
    )
    norm_eps: float = Field(
        1e-5, gt=0, lt=1, description="llama: what RMS norm adds to the mean square"
    )
    qkv_bias: bool = Field(
        False, description="llama: queries, keys and values have biases, as in Qwen2"
    )

    @model_validator(mode="after")
    def _kv_heads_divide_heads(self) -> Config:
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(
                f"model.heads ({self.heads}) must be a multiple of model.kv_heads ({self.kv_heads})"
            )
        return self

    def without_effect(self) -> frozenset[str]:
        if self.recipe == "modern":
            return OF_CLASSIC | OF_LLAMA
        backbone = OF_MODERN | (
            BackboneConfig.model_fields.keys() - ModelConfig.model_fields.keys()
        )
        if self.recipe == "classic":
            return backbone | OF_LLAMA
        return (backbone - SHARED_BY_LLAMA) | OF_CLASSIC
