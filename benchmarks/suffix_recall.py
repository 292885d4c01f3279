"""What a suffix memory gains from text that has left the context.

    python -m benchmarks.suffix_recall --checkpoint NAME --data data/docs --out rows.jsonl

Reads the validation text in windows of the model's context, one after the other, each from an empty
state. The suffix memory of a window (`model.suffix`) may propose from nothing but the window, from
the last N tokens before it in its document, or, as a control, from as many tokens of other
documents. Adds a JSON row for each N to `--out`: the loss in nats per token over the windows that
have as many tokens before them in their document, all three ways; its difference to the window
alone with the standard error over documents; how often something was proposed from a match of
three tokens or more.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from holo_cli.data.dataset import PreparedData
from holo_cli.errors import UsageError
from holo_cli.experiment.machine import describe_machine
from holo_cli.inference.generation.loaded_model import load
from holo_cli.models.backbone import Backbone

LONG = 3  # tokens of a match that is counted


class DocumentWindow(NamedTuple):
    """A window of a document and what stands before it there."""

    document: int
    ids: list[int]  # with the token to predict after the last
    before: list[int]


def windows(
    documents: Sequence[Sequence[int]], context: int, past: int
) -> Iterator[DocumentWindow]:
    """Whole windows of `context` tokens that have at least `past` tokens before them."""
    for number, ids in enumerate(documents):
        for start in range(0, len(ids) - context, context):
            if start >= past:
                yield DocumentWindow(
                    number, list(ids[start : start + context + 1]), list(ids[start - past : start])
                )


@torch.no_grad()
def losses(
    model: Backbone, window: DocumentWindow, texts: Sequence[Sequence[int]], before: Sequence[int]
) -> tuple[float, float]:
    """Nats per token of a window, and the share of its tokens with a long match."""
    state = model.init_state(1)
    if texts or before:
        state = model.recalling(state, texts, [before])
    ids = torch.tensor([window.ids])
    matches = model.matches(ids[:, :-1], state.suffix)
    logits, _ = model.step(ids[:, :-1], state)
    share = (matches.length >= LONG).float().mean().item()
    return F.cross_entropy(logits[0], ids[0, 1:]).item(), share


def measured(model: Backbone, documents: Sequence[Sequence[int]], past: int) -> dict[str, object]:
    """The row of one number of tokens before the windows."""
    found: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for window in windows(documents, model.config.context, past):
        others = (*documents[window.document + 1 :], *documents[: window.document])
        foreign = [token for ids in others for token in ids][:past]
        for name, texts, before in (
            ("window", [], []),
            ("document", [], window.before),
            ("others", [foreign], []),
        ):
            found[name][window.document].append(losses(model, window, texts, before))
    alone = found["window"]
    if not alone:
        raise UsageError(f"No document has {past} tokens and a window after them.")
    row: dict[str, object] = {
        "past": past, "documents": len(alone), "windows": sum(map(len, alone.values())),
    }  # fmt: skip
    for name, rows in found.items():
        every = [one for some in rows.values() for one in some]
        row[name] = round(statistics.fmean(loss for loss, _ in every), 4)
        row[f"{name}_matched"] = round(statistics.fmean(share for _, share in every), 4)
        gains = [
            statistics.fmean(a - b for (a, _), (b, _) in zip(rows[n], alone[n], strict=True))
            for n in alone
        ]
        if name != "window":
            row[f"{name}_gain"] = round(statistics.fmean(gains), 4)
            spread = statistics.stdev(gains) if len(gains) > 1 else math.nan
            row[f"{name}_error"] = round(spread / math.sqrt(len(gains)), 4)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="checkpoint, as a path or a run's name")
    parser.add_argument("--data", required=True, help="folder of a prepared set")
    parser.add_argument("--past", nargs="+", type=int, default=[128, 512, 2048])
    parser.add_argument("--out", required=True, type=Path, help="file to which rows are added")
    asked = parser.parse_args()
    loaded = load(asked.checkpoint)
    model = loaded.model
    if not isinstance(model, Backbone) or model.suffix is None:
        raise SystemExit("The checkpoint has no suffix memory: train with model.suffix=true.")
    data = PreparedData.open(asked.data)
    ids = data.split("val")[0].tolist()
    ends = [at for at, token in enumerate(ids) if token == data.tokenizer.end]
    documents = [ids[a + 1 : b] for a, b in zip([-1, *ends], [*ends, len(ids)], strict=True)]
    for past in asked.past:
        row = measured(model, documents, past)
        row |= {"data": Path(asked.data).name, "run": loaded.header.run, **describe_machine()}
        with asked.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        print(json.dumps(row))


if __name__ == "__main__":
    main()
