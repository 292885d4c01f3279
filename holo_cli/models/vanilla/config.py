"""What can be set about vanilla."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from holo_cli.model_config import Recipe, SkeletonConfig


class Config(SkeletonConfig):
    """The baseline in two recipes.

    `classic` reads the shared keys (layers, heads, width, mlp_ratio, dropout, context) and leaves
    the skeleton's own (rope_base, soft_cap, conv, ...) unused.
    """

    mechanism: ClassVar[str] = "softmax attention"

    recipe: Recipe = Field("modern", description="modern, or the textbook's classic")
