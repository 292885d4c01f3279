"""What the suffix memory of a model proposed along a text, for its model's pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holo_cli.errors import UsageError
from holo_cli.models.figures import axis, line, named, short
from holo_cli.models.views import Picture, See, Table, watched
from holo_cli.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.backbone import Backbone
    from holo_cli.models.base import LanguageModel

LEVELS = ("1", "2", "3 to 4", "5 to 8", "9 to 16", "17 or more")  # tokens that matched


def suffix(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """The page `suffix` of a model; (T,) int64 tokens."""
    from holo_cli.models.backbone import Backbone

    if not isinstance(model, Backbone) or model.suffix is None:
        raise UsageError(
            "This model was trained without a suffix memory (model.suffix is false).",
            next_step="Train with --set model.suffix=true.",
        )
    return [proposals(model, tokens)]


def proposals(model: Backbone, tokens: Tensor) -> Picture:
    """(T,) int64 -> lengths of matches, gates, and which proposals were right; the model has a
    suffix memory. The last token has no next one, so what is proposed after it is left out."""
    import torch

    from holo_cli.layers.suffix import LONGEST

    memory = model.suffix
    assert memory is not None
    with watched([memory]) as calls:
        model.hidden(tokens[None])
    x = calls[0][0]
    matches = model.matches(tokens[None], None)
    gate = memory.gate(x, matches)[0, :-1].float()
    length, right = matches.length[0, :-1], matches.proposed[0, :-1] == tokens[1:]
    made = length > 0
    hits = (made & right).nonzero()[:, 0]
    level = torch.bucketize(length, torch.tensor(LONGEST, device=length.device))
    rows = []
    for number, label in enumerate(LEVELS):
        of_level = made & (level == number)
        count = int(of_level.sum())
        if count:
            share = int((of_level & right).sum()) / count
            rows.append([label, count, short(share), short(float(gate[of_level].mean()))])
    positions = range(len(length))
    return Picture(
        "What the suffix memory proposed",
        "At each token the number of tokens before it that stood together earlier in the text, and "
        "the gate by which what followed them is made more likely. Circles: the proposed token "
        "came next.",
        {
            "all": [
                line("tokens that match", positions, length, 0),
                line("gate", positions, gate, 1),
                {
                    **line("came next", hits.tolist(), length[hits], 2),
                    "mode": "markers",
                    "marker": {"size": 10, "symbol": "circle-open"},
                },
            ]
        },
        {"xaxis": axis("token"), "yaxis": axis("tokens that match, gate")},
        see=_seen(len(length), int(made.sum()), hits.tolist(), length),
        tables=[Table("Proposals", ["Tokens that match", "Proposed", "Came next", "Gate"], rows)],
        token_axes=("xaxis",),
    )


def _seen(total: int, made: int, hits: list[int], length: Tensor) -> See:
    longest = sorted(hits, key=lambda at: -int(length[at]))

    def see(labels: Sequence[str]) -> str:
        if not made:
            return (
                "No token of this text stood in it before, so nothing is proposed: try one that "
                "repeats itself."
            )
        if not hits:
            return (
                f"The suffix memory proposes the next token at {made} of "
                f"{counted(total, 'token')}, and none of its proposals comes next."
            )
        return (
            f"The suffix memory proposes the next token at {made} of {counted(total, 'token')}, "
            f"and {100 * len(hits) / made:.0f} % of its proposals come next; the longest match "
            f"that was right ends at {named(labels, longest, most=1)}."
        )

    return see
