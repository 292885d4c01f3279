"""What a model returns to `holo visualize`: plain values, of which `visualize/` makes the pages.

A model with more to show than its residual stream has a `views.py` in its folder, found by the
registry, with

    PAGES = {"attention": "which earlier tokens each token looks at", ...}   # name -> what it shows
    LIVE = {"attention": ()}     # pages beside a conversation; of each the titles of some pictures
    def attention(model, tokens) -> Weights | list[Weights | Picture]        # one function a page
    def coordinates(model, tokens) -> Coordinates                          # optional, for `coords`

where `tokens` is (T,) int64 on the model's device, under `torch.inference_mode()`. `PAGES` and LIVE
are read without a model, so a `views.py` imports torch inside its functions. A page that a config
has switched off raises UsageError. The first figure of a page says by `see` what there is to see;
`opens` is the layer, block or head where it is seen best. An optional function
`length(page, config)` returns the tokens that a page reads, where it needs more than a map of
tokens by tokens has room for, else 0. `holo serve` shows what LIVE names: of each page its weights,
and its pictures of these titles (none named: all) that are drawn by token.
Legend: T tokens, C width, d coordinates, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from holo_cli.models.base import LanguageModel


See = Callable[[Sequence[str]], str]  # the tokens, one a position -> one sentence of what to see


@dataclass(frozen=True)
class Coordinates:
    """Coordinates of each token in each layer. `what` describes the numbers in a sentence."""

    layers: Sequence[Tensor]  # each (T, d), the same d in all
    names: Sequence[str]  # of the layers
    what: str
    mass: Sequence[Tensor] | None = None  # each (T,), positive


@dataclass(frozen=True)
class Weights:
    """Weight of each earlier token for each token, per layer and head.

    `opens` is (layer, head, token) from 0, the head -1 for the mean of all. Without `see` and
    `opens` a page finds the head whose weights are the most selective.
    """

    layers: Sequence[Tensor]  # each (H, T, T); row t holds what t takes from 0..t
    names: Sequence[str]
    what: str
    title: str = "Attention weights"
    see: See | None = None
    opens: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Tokens:
    """Positions 0 .. T - 1 of the text, for which a page writes the tokens: a cell of a table,
    or an entry of a trace's "text"."""

    positions: Sequence[int]


@dataclass(frozen=True)
class Table:
    """Numbers and text, beside a figure."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Picture:
    """A figure in Plotly's own terms, for whatever has no form of its own here.

    `variants` are lists of Plotly traces by name; where there are several, `choice` is the label
    of the selector between them. A trace may carry "tint": i, the i-th colour of the palette, which
    follows the reader's light or dark theme; a heatmap may carry "scale": "amount" (from nothing
    to much) or "signed" (zero in the middle), whose colours follow it too. Strings are plain text,
    never markup. With layout {"xaxis": {"title": {"text": "variant"}}} the axis is called what the
    variant is called, and so with "yaxis". `token_axes` names the axes ("xaxis", "yaxis") that
    count positions of the text, of which the page writes the tokens. A heatmap of both is drawn as
    the weights are; its "scale" may be "weight", from 0 to 1, whose colours follow the square root.

    `opens` names the variant that is shown first. `against` are names for the horizontal axis, a
    second selector; then each trace has "xs", a list of x for each. Traces of one "entry" share an
    entry of the legend. A `folded` figure is behind a line that opens it.
    """

    title: str
    note: str
    variants: Mapping[str, Sequence[Mapping[str, Any]]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    choice: str = "Show"
    tables: Sequence[Table] = ()
    token_axes: Sequence[str] = ()
    see: See | None = None
    opens: str = ""
    against: Sequence[str] = ()
    folded: bool = False


@contextmanager
def watched(modules: Iterable[nn.Module]) -> Iterator[list[tuple[Tensor, Any]]]:
    """Collects (first argument, result) of every call of these modules, in the order of calls."""
    calls: list[tuple[Tensor, Any]] = []
    handles = [
        module.register_forward_hook(lambda _, given, got: calls.append((given[0], got)))
        for module in modules
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def residual_stream(model: LanguageModel, tokens: Tensor) -> Coordinates:
    """What flows from block to block, (T, C) each: the embedding, then the sum after each block.

    Each vector is divided by its root mean square, as the next block reads it: lengths grow from
    layer to layer, and a few long vectors would be all that a picture shows. Of any model whose
    `blocks` take and give the stream first, as the backbone's do.
    """
    from holo_cli.layers.norm import rms_norm

    blocks: Any = model.blocks
    with watched(blocks) as calls:
        model.hidden(tokens[None])
    stream = [calls[0][0], *(result[0] for _, result in calls)]
    return Coordinates(
        layers=[rms_norm(x[0]) for x in stream],
        names=layer_names(len(blocks)),
        what="This model has no coordinates of its own. Shown is its residual stream: the vector "
        "of each token after the embedding and after each block, at unit scale as the next "
        "block reads it.",
    )


def layer_names(blocks: int) -> list[str]:
    """Names for the embedding and what each block leaves."""
    return ["Embedding", *(f"Block {i}" for i in range(1, blocks + 1))]
