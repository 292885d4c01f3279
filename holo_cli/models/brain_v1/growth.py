"""Growth in depth: training continues with a deeper copy of a shallow model.

Two ways, both pure functions of the given model:

- `identity`: new layers add nothing to the stream (the last matrix of each of their branches is
  zero), so growth leaves the logits bit-identical. The rest of a new layer is a copy of the layer
  below it, which is a better start than noise.
- `copy`: the old layers are stacked again on top of themselves, layer j is a copy of old layer
  j mod L (Gong et al. 2019; Du et al. 2024). Logits change; the optimizer's moments are copied
  along with the weights.

Where activity is scheduled by thirds of the depth, `identity` keeps each old layer in its own
third, so that its output stays the same.
"""

from __future__ import annotations

from typing import TypeVar

import torch

from holo_cli.models.backbone import Backbone
from holo_cli.models.brain_v1.block import BrainBlock, brain_blocks
from holo_cli.models.brain_v1.columns import Columns
from holo_cli.models.brain_v1.config import third
from holo_cli.models.brain_v1.kwta import KWTA
from holo_cli.wording import counted

Grown = TypeVar("Grown", bound=Backbone)
HOW = ("identity", "copy")


def deeper_model(model: Grown, layers: int, how: str) -> tuple[Grown, dict[str, str | None]]:
    """A new model of `layers` layers from a shallower one, which stays as it is.

    Also returned: for every parameter of the new model, by name, the name of the old parameter
    whose optimizer state it takes over, or None for a fresh state. Raises ValueError where `layers`
    is not more than the model has or `how` is neither "identity" nor "copy".
    """
    old = model.config
    if layers <= old.layers:
        raise ValueError(f"a model of {counted(old.layers, 'layer')} cannot grow to {layers}")
    if how not in HOW:
        raise ValueError(f"growth is by {' or '.join(HOW)}, not by {how}")
    grown = type(model)(old.at_depth(layers)).to(model.device, model.head.weight.dtype)
    grown.train(model.training)
    grown.grad_checkpoint = model.grad_checkpoint
    sources = stacked(old.layers, layers) if how == "copy" else kept_and_new(old.layers, layers)
    before = dict(model.named_parameters())
    origin: dict[str, str | None] = {}
    with torch.no_grad():
        for name, parameter in grown.named_parameters():
            if not name.startswith("blocks."):
                origin[name] = name
                parameter.copy_(before[name])
                continue
            _, number, rest = name.split(".", 2)
            layer, is_old = sources[int(number)]
            source = f"blocks.{layer}.{rest}"
            parameter.copy_(before[source])
            origin[name] = source if is_old else None
        for layer, (_, is_old) in enumerate(sources):
            if not is_old:
                zero_output(brain_blocks(grown)[layer])
    return grown, origin


def zero_output(block: BrainBlock) -> None:
    """Make a block write nothing: the last matrix of each of its branches becomes zero."""
    block.mixer.out.weight.zero_()
    assert isinstance(block.mlp, Columns | KWTA)
    block.mlp.down.weight.zero_()
    if block.adapters is not None:
        block.adapters.up.weight.zero_()


def stacked(old: int, new: int) -> list[tuple[int, bool]]:
    """For each new layer the old one it copies, and True: it takes over the moments too."""
    return [(layer % old, True) for layer in range(new)]


def kept_and_new(old: int, new: int) -> list[tuple[int, bool]]:
    """For each new layer the old one it starts from, and whether it is that layer itself.

    >>> kept_and_new(2, 4)
    [(0, True), (0, False), (1, True), (1, False)]
    """
    places = []
    for part in range(3):
        before = [layer for layer in range(old) if third(layer, old) == part]
        after = [layer for layer in range(new) if third(layer, new) == part]
        places += [after[i * len(after) // len(before)] for i in range(len(before))]
    out: list[tuple[int, bool]] = []
    below = 0
    for layer in range(new):
        is_old = layer in places
        if is_old:
            below = places.index(layer)
        out.append((below, is_old))
    return out
