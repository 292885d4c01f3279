"""`holo import`: a GPT-2 folder of `transformers` as a checkpoint of vanilla's classic recipe.

The inverse of `gpt2.py`: same mathematics, other names. Only safetensors are read; a pickled
`pytorch_model.bin` could run code. The folder's `tokenizer.json` comes along.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from holo_cli.checkpoint.find import CONFIG_FILE, WEIGHTS_FILE
from holo_cli.checkpoint.header import Header
from holo_cli.checkpoint.read import MODEL_PREFIX
from holo_cli.checkpoint.rebuild import shapes_only
from holo_cli.checkpoint.write import save
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.data.tokenizers import Tokenizer
from holo_cli.data.tokenizers.base import FILE
from holo_cli.data.tokenizers.bpe import JsonTokenizer
from holo_cli.errors import CheckpointError, DataError
from holo_cli.export.gpt2 import BLOCK, LINEAR, WHOLE
from holo_cli.parsing import ParseError, parse_object, read_bytes
from holo_cli.printable import printable

GELUS = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
# what holo computes one way and GPT-2 may be told to compute otherwise
FIXED = {
    "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True, "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False,
}  # fmt: skip
OURS = {theirs: ours for ours, theirs in BLOCK.items()}
OURS_WHOLE = {theirs.removeprefix("transformer."): ours for ours, theirs in WHOLE.items()}


class NotImportable(CheckpointError):
    """A folder that is not a GPT-2 that holo can compute, with the reason."""

    def __init__(self, folder: Path, why: str, hint: str) -> None:
        message = f"{folder} cannot be imported: {printable(why)}."
        super().__init__(message, next_step=hint)


class Imported(NamedTuple):
    """A written checkpoint: its size in bytes, its parameters, and notes for the user."""

    bytes: int
    parameters: int
    notes: tuple[str, ...]


def import_gpt2(folder: Path, path: Path, run: str) -> Imported:
    """Write the model of a folder to the checkpoint `path` of the run `run`.

    Raises NotImportable, and CheckpointError where the disk fails or a weight is not finite.
    """
    theirs = _config(folder)
    tokenizer = _tokenizer(folder)
    resolved = _resolved(folder, theirs, tokenizer.vocab_size)
    with torch.device("meta"):
        shapes = {
            k: t.shape for k, t in shapes_only("vanilla", resolved.model).state_dict().items()
        }
    tensors, notes = _renamed(folder, _weights(folder), tokenizer.vocab_size)
    tensors["head.weight"] = tensors["token.weight"]  # tied
    _check(folder, tensors, shapes)
    stored = resolved.to_dict()
    header = Header(
        model="vanilla", config=stored["config"], preset=stored["preset"], recipe=stored["recipe"],
        provenance=stored["provenance"], tokenizer=tokenizer.to_dict(), run=run, kind="weights",
    )  # fmt: skip
    size = save(path, header, {MODEL_PREFIX + name: tensor for name, tensor in tensors.items()})
    unique = {t.data_ptr(): t.numel() for t in tensors.values()}
    return Imported(size, sum(unique.values()), notes)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        found = parse_object(read_bytes(path))
    except FileNotFoundError as error:
        raise NotImportable(
            folder, "it has no config.json", "Name the folder that from_pretrained() loads."
        ) from error
    except (OSError, ParseError) as error:
        raise NotImportable(folder, f"its config.json is {error}", "Download it again.") from error
    kind = found.get("model_type")
    if kind != "gpt2":
        raise NotImportable(
            folder, f"its model_type is {kind!r}, and only 'gpt2' has the form of a model here",
            "To export a model of holo: holo export --to hf.",
        )  # fmt: skip
    if found.get("activation_function", "gelu_new") not in GELUS:
        name = found["activation_function"]
        raise NotImportable(folder, f"its activation is {name!r}", f"Known: {', '.join(GELUS)}.")
    for key, value in FIXED.items():
        if found.get(key, value) != value:
            raise NotImportable(
                folder, f"its {key} is {found[key]!r}, and holo computes with {value!r}",
                "There is no such setting in holo.",
            )  # fmt: skip
    return found


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        text = read_bytes(folder / FILE).decode()
    except FileNotFoundError as error:
        raise NotImportable(
            folder, f"it has no {FILE}", "Save it there: AutoTokenizer...save_pretrained(FOLDER)."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise NotImportable(folder, f"its {FILE} is {error}", "Download it again.") from error
    try:
        return JsonTokenizer(text)
    except DataError as error:
        raise NotImportable(
            folder, f"its {FILE} is none: {error.message}", "Download it again."
        ) from error


def _resolved(folder: Path, theirs: Mapping[str, Any], vocabulary: int) -> Resolved:
    try:
        width, inner = theirs["n_embd"], theirs.get("n_inner") or 4 * theirs["n_embd"]
        sizes = {
            "model.layers": theirs["n_layer"],
            "model.heads": theirs["n_head"],
            "model.width": width,
            "model.context": theirs["n_positions"],
            "model.mlp_ratio": inner / width,
            "model.dropout": theirs.get("resid_pdrop", 0.0),
        }
    except (KeyError, TypeError, ZeroDivisionError) as error:
        why = f"its config.json has no usable {error}"
        raise NotImportable(folder, why, "Download it again.") from error
    gelu = GELUS[theirs.get("activation_function", "gelu_new")]
    found = resolve("vanilla", recipe="classic", env={})
    kept = {"model.gelu": gelu, "model.vocab_size": vocabulary}
    return found.replace(sizes | kept, source="the import")


def _weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise NotImportable(
            folder, f"it has no {WEIGHTS_FILE}",
            "Save it there: model.save_pretrained(FOLDER). Pickled weights are not read.",
        )  # fmt: skip
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise NotImportable(
            folder, f"its {WEIGHTS_FILE} is {error}", "Download it again."
        ) from error


def _renamed(
    folder: Path, found: Mapping[str, Tensor], vocabulary: int
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under our names; the embedding has a row for each token of the tokenizer."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in found.items():
        short = name.removeprefix("transformer.")
        if short in OURS_WHOLE:
            tensors[OURS_WHOLE[short]] = tensor
            continue
        if short == "lm_head.weight" or short.endswith((".attn.bias", ".attn.masked_bias")):
            continue  # tied, and the causal mask that older files store
        stem, _, kind = short.rpartition(".")
        place, _, part = stem.partition(".")[2].partition(".")
        if not short.startswith("h.") or part not in OURS:
            why = f"it has a tensor {name!r} that GPT-2 does not have"
            raise NotImportable(folder, why, "Its config.json may be of another model.")
        ours = OURS[part]
        turned = ours in LINEAR and kind == "weight"
        tensors[f"blocks.{place}.{ours}.{kind}"] = tensor.T.contiguous() if turned else tensor
    notes: tuple[str, ...] = ()
    if "token.weight" in tensors and (rows := len(tensors["token.weight"])) != vocabulary:
        table = tensors["token.weight"]
        more = table.new_zeros(max(0, vocabulary - rows), *table.shape[1:])
        tensors["token.weight"] = torch.cat([table[:vocabulary], more])
        notes = (
            f"The embedding has {rows} rows and the tokenizer {vocabulary} tokens: rows without a "
            "token were left out, tokens without a row begin at zero.",
        )
    return tensors, notes


def _check(folder: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise NotImportable(folder, f"it lacks the tensor for {missing[0]!r}", "Download it again.")
    for name, tensor in tensors.items():
        if name not in shapes or tensor.shape != shapes[name]:
            expected = list(shapes[name]) if name in shapes else "no such tensor"
            why = f"{name!r} is {list(tensor.shape)} and its config asks for {expected}"
            raise NotImportable(folder, why, "Download it again.")
