"""Sample text from a model during training, for the log of evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from holo_cli.inference.generation.loaded_model import LoadedModel

if TYPE_CHECKING:
    from holo_cli.checkpoint.header import Header
    from holo_cli.data.tokenizers import Tokenizer
    from holo_cli.models.base import LanguageModel

REQUESTS = {"en": "Tell me a story.", "ko": "이야기 해 주세요."}


def sample_text(model: LanguageModel, tokenizer: Tokenizer, header: Header, tokens: int) -> str:
    """Text from an empty prompt, once per language with a marker; of a model that learns from
    conversations, a request and the answer.

    The seed is always the same, so that samples of a run can be compared. The global random state
    is not used, so that sampling does not change training."""
    was_training = model.training
    model.eval()
    loaded = LoadedModel(model, tokenizer, header, dtype=torch.float32)
    languages = loaded.prompts.languages or (None,)
    options: dict[str, Any] = {"max_new_tokens": tokens, "seed": 0}
    texts = []
    for lang in languages:
        if loaded.only_continues:
            texts.append(str(loaded.generate("", lang=lang, **options)).strip())
        else:
            request = REQUESTS.get(lang or "", REQUESTS["en"])
            answer = loaded.answer(request, lang=lang, **options)
            texts.append(f"> {request}\n{answer.strip()}")
    model.train(was_training)
    return "\n\n".join(texts)
