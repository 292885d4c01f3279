"""The learning rate and the context length at each step, as pure functions of the step."""

from __future__ import annotations

import math

from holo_cli.config.training_schema import TrainingConfig


def lr_multiplier(step: int, config: TrainingConfig) -> float:
    """Share of the peak rate for step 0 .. steps - 1.

    Linear warm-up, then either constant with a linear cooldown over the last `cooldown` of the
    steps, or a cosine; both end near `min_lr` times the peak.
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "cosine":
        done = min(1.0, step / config.steps)
        falling = 0.5 * (1 + math.cos(math.pi * done))
    else:
        length = config.cooldown * config.steps
        falling = min(1.0, (config.steps - step) / length) if length else 1.0
    return warm * (config.min_lr + (1 - config.min_lr) * max(0.0, falling))


def context_at(step: int, context: int, config: TrainingConfig) -> int:
    """The context of a step: `ramp_context` during the first `ramp_steps` of the run."""
    ramping = config.ramp_context and step < config.ramp_steps * config.steps
    return config.ramp_context if ramping else context
