"""`import holo_cli as holo`: light, and the same as the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import holo_cli as holo
from holo_cli.errors import UsageError
from holo_cli.registry import model_names

HEAVY = ("torch", "pydantic", "datasets", "tokenizers", "tiktoken", "pyarrow", "prompt_toolkit")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    return done.stdout.strip()


def test_import_is_light() -> None:
    loaded = f"[m for m in {HEAVY!r} if m in sys.modules]"
    assert run(f"import sys, holo_cli; print({loaded})") == "[]"
    assert run(f"import sys, holo_cli; holo_cli.models(); print({loaded})") == "[]"


def test_models_are_named_before_and_after_the_package_is_imported() -> None:
    assert holo.models() == list(model_names())
    assert "vanilla" in holo.models()
    import holo_cli.models.base as base

    assert holo.models() == list(model_names())
    assert holo.models.base is base


def test_build_overrides_the_preset() -> None:
    model = holo.build("vanilla", preset="tiny", vocab_size=256, layers=2, width=32, heads=2)
    assert (model.config.layers, model.config.width, model.config.vocab_size) == (2, 32, 256)
    preset = holo.build("vanilla", preset="tiny", vocab_size=256).config
    assert holo.build("vanilla", vocab_size=256, preset="tiny", layers=2).config == (
        preset.model_copy(update={"layers": 2})
    )


def test_built_model_is_the_documented_one() -> None:
    model = holo.build("vanilla", preset="tiny", vocab_size=256, layers=1)
    tokens = torch.randint(0, 256, (1, 9))
    logits = model(tokens)
    assert logits.shape == (1, 9, 256)
    stepped, state = model.step(tokens, model.init_state(batch=1))
    assert state.position == 9
    torch.testing.assert_close(stepped, logits)


def test_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_MODEL_LAYERS", "7")
    assert holo.build("vanilla", vocab_size=16, layers=1).config.layers == 1
    assert holo.build("vanilla", preset="tiny", vocab_size=16).config.layers != 7


def test_wrong_names_are_named() -> None:
    with pytest.raises(UsageError, match="vanila"):
        holo.build("vanila", vocab_size=16)
    with pytest.raises(UsageError, match="layer"):
        holo.build("vanilla", vocab_size=16, layrs=2)
    with pytest.raises(UsageError, match="vocabulary"):
        holo.build("vanilla", vocab_size=0)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = holo.lode


def test_lazy_names() -> None:
    from holo_cli.inference.chat.session import ChatSession
    from holo_cli.inference.generation.loaded_model import LoadedModel
    from holo_cli.inference.generation.sampling import SamplingConfig
    from holo_cli.models.base import LanguageModel

    assert holo.ChatSession is ChatSession
    assert holo.LoadedModel is LoadedModel
    assert holo.SamplingConfig is SamplingConfig
    assert holo.LanguageModel is LanguageModel
    assert dir(holo) == sorted(holo.__all__)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small untrained model with Korean and English characters, saved as a run would."""
    from holo_cli.checkpoint import DataInfo, Header, model_tensors, save
    from holo_cli.data.tokenizers.char import CharTokenizer

    torch.manual_seed(0)
    tokenizer = CharTokenizer("\n abcdefg가나다라").with_specials(["<|en|>", "<|ko|>"])
    size = {"vocab_size": tokenizer.vocab_size, "layers": 1, "heads": 2, "width": 16}
    model = holo.build("vanilla", context=32, **size)
    header = Header(
        model="vanilla",
        config={"model": model.config.model_dump(mode="json"), "training": {}, "data": {}},
        tokenizer=tokenizer.to_dict(),
        data=DataInfo(documents=50, languages={"en": 25, "ko": 25}, markers=True),
        run="small",
        kind="best",
    )
    path = tmp_path / "small_best.safetensors"
    save(path, header, model_tensors(model))
    return path


def test_load_and_generate(checkpoint: Path) -> None:
    lm = holo.load(checkpoint, device="cpu")
    assert lm.config.width == 16
    assert lm.header.run == "small"
    options = {"max_new_tokens": 50, "seed": 3, "temperature": 0.8}
    text = lm.generate("가나", lang="ko", **options)
    assert isinstance(text, str)
    assert set(text) <= set("\n abcdefg가나다라")
    assert "".join(lm.generate("가나", stream=True, **options)) == text
    assert holo.load(checkpoint).generate("가나", **options) == text


def test_load_names_what_is_missing(tmp_path: Path, checkpoint: Path) -> None:
    from holo_cli.errors import CheckpointError

    with pytest.raises(CheckpointError, match="nowhere"):
        holo.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(UsageError, match="tpu"):
        holo.load(checkpoint, device="tpu")
