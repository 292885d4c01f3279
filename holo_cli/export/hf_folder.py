"""`holo export --to hf`: a folder that `transformers` loads.

vanilla's recipes classic and llama are architectures of `transformers` itself. Every other model
comes with `modeling_holo.py`, through which the installed `holo-cli` computes it. `transformers`
need not be installed to write the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from holo_cli import plugins
from holo_cli.checkpoint.find import CONFIG_FILE, WEIGHTS_FILE
from holo_cli.checkpoint.read import MODEL_PREFIX, TensorFile
from holo_cli.checkpoint.write import write_tensors
from holo_cli.config.model_schema import ModelConfig
from holo_cli.data.tokenizers import Tokenizer
from holo_cli.errors import UsageError
from holo_cli.export.foreign import FORMS, form_of, their_tensors
from holo_cli.export.tokenizer_files import write_tokenizer
from holo_cli.files import atomic_write_json, atomic_write_text

CODE = Path(__file__).with_name("modeling_holo.py")


def write_hf(file: TensorFile, config: ModelConfig, folder: Path) -> tuple[str, ...]:
    """Fill a folder for `AutoModelForCausalLM.from_pretrained`; returns notes for the user.

    Raises UsageError for a model in a file of one's own, before anything is written.
    """
    tokenizer = file.tokenizer()
    ends = {"bos_token_id": tokenizer.end, "eos_token_id": tokenizer.end}
    form = form_of(file.header.model, config)
    notes: tuple[str, ...] = ()
    if form is None:
        _refuse_own_file(file.header.model)
        stored = _own_config(file, config)
        tensors = _own_tensors(file)
        atomic_write_text(folder / CODE.name, CODE.read_text(encoding="utf-8"))
        message = (
            "It is loaded with trust_remote_code=True, which runs its modelling file; that needs "
            "holo-cli to be installed."
        )
        notes = (message,)
    else:
        stored = FORMS[form].written(config)
        tensors = their_tensors(file, FORMS[form])
    atomic_write_json(folder / CONFIG_FILE, stored | {"dtype": "float32"} | ends)
    write_tensors(folder / WEIGHTS_FILE, tensors, lambda _: {"format": "pt"})
    generation: dict[str, Any] = ends | {"pad_token_id": tokenizer.end}
    if banned := tokenizer.unsampled(config.vocab_size):
        generation["suppress_tokens"] = banned
    atomic_write_json(folder / "generation_config.json", generation)
    return notes + _write_tokenizer(tokenizer, config, folder)


def _write_tokenizer(tokenizer: Tokenizer, config: ModelConfig, folder: Path) -> tuple[str, ...]:
    if not write_tokenizer(tokenizer, folder):
        message = (
            f"No tokenizer was written: a {tokenizer.kind} tokenizer has no tokenizer.json; "
            "encode the text yourself."
        )
        return (message,)
    end = next(name for name, i in tokenizer.specials.items() if i == tokenizer.end)
    atomic_write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end,
            "eos_token": end,
            "model_max_length": config.context,
            "clean_up_tokenization_spaces": False,
        },
    )
    return ()


def _refuse_own_file(model: str) -> None:
    if plugins.is_file(model):
        raise UsageError(
            f"The model {model} is a class in a file, which transformers cannot find again.",
            next_step="Make it a package (holo new-model NAME), or use --to dir.",
        )


def _own_config(file: TensorFile, config: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["HoloForCausalLM"],
        "model_type": "holo",
        "auto_map": {
            "AutoConfig": f"{CODE.stem}.HoloConfig",
            "AutoModelForCausalLM": f"{CODE.stem}.HoloForCausalLM",
        },
        "holo_model": file.header.model,
        "holo_config": config.model_dump(mode="json"),
        "tie_word_embeddings": bool(file.header.shared),
    }


def _own_tensors(file: TensorFile) -> Mapping[str, Tensor]:
    """The weights by the names that they have in `HoloForCausalLM`."""
    return {
        "model." + name.removeprefix(MODEL_PREFIX): file.read(name)
        for name in file.shapes
        if name.startswith(MODEL_PREFIX) and name not in file.header.shared
    }
