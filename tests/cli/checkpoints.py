"""A real, tiny checkpoint for commands that read one."""

from __future__ import annotations

from pathlib import Path

import torch

from holo_cli.checkpoint import DataInfo, Header, model_tensors, save
from holo_cli.data.chat_format import MARK_NAMES
from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.registry import build_model, config_class

ALPHABET = "\n abcdefghijklmnop가나다라마"


def make_checkpoint(path: Path, run: str = "small", data: DataInfo | None = None) -> Path:
    """An untrained vanilla of two layers, saved at `path`; of what `data` says, if it says. The
    tokenizer has the marks of a chat format where `data` has one."""
    marks = MARK_NAMES if data is not None and data.chat is not None else ()
    tokenizer = CharTokenizer(ALPHABET).with_specials(marks)
    config = config_class("vanilla")(
        vocab_size=tokenizer.vocab_size, layers=2, heads=2, width=16, context=24
    )
    torch.manual_seed(0)
    model = build_model("vanilla", config)
    header = Header(
        model="vanilla",
        config={"model": config.model_dump(mode="json"), "training": {}, "data": {}},
        tokenizer=tokenizer.to_dict(),
        step=7,
        run=run,
        data=data or DataInfo(),
        kind="best",
        history=[{"step": 7, "val_loss": 2.5}],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, header, model_tensors(model))
    return path
