"""torch.compile for the forward pass, where this machine has what it needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from holo_cli.models.base import Hidden, LanguageModel

Forward = Callable[[Tensor], Hidden]


def compile_hidden(model: LanguageModel) -> tuple[Forward, str | None]:
    """`model.hidden` compiled, or as it is with the reason why not."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    try:
        probe = torch.compile(lambda x: torch.sin(x) + 1)
        probe(torch.zeros(8, device=model.device))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.compile(model.hidden), None
    except (TorchDynamoException, InductorError, RuntimeError, ImportError) as error:
        return model.hidden, str(error).partition("\n")[0]
