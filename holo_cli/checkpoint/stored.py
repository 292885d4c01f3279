"""The tensors of a checkpoint as a mapping that reads them on demand, whole or some rows.

A process of a sharded run needs some rows of every tensor: with this it reads no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from holo_cli.checkpoint.read import TensorFile


class StoredTensors(Mapping[str, Tensor]):
    """Tensors of an open file whose names begin with `prefix`, by the rest of their names, but for
    those that `without` holds for. `close` closes the file for all made from this one."""

    def __init__(
        self, file: TensorFile, prefix: str = "", without: Callable[[str], bool] | None = None
    ) -> None:
        self._file, self._prefix, self._without = file, prefix, without
        self._shapes = {
            name.removeprefix(prefix): shape
            for name, shape in file.shapes.items()
            if name.startswith(prefix) and not (without and without(name))
        }

    def close(self) -> None:
        """Close the file: an open one cannot be replaced on every system."""
        self._file.close()

    def part(self, prefix: str) -> StoredTensors:
        """Those whose names begin with `prefix`, without it."""
        return StoredTensors(self._file, self._prefix + prefix, self._without)

    def leaving_out(self, prefix: str) -> StoredTensors:
        """Those whose names do not begin with `prefix`."""
        return StoredTensors(self._file, self._prefix, lambda name: name.startswith(prefix))

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._shapes:
            raise KeyError(name)
        return self._file.read(self._prefix + name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        return self._shapes[name]

    def is_floating_point(self, name: str) -> bool:
        """Whether a tensor's values are floating point numbers, without reading it."""
        return self._file.dtype(self._prefix + name).startswith(("F", "BF"))

    def rows(self, name: str, first: int, count: int) -> Tensor:
        """Some rows of a tensor."""
        return self._file.rows(self._prefix + name, first, count)
