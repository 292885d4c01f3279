"""Where the trained model is: whole in every process, or spread over them (`sharding.py`).

The trainer asks for what differs between the two and otherwise treats them alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from holo_cli.models.base import LanguageModel
from holo_cli.training.optim import Optimizer


class Placement:
    """The whole model in every process. All processes must call each method together."""

    spread = False  # whether each process holds a part only

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    @property
    def averaged(self) -> list[nn.Parameter]:
        """Parameters whose gradients are averaged over the processes after the backward pass."""
        return list(self.model.parameters())

    def before_backward(self) -> None:
        """Called before each backward pass of a world-invariant run."""

    def after_step(self) -> None:
        """Called when the gradients of a world-invariant step are used, or dropped."""

    def share(self, parts: Mapping[str, int]) -> dict[str, int]:
        """Bytes of memory by part, of the whole model -> of one process."""
        return dict(parts)

    def whole(self) -> LanguageModel | None:
        """A model with all weights in the first process; the others may get None."""
        return self.model

    def whole_state(self, optimizer: Optimizer) -> tuple[LanguageModel, Optimizer]:
        """Model and optimizer as a single process has them, in every process."""
        return self.model, optimizer

    def take_buffers(self, model: LanguageModel | None) -> None:
        """Set the buffers of all processes to those of `model`, which the first one has."""

    @property
    def shared(self) -> dict[str, str]:
        """Further names in a checkpoint of tensors that each process holds a part of, with the
        first name of each."""
        return {}
