"""Which loss of a finished run is for what: one chooses among runs, another is reported.

Rows from before the validation part was split have one loss over all of it.
"""

from __future__ import annotations

from holo_cli.bench.experiment.result_log import Row


def tune_loss(row: Row) -> float:
    """Nats per token on the text that rates and settings are chosen by."""
    return float(row["tune_loss"] if "tune_loss" in row else row["val_loss"])


def test_loss(row: Row) -> float:
    """Nats per token on the text that chose nothing: what is reported."""
    return float(row["test_loss"] if "test_loss" in row else row["val_loss"])


def test_bpb(row: Row) -> float:
    """Bits per byte of the reported text."""
    return float(row["test_bpb"] if "test_bpb" in row else row["bpb"])


def is_split(row: Row) -> bool:
    """Whether the row's losses are of two texts."""
    return "test_loss" in row
