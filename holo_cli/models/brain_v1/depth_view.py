"""The depth page: where tokens exit, how confident each layer is, and what depth costs in loss.

Legend: T tokens, C width, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holo_cli.models.figures import Trace, axis, bar, heat, named, short
from holo_cli.models.views import Picture, See, Table, layer_names, watched
from holo_cli.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel
    from holo_cli.models.brain_v1.model import Model

THRESHOLDS = 10  # points of the frontier, beside that of all layers


def depth(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """Where tokens exit, the confidence of each layer, and the frontier; (T,) int64 tokens."""
    import torch

    from holo_cli.layers.norm import rms_norm
    from holo_cli.models.brain_v1.diagnostics import without_exits
    from holo_cli.models.brain_v1.exits import exit_layers
    from holo_cli.models.brain_v1.model import Model

    assert isinstance(model, Model)
    brain, blocks = model, model.brain_blocks()
    with watched(blocks) as calls, without_exits(brain):
        brain.hidden(tokens[None])
    streams = [result[0][0] for _, result in calls]  # (T, C) each
    exits = exit_layers(brain.config)
    # a gate knows only the layer it was trained at
    asked = exits if brain.exit_gates is not None else range(len(blocks))
    sure = torch.full((len(blocks), len(tokens)), torch.nan)
    for n in asked:
        sure[n] = brain.confidence_after(n, streams[n])
    said = torch.stack([brain.head(rms_norm(x)).argmax(-1) for x in streams])
    agree = (said == said[-1]).float().mean(1)
    settled = (said != said[-1]).flip(0).cumsum(0).eq(0).sum(0)  # (T,) layers that say the same
    settled = len(blocks) + 1 - settled  # the first of them
    passed = brain.depths(tokens[None])[0]
    names = layer_names(len(blocks))[1:]
    pictures = [
        Picture(
            "Where each token exits",
            "The layers that each token passes. For comparison, the first layer from which every "
            "layer predicts the same token as the last: where an ideal rule would exit."
            f"{_state(brain)}",
            {
                "all tokens": [
                    bar("layers passed", range(len(tokens)), passed.tolist(), 0),
                    bar("prediction settled", range(len(tokens)), settled.tolist(), 1),
                ]
            },
            {"xaxis": axis("token"), "yaxis": axis("layer") | {"dtick": _whole(len(blocks))},
             "barmode": "group"},
            token_axes=("xaxis",),
            see=_see(brain, passed, settled),
        ),
        Picture(
            "Confidence of each layer",
            f"Confidence ({brain.config.exit_confidence}) that a token needs no further layer.",
            {"all layers": [{**heat(sure, "%{y}, position %{x}: %{z}"), "y": names}]},
            {"xaxis": axis("token"), "yaxis": {"automargin": True}},
            tables=[
                Table(
                    "Layers as predictors",
                    ["Layer", "Mean confidence", "Agrees with the last layer", "Tokens that exit"],
                    [
                        [name, short(sure[n].mean().item()) if n in asked else "",
                         short(agree[n].item()), int((passed == n + 1).sum())]
                        for n, name in enumerate(names)
                    ],
                )
            ],
            token_axes=("xaxis",),
        ),
    ]  # fmt: skip
    if exits and len(tokens) > 1:
        pictures.append(_frontier(brain, tokens, sure[exits]))
    return pictures


def _state(brain: Model) -> str:
    """What keeps exits from working, and what would make them."""
    return "" if brain.config.exit_loss else (
        " The layers below the last were not trained to predict (model.exit_loss is 0); train with "
        "--set model.exit_loss=1 --set model.exit_confidence=learned."
    )  # fmt: skip


def _see(brain: Model, passed: Tensor, settled: Tensor) -> See:
    """Whether tokens exit and where; if not, what it would save and how to turn it on."""
    threshold, layers = brain.exit_threshold, len(brain.blocks)
    early = float((settled < layers).double().mean())

    def see(labels: Sequence[str]) -> str:
        if threshold > 1:
            return (
                "Exits are off, so every token passes all "
                f"{counted(layers, 'layer')}, though the prediction of {early:.0%} of them is "
                "settled earlier: turn exits on with holo generate --exit-threshold auto, or train "
                "with --set model.exit_threshold=0.9 to see them here."
            )
        mean = passed.double().mean().item()
        first = passed.argsort(stable=True).tolist()
        return (
            f"Tokens exit where their confidence reaches {threshold:g}, after {mean:.1f} of "
            f"{counted(layers, 'layer')} on average: {named(labels, first)} after "
            f"{counted(int(passed.min()), 'layer')}."
        )

    return see


def _frontier(brain: Model, tokens: Tensor, sure: Tensor) -> Picture:
    """Depth against loss at thresholds that single out more and more tokens; sure (E, T)."""
    import torch

    from holo_cli.models.brain_v1.diagnostics import without_exits

    shares = torch.linspace(0, 1, THRESHOLDS, dtype=sure.dtype)
    chosen = [*sure.flatten().quantile(shares).clamp_min(1e-9).tolist(), 2.0]
    points = []
    with without_exits(brain):
        for threshold in chosen:
            brain.exit_threshold = threshold
            x, passed = brain.with_exits(tokens[None])
            points.append((passed.double().mean().item(), _loss(brain, x[0], tokens), threshold))
    points.sort()
    depths, losses, used = zip(*points, strict=True)
    drawn: Trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "thresholds",
        "x": [short(d) for d in depths],
        "y": [short(n) for n in losses],
        "text": [f"{t:.3g}" for t in used],
        "tint": 0,
        "hovertemplate": "%{x} layers, %{y} nats, threshold %{text}<extra></extra>",
    }
    return Picture(
        "What depth costs",
        "Loss of this text against the layers a token passes on average, one point for each "
        "threshold; the point farthest right is that of all layers.",
        {"all tokens": [drawn]},
        {"xaxis": axis("layers per token"), "yaxis": axis("nats per token")},
        tables=[
            Table(
                "Thresholds",
                ["Threshold", "Layers per token", "Nats per token"],
                [[short(t) if t <= 1 else "never", short(d), short(n)] for d, n, t in points],
            )
        ],
    )


def _loss(brain: Model, x: Tensor, tokens: Tensor) -> float:
    """Mean nats of each next token by the streams x (T, C)."""
    from torch.nn.functional import cross_entropy

    from holo_cli.layers.norm import rms_norm

    return cross_entropy(brain.head(rms_norm(x[:-1])), tokens[1:]).item()


def _whole(layers: int) -> int:
    """Layers from one mark of an axis to the next, so that there are at most a dozen."""
    return -(-layers // 12)
