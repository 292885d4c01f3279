"""The files of a `transformers` folder, which anybody may have made: each fault is one sentence.

Only safetensors are read; a pickled `pytorch_model.bin` could run code. An index may name files of
this folder alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from holo_cli.checkpoint.find import CONFIG_FILE, WEIGHTS_FILE
from holo_cli.data.tokenizers import Tokenizer
from holo_cli.data.tokenizers.base import FILE
from holo_cli.data.tokenizers.bpe import JsonTokenizer
from holo_cli.errors import CheckpointError, DataError
from holo_cli.export.tokenizer_files import with_own_end
from holo_cli.parsing import ParseError, parse_object, read_bytes
from holo_cli.printable import printable

INDEX_FILE = WEIGHTS_FILE + ".index.json"
AGAIN = "Download it again."


class NotImportable(CheckpointError):
    """A folder whose model holo cannot compute or read, with the reason."""

    def __init__(self, folder: Path, why: str, hint: str) -> None:
        message = f"{folder} cannot be imported: {printable(why)}."
        super().__init__(message, next_step=hint)


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json."""
    if not folder.is_dir():
        raise NotImportable(
            folder, "it is no folder", "Name the folder that from_pretrained() loads."
        )
    found = _object(folder, CONFIG_FILE)
    if found is None:
        raise NotImportable(
            folder, "it has no config.json", "Name the folder that from_pretrained() loads."
        )
    return found


def read_tokenizer(folder: Path, end: int | None) -> Tokenizer:
    """The folder's tokenizer, with its token `end` as the mark between documents."""
    found = _object(folder, FILE)
    if found is None:
        raise NotImportable(
            folder, f"it has no {FILE}", "Save it there: AutoTokenizer...save_pretrained(FOLDER)."
        )
    try:
        JsonTokenizer(json.dumps(found))  # its faults are named before anything is changed
        return JsonTokenizer(json.dumps(with_own_end(found, end)))
    except DataError as error:
        raise NotImportable(
            folder, f"its {FILE} is no tokenizer: {error.message}", AGAIN
        ) from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of model.safetensors, or of the shards that its index names, in float32."""
    if (folder / WEIGHTS_FILE).exists():
        return _tensors(folder, WEIGHTS_FILE, None)
    index = _object(folder, INDEX_FILE)
    if index is None:
        raise NotImportable(
            folder, f"it has no {WEIGHTS_FILE}",
            "Save it there: model.save_pretrained(FOLDER). Pickled weights are not read.",
        )  # fmt: skip
    names = index.get("weight_map")
    if (
        not isinstance(names, dict)
        or not names
        or not all(isinstance(shard, str) for shard in names.values())
    ):
        raise NotImportable(folder, f"its {INDEX_FILE} has no table of files", AGAIN)
    shards: dict[str, list[str]] = {}
    for tensor, shard in names.items():
        shards.setdefault(shard, []).append(tensor)
    for shard in shards:
        if not _is_plain_name(shard):
            raise NotImportable(
                folder, f"its {INDEX_FILE} names {shard!r}, which is no file of this folder",
                "Do not use this folder: such an index reads files from elsewhere.",
            )  # fmt: skip
        if not (folder / shard).is_file():
            raise NotImportable(folder, f"it lacks {shard!r}, which its {INDEX_FILE} names", AGAIN)
    found: dict[str, Tensor] = {}
    for shard, tensors in shards.items():
        found |= _tensors(folder, shard, tensors)
    return found


def _is_plain_name(name: str) -> bool:
    """Whether a name is of a safetensors file of the folder itself, on every system."""
    return name.endswith(".safetensors") and not any(mark in name for mark in "/\\:\0")


def _tensors(folder: Path, name: str, wanted: list[str] | None) -> dict[str, Tensor]:
    try:
        with safe_open(folder / name, framework="pt") as file:
            there = set(file.keys())
            for tensor in wanted or ():
                if tensor not in there:
                    raise NotImportable(folder, f"{name!r} lacks the tensor {tensor!r}", AGAIN)
            return {key: file.get_tensor(key).float() for key in wanted or sorted(there)}
    except (SafetensorError, OSError) as error:
        raise NotImportable(folder, f"its {name} is {error}", AGAIN) from error


def _object(folder: Path, name: str) -> dict[str, Any] | None:
    """A JSON file of the folder; None where there is none."""
    try:
        return parse_object(read_bytes(folder / name))
    except FileNotFoundError:
        return None
    except (OSError, ParseError) as error:
        raise NotImportable(folder, f"its {name} is {error}", AGAIN) from error
