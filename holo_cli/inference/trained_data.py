"""Opens what a checkpoint was trained on."""

from __future__ import annotations

from holo_cli.checkpoint.header import DataInfo
from holo_cli.data.combined import combine
from holo_cli.data.dataset import PreparedData


def open_trained(info: DataInfo) -> PreparedData:
    """The prepared set that a header names, or the several sets. Raises DataError."""
    if info.sets:
        return combine([one.path for one in info.sets], [one.weight for one in info.sets])
    return PreparedData.open(info.path)
