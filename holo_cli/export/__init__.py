"""`holo export`: a checkpoint for other places (`targets.py` says which), and `holo import`: a
model of another place as a checkpoint (`import_folder.py`)."""

from holo_cli.export.targets import TARGETS, ExportResult, Target, export

__all__ = ["TARGETS", "ExportResult", "Target", "export"]
