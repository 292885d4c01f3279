"""A small checkpoint of two languages, whose tokenizer cuts Hangul into parts of characters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from holo_cli.checkpoint import DataInfo, Header, Losses, model_tensors, save
from holo_cli.data.tokenizers.base import special_names
from holo_cli.data.tokenizers.bpe import JsonTokenizer
from holo_cli.models.base import LanguageModel
from holo_cli.registry import build_model, config_class

TEXT = ["the cat and the dog walked to the river", "the river gave the cat a fish"] * 20
MIXED = "The cat walked. 고양이가 걸었다."


@pytest.fixture(scope="session")
def tokenizer() -> JsonTokenizer:
    return JsonTokenizer.train(TEXT, 320, special_names(["en", "ko"]))


def make_model(vocab_size: int, recipe: str = "modern") -> LanguageModel:
    """An untrained model whose attention does something: its output projections are not zero."""
    config = config_class("vanilla")(
        vocab_size=vocab_size, layers=3, heads=2, width=16, context=256, recipe=recipe
    )
    torch.manual_seed(0)
    model = build_model("vanilla", config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def make_checkpoint(
    folder: Path, tokenizer: JsonTokenizer, run: str = "두-runs", recipe: str = "modern"
) -> Path:
    model = make_model(tokenizer.vocab_size, recipe)
    header = Header(
        model="vanilla",
        config={"model": model.config.model_dump(mode="json"), "training": {}, "data": {}},
        recipe=recipe,
        tokenizer=tokenizer.to_dict(),
        step=1234,
        losses=Losses(val=2.71828, bpb=1.5),
        data=DataInfo(name="<stories>", languages={"en": 5, "ko": 5}, markers=True, documents=10),
        run=run,
        kind="best",
    )
    path = folder / "checkpoints" / f"{run}_best.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, header, model_tensors(model))
    return path


@pytest.fixture
def lab(tmp_path: Path, tokenizer: JsonTokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one checkpoint, and the working folder of the test."""
    make_checkpoint(tmp_path, tokenizer)
    monkeypatch.chdir(tmp_path)
    return tmp_path
