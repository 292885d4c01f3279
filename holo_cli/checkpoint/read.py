"""Reading checkpoints: the header alone, or with its tensors, from one file or exported folder.

`TensorFile` keeps one file open, so header and tensors are of one moment even while a trainer
renames a newer checkpoint into place. Tensors are read into their own memory: nothing stays mapped,
so the file may be replaced or deleted afterwards on every system.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from holo_cli.checkpoint.digest import Verified
from holo_cli.checkpoint.find import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    is_exported,
    known_runs,
    split_run,
)
from holo_cli.checkpoint.header import PARTS_FORMAT, Header, damaged, short_line
from holo_cli.checkpoint.parts import PartsContainer, open_container
from holo_cli.checkpoint.renames import current_name
from holo_cli.errors import CheckpointError, HoloError, nearest
from holo_cli.parsing import ParseError, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.data.tokenizers import Tokenizer

MODEL_PREFIX = "model/"


class TensorFile:
    """An open checkpoint: `header`, `container`, and tensors by name on demand.

    Names carry the prefix of their part ("model/", "optimizer/", ...); an exported folder holds
    weights only, stored without prefix, and looks here as if it had one. A shared tensor answers
    to each of its names; names of older formats are today's (`renames.py`). Use as a context
    manager. `framework` "np" reads the header without importing torch. Raises CheckpointError.
    """

    def __init__(self, path: Path, framework: Literal["pt", "np"] = "pt") -> None:
        self.path = Path(path)
        exported = self.path.is_dir()
        source = self.path / WEIGHTS_FILE if exported else self.path
        if exported and not is_exported(self.path):
            raise CheckpointError(
                f"The folder {path} holds no exported model ({CONFIG_FILE} and {WEIGHTS_FILE}).",
                next_step="Give a .safetensors file, a run's name, or a folder by `holo export`.",
            )
        try:
            self.container = open_container(source, framework)
        except FileNotFoundError as error:
            raise _missing(self.path) from error
        except OSError as error:
            raise CheckpointError(
                f"Cannot read the checkpoint {path}: {error.strerror}.",
                next_step="Check the file's permissions.",
            ) from error
        if exported:
            self.header = _folder_header(self.path)
        else:
            self.header = Header.from_json(self.container.holo_metadata(), source)
        model, version = self.header.model, self.header.format
        if (version == PARTS_FORMAT) != isinstance(self.container, PartsContainer):
            raise damaged(source, f"its format {version} does not fit where its tensors are")
        self._stored = {
            current_name(MODEL_PREFIX + name if exported else name, model, version): info
            for name, info in self.container.tensors.items()
        }
        if len(self._stored) < len(self.container.tensors):
            raise damaged(source, "it has a tensor under its old name and under its new one")
        shared = {
            current_name(name, model, version): current_name(kept, model, version)
            for name, kept in self.header.shared.items()
        }
        self.header = self.header.model_copy(update={"shared": shared})
        # a folder's config.json is for people to read and edit: it has no digest of its own
        if not exported:
            self.container.check_header(bool(self.header.digests))
        if self.header.digests and self.header.digests.keys() != self._stored.keys():
            names = sorted(self.header.digests.keys() ^ self._stored.keys())
            raise damaged(source, f"the tensor '{names[0]}' and the digests do not fit")
        for name, kept in self.header.shared.items():
            if kept not in self._stored or name in self._stored:
                raise damaged(source, f"its tensor '{name}' should be '{kept}'")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name, shared names included."""
        shapes = {name: info.shape for name, info in self._stored.items()}
        return shapes | {name: shapes[kept] for name, kept in self.header.shared.items()}

    def dtype(self, name: str) -> str:
        """The format's name of a tensor's dtype, such as "F32" or "BF16"."""
        return self._stored[self.header.shared.get(name, name)].dtype

    def read(self, name: str) -> Tensor:
        """One tensor on the CPU, in memory of its own, with the dtype it is stored in.

        Raises CheckpointError where it differs from its digest.
        """
        name = self.header.shared.get(name, name)
        stored, expected = self._stored[name].name, self.header.digests.get(name)
        tensor: Tensor = self.container.checked(stored, expected)
        return tensor

    def rows(self, name: str, first: int, count: int) -> Tensor:
        """Some rows of a tensor, in memory of their own; of a checkpoint in parts no more is read
        than the parts that have them. Raises CheckpointError."""
        name = self.header.shared.get(name, name)
        stored, expected = self._stored[name].name, self.header.digests.get(name)
        found: Tensor = self.container.rows(stored, first, count, expected)
        return found

    def verify(self) -> Verified:
        """Every tensor against its digest, and values that are no numbers. Needs no torch."""
        prefix = MODEL_PREFIX if self.path.is_dir() else ""
        own = {n.removeprefix(prefix): value for n, value in self.header.digests.items()}
        try:
            found = self.container.verify(own if prefix else None)
        except OSError as error:
            raise damaged(self.path, f"it cannot be read to its end ({error})") from error
        return Verified(
            found.checked,
            [prefix + name for name in found.damaged],
            {prefix + name: count for name, count in found.not_finite.items()},
        )

    def read_all(self, prefix: str = "") -> dict[str, Tensor]:
        """Every tensor by name, or those that begin so; shared names give the same tensor
        object."""
        tensors = {name: self.read(name) for name in self._stored if name.startswith(prefix)}
        shared = {name: kept for name, kept in self.header.shared.items() if kept in tensors}
        return tensors | {name: tensors[kept] for name, kept in shared.items()}

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the header holds. Raises CheckpointError."""
        from holo_cli.data.tokenizers import tokenizer_from_dict

        try:
            return tokenizer_from_dict(self.header.tokenizer)
        except HoloError as error:
            raise CheckpointError(
                f"The tokenizer in the checkpoint {self.path} cannot be used: "
                f"{short_line(error.message)}",
                next_step=error.next_step or "Copy the checkpoint again from where it came.",
            ) from error
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise damaged(self.path, f"its tokenizer's description fails ({error})") from error

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read from it then."""
        del self.container


def read_header(path: str | Path) -> Header:
    """The header of a checkpoint file or exported folder; no tensor is read, torch not imported."""
    with TensorFile(Path(path), "np") as file:
        return file.header


def _folder_header(folder: Path) -> Header:
    """The header of `holo export --to dir`: config.json, and the tokenizer's own file beside it."""
    from holo_cli.data.tokenizers import load_tokenizer

    config = folder / CONFIG_FILE
    try:
        found = read_json(config)
    except ParseError as error:
        raise damaged(config, f"it is {error}") from error
    if not isinstance(found, dict) or "format" not in found:
        raise CheckpointError(
            f"The folder {folder} was not made by `holo export --to dir`.",
            next_step="Give a .safetensors file, a run's name, or a folder by `holo export`.",
        )
    return Header.from_dict(found | {"tokenizer": load_tokenizer(folder).to_dict()}, config)


def _missing(path: Path) -> CheckpointError:
    runs = list(known_runs(path.parent))
    run, _ = split_run(path)
    hint = nearest(run, runs) if runs else "`holo train --model vanilla` makes one."
    return CheckpointError(f"There is no checkpoint at {path}.", next_step=hint)
