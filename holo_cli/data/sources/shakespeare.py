"""Tiny Shakespeare, a common first dataset for small language models.

The three splits on the hub concatenated are the original file. The usual train/validation split is
by position: the first 90 % of the characters are training text. It is kept here, so that losses are
comparable with published ones. The hub's repository is a script, which `datasets` no longer runs;
this reads its parquet conversion.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from holo_cli.data.document import Document
from holo_cli.data.network import hub_endpoint, hub_offline, reachable
from holo_cli.data.sources.base import Request, Source, Stream, numbered_chunks
from holo_cli.data.sources.found import find_files
from holo_cli.data.sources.local import read_whole
from holo_cli.errors import DataError

HUB_ID = "karpathy/tiny_shakespeare"
REVISION = "refs/convert/parquet"
SPLITS = ("train", "validation", "test")
TRAIN_SHARE = 0.9
_OTHER_TEXT = (
    "Use your own file (holo prepare shakespeare --source FILE) or the embedded text (holo prepare "
    "stories)."
)


def open_shakespeare(request: Request) -> Source:
    """Open `--source FILE` or the hub's text: two documents, one per split."""
    if request.source is not None:
        paths = find_files(request.source, request.scratch).paths
        if len(paths) > 1:
            raise DataError(
                f"{request.source} has {len(paths)} files; Shakespeare is one.",
                next_step="Give the file with --source, or your text another name.",
            )
        text = read_whole(paths[0], request.encoding)
        origin: dict[str, Any] = {"source": request.source}
    else:
        text = download(offline=request.offline)
        origin = {"hub": HUB_ID, "revision": REVISION}
    if not text.strip():
        raise DataError(f"{request.source or HUB_ID} is empty.", next_step="Check --source.")
    if request.max_bytes is not None:
        text = text.encode("utf-8")[: request.max_bytes].decode("utf-8", errors="ignore")
    at = int(len(text) * TRAIN_SHARE)

    def documents(counts: Counter[str]) -> Iterator[Document]:
        yield Document(text[:at], language="en", source=request.name, split="train")
        yield Document(text[at:], language="en", source=request.name, split="val")

    return Source(
        name=request.name,
        streams=(Stream(numbered_chunks(documents), request.name, "en"),),
        identity={"sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()},
        description={"name": request.name, "licence": "public domain", **origin},
        total_bytes=len(text.encode("utf-8")),
    )


def download(repository: str = HUB_ID, *, offline: bool = False) -> str:
    """The whole text from the hub (streamed), or offline from the hub's local cache."""
    offline = offline or hub_offline()
    if not offline and not reachable(hub_endpoint()):
        raise DataError(
            f"Shakespeare has to be downloaded from {hub_endpoint()}, which does not respond.",
            next_step=_OTHER_TEXT,
        )
    if offline:  # the libraries read both variables on import
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    parts: list[str] = []
    try:
        for split in SPLITS:
            rows = datasets.load_dataset(
                repository, revision=REVISION, split=split, streaming=not offline
            )
            parts += [str(row["text"]) for row in rows]
    except (OSError, ValueError, HfHubHTTPError, datasets.exceptions.DatasetsError) as error:
        cause = str(error).splitlines()[0]
        if offline:
            raise DataError(
                f"{repository} could not be read from the local cache of the hub: {cause}",
                next_step=_OTHER_TEXT,
            ) from error
        raise DataError(
            f"{repository} could not be read from {hub_endpoint()}: {cause}", next_step=_OTHER_TEXT
        ) from error
    return "".join(parts)
