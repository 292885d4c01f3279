"""The decoding state of brain-v1."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from holo_cli.models.backbone import BackboneState


@dataclass(frozen=True)
class BrainState(BackboneState):
    """With the language of each row and the layers its tokens passed, both (B,) int64."""

    language: Tensor
    passed: Tensor
