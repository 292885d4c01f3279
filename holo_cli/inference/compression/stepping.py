"""The model's side of compression: logits of the next token, chunks side by side as rows.

Every chunk begins like a document (end token, then the language marker if there is one). Every
token costs one step with the decoding state, in compression too: the encoder then computes exactly
what the decoder will. After each `context` tokens the state starts afresh with the last token as
its first input, as the windows of `holo eval` do with their default stride; 0 carries the state
through the chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from holo_cli.errors import DataError, UsageError
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.models.base import LanguageModel
from holo_cli.wording import counted

ROWS = 64  # at most
STATE_BYTES = 1 << 29  # of all rows together, at most


class Stepper:
    """`rows` chunks in lockstep."""

    def __init__(
        self, model: LanguageModel, prefix: Sequence[int], rows: int, context: int
    ) -> None:
        self._model, self._rows, self._context = model, rows, context
        self._read = 0
        self._state: Any = None
        self.logits: NDArray[np.float32]  # (rows, V), of the next token
        for token in prefix:
            self.feed(np.full(rows, token))

    def feed(self, tokens: NDArray[np.int64]) -> None:
        """Read one token per row, (rows,). Raises DataError for logits that are not finite."""
        if self._read == 0 or (self._context and self._read % self._context == 0):
            self._state = self._model.init_state(self._rows)
        x = torch.from_numpy(tokens.astype(np.int64))[:, None].to(self._model.device)
        logits, self._state = self._model.step(x, self._state)
        self._read += 1
        self.logits = logits[:, -1].float().cpu().numpy()
        if not np.isfinite(self.logits).all():
            raise DataError(
                "The model's loss on this text is NaN or infinity: its weights come from a "
                "training run that diverged.",
                next_step="Use an earlier checkpoint.",
            )


@contextmanager
def stepping(model: LanguageModel) -> Iterator[None]:
    """Evaluation mode without gradients; the mode is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def rows_for(model: LanguageModel, length: int, chunks: int) -> int:
    """How many chunks are coded side by side, for states of `length` tokens."""
    fitting = STATE_BYTES // max(1, model.state_bytes(length))
    return max(1, min(ROWS, chunks, fitting))


def check_context(model: LanguageModel, context: int) -> None:
    """Raises UsageError for a window that the model does not support; 0 carries the state."""
    limit = model.context_limit
    if not context and limit is not None:
        raise UsageError(
            "This model does not support --carry: its context is limited to "
            f"{counted(limit, 'token')}.",
            next_step="Omit --carry.",
        )
    if context < 0 or (limit is not None and context > limit):
        raise UsageError(
            f"This model does not support a context of {counted(context, 'token')}.",
            next_step="--context must be at least 1."
            if limit is None
            else f"--context must be from 1 to {limit}.",
        )


def checkpoint_digest(loaded: LoadedModel) -> bytes:
    """8 bytes of the sha256 of model name, tokenizer and weights: the same for every file that has
    these weights (`_best`, `_last`, an export in the same format)."""
    found = hashlib.sha256(f"{loaded.header.model} {loaded.tokenizer.fingerprint}".encode())
    for name, tensor in sorted(loaded.model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return found.digest()[:8]
