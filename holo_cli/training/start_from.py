"""A new run that starts from the weights and the tokenizer of another one (`train --from`).

The data, the schedule and the optimizer's state are new. The model's config is the other run's;
only settings that leave the weights as they are can be changed (dropout, say). The tokenizer may
have further special tokens, as a set of conversations has: their rows begin as the mean of the
others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holo_cli import registry
from holo_cli.checkpoint import Header, Origin, find_checkpoint, load_training
from holo_cli.checkpoint.read import MODEL_PREFIX
from holo_cli.config.resolve import Resolved
from holo_cli.data.dataset import PreparedData
from holo_cli.data.tokenizers import tokenizer_from_dict
from holo_cli.errors import DataError, UsageError
from holo_cli.models.base import LanguageModel
from holo_cli.names import quoted
from holo_cli.paths import CHECKPOINTS


@dataclass(frozen=True)
class Start:
    """A checkpoint that a run starts from; `tensors` are its weights, by the model's names."""

    path: Path
    header: Header
    tensors: Mapping[str, Tensor]

    @property
    def origins(self) -> list[Origin]:
        """The lineage of the new run, oldest first: that of the checkpoint, and the checkpoint."""
        header = self.header
        return [
            *header.origins,
            Origin(
                run=header.run,
                step=header.step,
                tokens=header.tokens,
                val_loss=header.losses.val,
                data=header.data.name,
                created=header.created,
            ),
        ]

    def stored(self) -> dict[str, Any]:
        """The header as a dict, at the depth of the weights: a run from them does not grow."""
        stored = self.header.model_dump()
        if self.header.stages:
            stored["config"]["model"] |= {"layers": self.header.stages[-1].layers, "growth": []}
        return stored


def open_start(name: str | Path, model: str | None = None) -> Start:
    """The checkpoint named by a path or a run (its best one), of `model` if that is given.

    Raises CheckpointError, and UsageError for another model.
    """
    path = find_checkpoint(name, CHECKPOINTS, prefer=("best", "last"))
    header, tensors = load_training(path)
    if model is not None and registry.canonical(model) != registry.canonical(header.model):
        raise UsageError(
            f"{path.as_posix()} is a checkpoint of model '{header.model}', not of '{model}'.",
            next_step="Leave --model out.",
        )
    weights = {
        key.removeprefix(MODEL_PREFIX): tensor
        for key, tensor in tensors.items()
        if key.startswith(MODEL_PREFIX)
    }
    return Start(path, header, weights)


def check_tokenizer(start: Start, data: PreparedData) -> None:
    """Raises DataError where the data has another tokenizer: its ids would mean other tokens.

    One that differs in further special tokens alone is the same for all ids that the model knows;
    UsageError for a model with a table of bigrams, whose rows depend on the number of tokens.
    """
    own = tokenizer_from_dict(start.header.tokenizer, start.path.parent)
    if data.tokenizer.fingerprint == own.fingerprint:
        return
    added = sorted(data.tokenizer.specials.keys() - own.specials.keys())
    if own.with_specials(data.tokenizer.specials).fingerprint == data.tokenizer.fingerprint:
        if not start.header.config["model"].get("bigrams"):
            return
        raise UsageError(
            f"{data.shown} has special tokens that {start.path.as_posix()} was trained without "
            f"({', '.join(added)}), and a model with model.bigrams cannot be given more tokens.",
            next_step="Train the first run on a set that has them too: prepare it with --tokenizer "
            f"{quoted(data.shown)}.",
        )
    source, shown = start.header.data.path, start.path.as_posix()
    raise DataError(
        f"{data.shown} has another tokenizer than the checkpoint {shown}.",
        next_step=f"Prepare it again with --tokenizer {quoted(source)}."
        if Path(source).is_dir()
        else f"Write the tokenizer with `holo export {quoted(shown)} --to dir --out FOLDER`, then "
        "prepare the set again with --tokenizer FOLDER.",
    )


def load_weights(model: LanguageModel, start: Start, resolved: Resolved) -> None:
    """Copy the checkpoint's weights into the model of the new run.

    Raises UsageError where a changed setting made tensors of other names or shapes.
    """
    targets = model.state_dict()
    known, wanted = start.header.config["model"]["vocab_size"], resolved.model.vocab_size

    def grown(before: Tensor, target: Tensor) -> bool:
        """Whether the tensors differ in rows of further tokens alone."""
        rows = (before.shape[:1], target.shape[:1])
        return rows == ((known,), (wanted,)) and before.shape[1:] == target.shape[1:]

    fits = targets.keys() == start.tensors.keys() and all(
        target.shape == start.tensors[name].shape
        or (known < wanted and grown(start.tensors[name], target))
        for name, target in targets.items()
    )
    if not fits:
        before = start.header.config["model"]
        changed = [
            f"model.{key}"
            for key, value in resolved.model.model_dump(mode="json").items()
            if key in before and before[key] != value
        ]
        raise UsageError(
            f"The weights of {start.path.as_posix()} do not fit the changed model "
            f"({', '.join(changed)}).",
            next_step="Leave these settings out, or train without --from.",
        )
    with torch.no_grad():
        for name, target in targets.items():
            before = start.tensors[name]
            if before.shape != target.shape:
                target[known:] = before.mean(0)
                target[:known] = before
            else:
                target.copy_(before)
