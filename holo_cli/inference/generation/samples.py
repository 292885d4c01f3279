"""A sample of text from a model under training, for the log at evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from holo_cli.inference.generation.loaded_model import LoadedModel

if TYPE_CHECKING:
    from holo_cli.checkpoint.header import Header
    from holo_cli.data.tokenizers import Tokenizer
    from holo_cli.models.base import LanguageModel


def sample_text(model: LanguageModel, tokenizer: Tokenizer, header: Header, tokens: int) -> str:
    """What the model writes of itself now, once per language it has a marker for.

    The same seed every time, so that samples of a run can be compared; draws nothing from the
    global random state, so that sampling never changes the training that follows.
    """
    was_training = model.training
    model.eval()
    loaded = LoadedModel(model, tokenizer, header, dtype=torch.float32)
    languages = loaded.prompts.languages or (None,)
    texts = [
        str(loaded.generate("", lang=lang, max_new_tokens=tokens, seed=0)) for lang in languages
    ]
    model.train(was_training)
    return "\n\n".join(text.strip() for text in texts)
