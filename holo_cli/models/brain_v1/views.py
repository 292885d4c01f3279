"""brain-v1's pages: which columns fire for which tokens, where tokens exit, attention weights.

One forward pass over the text records the input of each part; what the pass does not keep (the
columns chosen, the outputs of units) is recomputed from it.
Legend: T tokens, N = B T, G columns, U hidden units, L layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holo_cli.models.figures import axis, bar, heat, short
from holo_cli.models.views import Picture, Table, Tokens, Weights, layer_names, watched
from holo_cli.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel
    from holo_cli.models.brain_v1.model import Model

PAGES = {
    "columns": "which columns fire for which tokens, and how many units of each layer do",
    "depth": "after which layer each token is confident enough to exit",
    "attention": "which earlier tokens each token looks at",
}
TYPICAL = 12  # tokens named per column


# -- columns --------------------------------------------------------------------------------------


def columns(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """The output of each column for each token, and the measured activity; (T,) int64 tokens."""
    from holo_cli.models.brain_v1.diagnostics import feeding

    sends, rows, tables, held = {}, [], [], {}
    for name, (part, x) in zip(_names(model), feeding(_brain(model), tokens[None]), strict=True):
        sent, could = part.unit_outputs(x)
        energy = sent.float().unflatten(1, (part.columns, -1)).square().mean(2).sqrt()  # (T, G)
        sends[name] = [heat(energy.T, "column %{y}, position %{x}: %{z}")]
        firing = (sent != 0).float().mean(1)  # (T,)
        rows.append(
            [name, short(could.float().mean().item()), short(firing.mean().item()),
             short(firing.min().item()), short(firing.max().item())]
        )  # fmt: skip
        tables.append(_typical(name, energy))
        if part.inhibition is not None:
            held[name] = [heat(part.inhibition.weights(), "column %{x} on column %{y}: %{z}")]
    activity = Table(
        "Measured activity",
        ["Layer", "Units that may fire", "Units that do, mean", "least", "most"],
        rows,
    )
    names = [str(row[0]) for row in rows]
    pictures = [
        Picture(
            "Which columns fire for which tokens",
            "Output of each column for each token: the root mean square over its units. The "
            "background colour is zero.",
            sends,
            {"xaxis": axis("token"), "yaxis": axis("column")},
            choice="Layer",
            tables=tables,
            token_axes=("xaxis",),
        ),
        Picture(
            "How many units fire",
            "The share of a layer's hidden units that may fire for a token, and of those that do, "
            "counted on this text.",
            {
                "all layers": [
                    bar("may fire", names, [r[1] for r in rows], 0),
                    bar("fire", names, [r[2] for r in rows], 1),
                ]
            },
            {"barmode": "group", "yaxis": axis("share of the units")},
            tables=[activity],
        ),
    ]  # fmt: skip
    if held:
        pictures.append(
            Picture(
                "Which columns suppress each other",
                "The learned weight with which a column (across) suppresses another (down). The "
                "diagonal is a column's own.",
                held,
                {"xaxis": axis("suppressing column"), "yaxis": axis("suppressed column")},
                choice="Layer",
            )
        )
    return pictures


def _typical(name: str, energy: Tensor) -> Table:
    """For each column the tokens with its largest output."""
    rows: list[list[object]] = []
    for column in range(energy.shape[1]):
        loud = energy[:, column]
        order = loud.argsort(descending=True).tolist()
        chosen = [t for t in order[:TYPICAL] if loud[t] > 0]
        share = short((loud > 0).float().mean().item())
        rows.append([column, share, Tokens(chosen)])
    columns = ["Column", "Share of the tokens", "Tokens with its largest output"]
    return Table(f"{name}: columns", columns, rows)


# -- depth ----------------------------------------------------------------------------------------


def depth(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """The confidence of each layer's prediction, and where tokens exit; (T,) int64 tokens."""
    import torch

    from holo_cli.layers.norm import rms_norm
    from holo_cli.models.brain_v1.diagnostics import without_exits
    from holo_cli.models.brain_v1.exits import confidence

    brain = _brain(model)
    blocks = brain.brain_blocks()
    with watched(blocks) as calls, without_exits(brain):
        brain.hidden(tokens[None])
    streams = [result[0][0] for _, result in calls]  # (T, C) each
    sure = torch.stack(
        [confidence(brain.head(rms_norm(x)), brain.config.exit_confidence) for x in streams]
    )  # (L, T)
    said = torch.stack([brain.head(rms_norm(x)).argmax(-1) for x in streams])
    agree = (said == said[-1]).float().mean(1)
    settled = (said != said[-1]).flip(0).cumsum(0).eq(0).sum(0)  # (T,) layers that say the same
    settled = len(blocks) + 1 - settled  # the first of them
    passed = brain.depths(tokens[None])[0]
    threshold = brain.exit_threshold
    leaves = (
        f"Tokens exit where their confidence reaches {threshold:g}: after "
        f"{passed.double().mean().item():.2f} of {counted(len(blocks), 'layer')} on average."
        if threshold <= 1
        else "The threshold is above 1: all tokens pass through all layers."
    )
    trained = "" if brain.config.exit_loss else (
        " The layers below the last were not trained to predict (model.exit_loss is 0)."
    )  # fmt: skip
    names = layer_names(len(blocks))[1:]
    return [
        Picture(
            "Where each token exits",
            f"{leaves}{trained} For comparison, the first layer from which every layer predicts "
            "the same token as the last: where an ideal rule would exit.",
            {
                "all tokens": [
                    bar("layers passed", range(len(tokens)), passed.tolist(), 0),
                    bar("prediction settled", range(len(tokens)), settled.tolist(), 1),
                ]
            },
            {"xaxis": axis("token"), "yaxis": axis("layer") | {"dtick": _whole(len(blocks))},
             "barmode": "group"},
            token_axes=("xaxis",),
        ),
        Picture(
            "Confidence of each layer",
            f"Confidence ({brain.config.exit_confidence}) of each layer's own prediction of the "
            "next token, through the shared norm and head.",
            {"all layers": [{**heat(sure, "%{y}, position %{x}: %{z}"), "y": names}]},
            {"xaxis": axis("token"), "yaxis": {"automargin": True}},
            tables=[
                Table(
                    "Layers as predictors",
                    ["Layer", "Mean confidence", "Agrees with the last layer", "Tokens that exit"],
                    [
                        [name, short(sure[n].mean().item()), short(agree[n].item()),
                         int((passed == n + 1).sum())]
                        for n, name in enumerate(names)
                    ],
                )
            ],
            token_axes=("xaxis",),
        ),
    ]  # fmt: skip


# -- attention ------------------------------------------------------------------------------------


def attention(model: LanguageModel, tokens: Tensor) -> Weights:
    """(T,) int64 -> softmax weights (H, T, T) of each layer; O(T^2) memory per layer."""
    from holo_cli.models.brain_v1.diagnostics import attention_weights

    layers = attention_weights(_brain(model), tokens[None])
    top = _brain(model).config.attention_top
    kept = "" if top == 1 else f" Only the largest {top:.0%} are kept, at evaluation."
    return Weights(
        layers=[weights[0] for weights in layers],
        names=layer_names(len(layers))[1:],
        what="Softmax attention: each token spreads a weight of 1 over itself and the tokens "
        "before it, and takes that mixture of their values." + kept,
    )


# -- small helpers --------------------------------------------------------------------------------


def _brain(model: LanguageModel) -> Model:
    from holo_cli.models.brain_v1.model import Model

    assert isinstance(model, Model)
    return model


def _names(model: LanguageModel) -> list[str]:
    return layer_names(model.config.layers)[1:]


def _whole(layers: int) -> int:
    """Layers from one mark of an axis to the next, so that there are at most a dozen."""
    return -(-layers // 12)
