"""`holo import`: a folder of `transformers` as a checkpoint of vanilla, with its tokenizer.

The way back of `hf_folder.py`, for the architectures of `foreign.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holo_cli.checkpoint.header import Header
from holo_cli.checkpoint.read import MODEL_PREFIX
from holo_cli.checkpoint.rebuild import shapes_only
from holo_cli.checkpoint.write import save
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.errors import UsageError
from holo_cli.export.folder_files import (
    AGAIN,
    NotImportable,
    read_config,
    read_tokenizer,
    read_weights,
)
from holo_cli.export.foreign import FORMS
from holo_cli.export.form import Form

TABLES = ("token.weight", "head.weight")  # with a row for each token


class Imported(NamedTuple):
    """A written checkpoint: its size in bytes, its parameters, and notes for the user."""

    bytes: int
    parameters: int
    notes: tuple[str, ...]


def import_folder(folder: Path, path: Path, run: str) -> Imported:
    """Write the model of a folder to the checkpoint `path` of the run `run`.

    Raises NotImportable, and CheckpointError where the disk fails or a weight is not finite.
    """
    theirs = read_config(folder)
    form = _form(folder, theirs)
    settings = form.settings(folder, theirs)
    tokenizer = read_tokenizer(folder, _end(theirs))
    resolved = _resolved(folder, form, settings | {"vocab_size": tokenizer.vocab_size})
    try:
        shapes = {
            k: t.shape for k, t in shapes_only("vanilla", resolved.model).state_dict().items()
        }
    except ValueError as error:
        raise NotImportable(folder, f"no model fits its config ({error})", AGAIN) from error
    tensors = _renamed(folder, form, read_weights(folder))
    _tie(folder, tensors, tied="tied" not in settings or settings["tied"])
    notes = _fit_vocabulary(tensors, tokenizer.vocab_size)
    _check(folder, tensors, shapes)
    stored = resolved.to_dict()
    header = Header(
        model="vanilla", config=stored["config"], preset=stored["preset"], recipe=stored["recipe"],
        provenance=stored["provenance"], tokenizer=tokenizer.to_dict(), run=run, kind="weights",
    )  # fmt: skip
    size = save(path, header, {MODEL_PREFIX + name: tensor for name, tensor in tensors.items()})
    unique = {t.data_ptr(): t.numel() for t in tensors.values()}
    return Imported(size, sum(unique.values()), notes)


def _form(folder: Path, theirs: Mapping[str, Any]) -> Form:
    kind = theirs.get("model_type")
    if kind == "holo":
        raise NotImportable(
            folder, "it is an export of holo itself", "Use the checkpoint it was made from."
        )
    if not isinstance(kind, str) or kind not in FORMS:
        known = ", ".join(FORMS)
        raise NotImportable(
            folder, f"its model_type is {kind!r}, and vanilla has no form like that",
            f"These have one: {known}.",
        )  # fmt: skip
    return FORMS[kind]


def _end(theirs: Mapping[str, Any]) -> int | None:
    """The id of their mark at the end of a text."""
    found = theirs.get("eos_token_id")
    found = found[0] if isinstance(found, list) and found else found
    return found if type(found) is int else None


def _resolved(folder: Path, form: Form, settings: Mapping[str, Any]) -> Resolved:
    found = resolve("vanilla", recipe=form.recipe, env={})
    try:
        return found.replace(
            {f"model.{key}": value for key, value in settings.items()}, source="the import"
        )
    except UsageError as error:
        why = error.message.rstrip(".")
        raise NotImportable(folder, f"its config.json fits no model ({why})", AGAIN) from error


def _renamed(folder: Path, form: Form, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in found.items():
        if name.endswith(form.derived):
            continue
        own = form.ours(name)
        if own is None:
            why = f"it has a tensor {name!r} that its architecture does not have"
            raise NotImportable(folder, why, "Its config.json may be of another model.")
        ours, turned = own
        tensors[ours] = tensor.T.contiguous() if turned else tensor
    return tensors


def _tie(folder: Path, tensors: dict[str, Tensor], *, tied: bool) -> None:
    """Let the head be the embedding where `tied`. Raises NotImportable where the two differ."""
    if not tied or "token.weight" not in tensors:
        return
    head = tensors.get("head.weight")
    if head is not None and not torch.equal(head, tensors["token.weight"]):
        raise NotImportable(
            folder, "its config.json ties the head to the embedding and they differ", AGAIN
        )
    tensors["head.weight"] = tensors["token.weight"]


def _fit_vocabulary(tensors: dict[str, Tensor], vocabulary: int) -> tuple[str, ...]:
    """Give each token of the tokenizer a row: one without becomes the mean of all, whose logit is
    the mean logit. (That of zeros is 0, which in GPT-2 is above all others.)"""
    tables = [name for name in TABLES if name in tensors and tensors[name].dim() == 2]
    rows = {len(tensors[name]) for name in tables}
    made: dict[int, Tensor] = {}
    for name in tables:
        table = tensors[name]
        if table.data_ptr() not in made:
            more = table.mean(0, keepdim=True).expand(max(0, vocabulary - len(table)), -1)
            fitted = torch.cat([table[:vocabulary], more]) if len(table) != vocabulary else table
            made[table.data_ptr()] = fitted
        tensors[name] = made[table.data_ptr()]
    if rows <= {vocabulary}:
        return ()
    message = (
        f"The embedding has {min(rows)} rows and the tokenizer {vocabulary} tokens: rows without a "
        "token were left out, tokens without a row begin at the mean of the others."
    )
    return (message,)


def _check(folder: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise NotImportable(folder, f"it lacks the tensor for {missing[0]!r}", AGAIN)
    for name, tensor in tensors.items():
        if name not in shapes or tensor.shape != shapes[name]:
            expected = list(shapes[name]) if name in shapes else "no such tensor"
            why = f"{name!r} is {list(tensor.shape)} and its config asks for {expected}"
            raise NotImportable(folder, why, AGAIN)
