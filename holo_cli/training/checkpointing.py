"""What a run's checkpoints hold: the header that rebuilds the model, and the moment's tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from holo_cli import registry
from holo_cli.checkpoint import DataInfo, Header, Losses, run_path, save
from holo_cli.checkpoint.header import ChatFormat, Origin, SetInfo, StageRow
from holo_cli.checkpoint.parts import clear_parts
from holo_cli.config.resolve import Resolved
from holo_cli.data.combined import CombinedData
from holo_cli.data.dataset import PreparedData
from holo_cli.paths import CHECKPOINTS
from holo_cli.training.distributed import processes
from holo_cli.training.state import Progress

Kind = Literal["best", "last", "weights"]


class CheckpointWriter:
    """Writes `checkpoints/RUN_best` and `RUN_last` of one run."""

    def __init__(
        self,
        resolved: Resolved,
        data: PreparedData,
        name: str,
        *,
        replaces: bool,
        origins: Sequence[Origin] = (),
    ) -> None:
        """`replaces`: the first save ends an older run of this name."""
        self.resolved, self.data, self.name, self.replaces = resolved, data, name, replaces
        self.origins = list(origins)
        self.processes = processes()

    def header(self, kind: Kind, progress: Progress) -> Header:
        """Everything but the tensors, as of now."""
        config = self.resolved.to_dict()
        return Header(
            model=self.resolved.model_name,
            needs=registry.needs(self.resolved.model_name),
            config=config["config"],
            preset=config["preset"],
            recipe=config["recipe"],
            provenance=config["provenance"],
            tokenizer=self.data.tokenizer.to_dict(),
            step=progress.step,
            tokens=progress.tokens,
            losses=Losses(
                train=progress.train_loss,
                val=progress.val_loss,
                bpb=progress.bpb,
                best_val=progress.best_val,
            ),
            data=DataInfo(
                name=self.data.name,
                path=self.data.path.as_posix(),
                fingerprint=self.data.fingerprint,
                documents=self.data.document_count("train"),
                languages=self.data.languages,
                markers=self.data.has_markers,
                chat=ChatFormat() if self.data.has_chat else None,
                sets=_sets(self.data),
            ),
            run=self.name,
            processes=self.processes,
            kind=kind,
            history=progress.history,
            origins=self.origins,
            stages=[StageRow(**row) for row in progress.stages],
            state=progress.to_dict() if kind == "last" else {},
        )

    def save(self, kind: Kind, progress: Progress, tensors: Mapping[str, Tensor]) -> Path:
        """Write one of the run's files; the path."""
        path = run_path(CHECKPOINTS, self.name, kind)
        save(path, self.header(kind, progress), tensors)
        self.end_older(kind)
        return path

    def end_older(self, kind: Kind) -> None:
        """After the first save, of this kind: delete the other file of an older run of the name."""
        if self.replaces:
            other = run_path(CHECKPOINTS, self.name, "last" if kind == "best" else "best")
            other.unlink(missing_ok=True)
            clear_parts(other)
            self.replaces = False


def _sets(data: PreparedData) -> list[SetInfo]:
    if not isinstance(data, CombinedData):
        return []
    return [
        SetInfo(
            name=label,
            path=part.path.as_posix(),
            fingerprint=part.fingerprint,
            weight=weight,
            documents=part.document_count("train"),
        )
        for label, part, weight in zip(data.labels, data.parts, data.weights, strict=True)
    ]
