"""`holo export`: a checkpoint for other places. `targets.py` says which, `gpt2.py` is the one
architecture that `transformers` has too."""

from holo_cli.export.targets import TARGETS, ExportResult, Target, export

__all__ = ["TARGETS", "ExportResult", "Target", "export"]
