"""One token of each row through gravity, with few operations.

Between its products a step of `Backbone.step_stream` makes some hundred operations in a layer, half
of them views. Here the same function has fewer:

- movement, value and mass are one product where their matrices are joined
  (`GravityMixer.store_by_columns`);
- the tables of the rotation are looked up once for all layers;
- norms are sums of squares, applied in place.

It differs from `Backbone.step_stream`, the oracle of its tests, by rounding alone.

Legend: B rows, C width, H heads, e = C / H, G sets of points per token, d coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from holo_cli.layers.cache import KVCache
from holo_cli.layers.mlp import MLP
from holo_cli.layers.norm import mean_square, rms_norm
from holo_cli.models.backbone import Backbone, BackboneState, Block
from holo_cli.models.base import State
from holo_cli.models.ngt.kernels import Gravity
from holo_cli.models.ngt.mixer import MIN_MASS, GravityMixer
from holo_cli.models.vanilla.decoding import fits_plain, quick_feed


def fits(model: Backbone, tokens: Tensor, state: State) -> bool:
    """Whether this step can be made here: one token of each row, at one position, without
    gradients, on a CPU in float32, in blocks that have gravity and MLP alone."""
    return fits_plain(model, tokens, state, _plain)


def step_hidden(
    model: Backbone, tokens: Tensor, state: BackboneState, x: Tensor, z: Tensor
) -> tuple[Tensor, BackboneState]:
    """`Backbone.step_stream` of a step that `fits`; x (B, 1, C) the stream at its start,
    z (B, 1, G, H d) the coordinates before the first layer."""
    assert isinstance(state.position, int)
    x, z = x[:, 0], z[:, 0]
    blocks, mixers = model.layers(), list(state.mixers)
    cosine, sine = _rotation(blocks, state.position, x)
    every_eps = _softening(blocks, len(x))
    for n, block in enumerate(blocks):
        mixer, mlp = block.mixer, block.mlp
        assert isinstance(mixer, GravityMixer)
        assert isinstance(mlp, MLP)
        y, z, mixers[n] = _attract(mixer, x, z, mixers[n], cosine, sine, every_eps[n])
        x = x + y
        x = quick_feed(mlp, x)
    return rms_norm(x)[:, None], model.advanced(state, tokens, mixers, state.windows)


def _attract(
    mixer: GravityMixer,
    x: Tensor,
    z: Tensor,
    cache: KVCache,
    cosine: Tensor,
    sine: Tensor,
    eps: Tensor,
) -> tuple[Tensor, Tensor, KVCache]:
    """x (B, C) not normalized, z (B, G, H d), tables (1, d), eps (B H, 1, 1) -> what to add,
    (B, C), the moved coordinates and the cache after this token."""
    heads, rows = mixer.heads, x.shape[0]
    u = x * mean_square(x).rsqrt_()
    joined = mixer.joined
    # replaced since, by int8 weights for one, a layer computes for itself
    readers = mixer.readers()
    if joined is not None and joined.holds(readers):
        moved, values, raw = joined.products(u)
    else:
        moved, values, raw = (layer(u) for layer in readers)
    z = z + moved.view(z.shape)
    z.mul_(mean_square(z).rsqrt_())
    points = z.view(rows, -1, mixer.coords)  # (B, G H, d)
    if mixer.rope.rotated:
        points = torch.addcmul(points * cosine, points.roll(mixer.rope.pairs, -1), sine)
    square = torch.linalg.vecdot(points, points)[..., None]
    points = torch.cat((points, square), -1)  # (B, G H, d + 1)
    m = nn.functional.softplus(raw).add_(MIN_MASS).view(rows, heads, 1, 1)
    values = values.view(rows, heads, 1, -1)
    if mixer.mass_in_value:
        cache = cache.append(points[:, -heads:, None], values * m)
    else:
        cache = cache.append(points[:, -heads:, None], m.log_(), values)
    k, *masses, v = cache.views()
    a = points[:, :heads].reshape(-1, 1, points.shape[-1])  # copied into the cache are others
    a[..., -1] = -0.5
    assert isinstance(mixer.kernel, Gravity)
    start = square[:, :heads].reshape(-1, 1, 1) + eps
    y = mixer.kernel.of_prepared(a, start, eps, k, masses[0] if masses else None, v)
    out: Tensor = mixer.out(y.reshape(x.shape))
    return out, z, cache


def _rotation(blocks: Sequence[Block], position: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of a position, (1, d) each: layers share them."""
    mixer = blocks[0].mixer
    assert isinstance(mixer, GravityMixer)
    cosine, sine = mixer.rope.tables(position, 1, x)
    return cosine[0], sine[0]


def _softening(blocks: Sequence[Block], rows: int) -> Sequence[Tensor]:
    """eps of each layer's heads, once for each row, (B H, 1, 1)."""
    kernels = [block.mixer.kernel for block in blocks if isinstance(block.mixer, GravityMixer)]
    least = next(kernel.min_eps for kernel in kernels if isinstance(kernel, Gravity))
    learned: list[Tensor] = [kernel.softening for kernel in kernels if isinstance(kernel, Gravity)]
    eps = torch.stack(learned).exp_().add_(least)  # (layers, H)
    return eps.repeat(1, rows)[..., None, None].unbind()


def _plain(block: Block) -> bool:
    """Whether a block is gravity and MLP alone, as computed here, without hooks on its parts."""
    mixer, mlp = block.mixer, block.mlp
    if type(mixer) is not GravityMixer or type(mlp) is not MLP:
        return False
    if not mixer.keeps_squares or mixer.far is not None:
        return False
    if type(mixer.out) is nn.Linear and mixer.out.weight.dtype is not torch.float32:
        return False
    return not any(part._forward_hooks or part._forward_pre_hooks for part in (mixer, mlp))
