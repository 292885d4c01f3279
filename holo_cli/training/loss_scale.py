"""Scaling the loss, for gradients in float16 (Micikevicius et al. 2018, arXiv 1710.03740).

float16 has no numbers below 6e-8, and gradients do. So the loss is multiplied before the backward
pass and the gradients divided after it, by a power of two, which changes no other bit. A step whose
gradients overflowed is left out and the factor halved; after `GROW_AFTER` good steps it is doubled.
All processes see the same gradients and so decide alike. Not `torch.amp.GradScaler`: that one keeps
its state on the device, asks each optimizer, and knows nothing of sharded models.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from holo_cli.training.state import Progress

FIRST = 2.0**16
LARGEST = 2.0**24
GROW_AFTER = 2000


class LossScale:
    """The factor of a run, 1 but for float16; `progress` keeps it for a resume."""

    def __init__(self, progress: Progress, dtype: torch.dtype) -> None:
        self.progress, self.active = progress, dtype == torch.float16
        if self.active and progress.loss_scale is None:
            progress.loss_scale = FIRST

    @property
    def factor(self) -> float:
        return (self.progress.loss_scale or 1.0) if self.active else 1.0

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the factor, in place."""
        if self.active:
            for p in parameters:
                if p.grad is not None:
                    p.grad.mul_(1 / self.factor)

    def overflowed(self, finite: bool) -> bool:
        """Take note of a step whose gradients were finite or not; whether it must be left out.

        Not once the factor is 1: then the run diverges, as in any other format.
        """
        if not self.active or (not finite and self.factor <= 1):
            return False
        progress = self.progress
        progress.scale_steps = progress.scale_steps + 1 if finite else 0
        if not finite:
            progress.loss_scale = self.factor / 2
        elif progress.scale_steps == GROW_AFTER:
            progress.loss_scale, progress.scale_steps = min(2 * self.factor, LARGEST), 0
        return not finite
