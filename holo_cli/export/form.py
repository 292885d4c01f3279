"""How an architecture of `transformers` and a recipe of vanilla say the same thing.

Only names differ, and for GPT-2 the layout of matrices, (in, out) instead of (out, in).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holo_cli.config.model_schema import ModelConfig
from holo_cli.export.folder_files import AGAIN, NotImportable


@dataclass(frozen=True)
class Form:
    """`whole` and `block` map our names to theirs: of the model, and of the parts of a block.

    `settings(folder, config)` gives our `model.` keys for their config, `written(config)` theirs
    for ours. `root` is what their names may begin with, `layers` what a block's continue with.
    """

    recipe: str
    root: str
    layers: str
    whole: Mapping[str, str]
    block: Mapping[str, str]
    settings: Callable[[Path, Mapping[str, Any]], dict[str, Any]]
    written: Callable[[ModelConfig], dict[str, Any]]
    transposed: frozenset[str] = frozenset()
    derived: tuple[str, ...] = ()  # ends of names of tensors that older files store for nothing

    def theirs(self, name: str) -> tuple[str, bool]:
        """Their name of our tensor, and whether its matrix is transposed there."""
        if name in self.whole:
            return self.whole[name], False
        _, layer, part, kind = name.split(".")
        turned = part in self.transposed and kind == "weight"
        return f"{self.root}{self.layers}.{layer}.{self.block[part]}.{kind}", turned

    def ours(self, name: str) -> tuple[str, bool] | None:
        """Our name of their tensor, and whether its matrix is transposed there; None for a name
        that the architecture does not have."""
        short = name.removeprefix(self.root)
        for own, foreign in self.whole.items():
            if foreign.removeprefix(self.root) == short:
                return own, False
        stem, _, kind = short.rpartition(".")
        before, _, rest = stem.partition(".")
        layer, _, part = rest.partition(".")
        found = next((own for own, foreign in self.block.items() if foreign == part), None)
        if before != self.layers or found is None or not layer.isdecimal():
            return None
        return f"blocks.{layer}.{found}.{kind}", found in self.transposed and kind == "weight"


def whole_number(folder: Path, theirs: Mapping[str, Any], key: str, default: Any = None) -> int:
    """A size of their config. Raises NotImportable for anything that is none."""
    value = theirs.get(key)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise NotImportable(folder, f"its config.json has no usable {key!r}", AGAIN)
    return value


def real_number(folder: Path, theirs: Mapping[str, Any], key: str, default: float) -> float:
    """A number of their config. Raises NotImportable for anything that is none."""
    value = theirs.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotImportable(folder, f"its config.json has no usable {key!r}", AGAIN)
    return float(value)


def check_fixed(folder: Path, theirs: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Raises NotImportable where they may compute in another way than holo and do."""
    for key, value in fixed.items():
        found = theirs.get(key)
        if found is not None and found != value:
            raise NotImportable(
                folder, f"its {key} is {found!r}, and holo computes with {value!r}",
                "There is no such setting in holo.",
            )  # fmt: skip
