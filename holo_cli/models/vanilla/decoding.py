"""One token of each row through the modern recipe, with as few operations as it needs.

At 30M parameters a step of `Backbone.step_stream` spends a third of its time between products, in
some five hundred small operations (docs/results/speed-log.md). Here the same function has half as
many:

- r = 1 / rms(x) is one number for each row, so it is applied after a product instead of before:
  W (r x) = r (W x), and W_down relu(r z)^2 = r^2 W_down relu(z)^2 needs no root either;
- the gains of queries are part of the tables of the rotation, which are made once for all layers.

It differs from `Backbone.step_stream`, the oracle of its tests, by rounding alone.

Legend: B rows, C width, L layers, H heads, d = C / H.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from holo_cli.layers.cache import KVCache
from holo_cli.layers.mlp import MLP
from holo_cli.layers.norm import mean_square, rms_norm
from holo_cli.models.backbone import Backbone, BackboneState, Block
from holo_cli.models.base import State
from holo_cli.models.vanilla.attention import Attention


def is_one_token_on_cpu(model: Backbone, tokens: Tensor) -> bool:
    """Whether a step reads one token of each row, without gradients, on a CPU and without autocast:
    what every quick step needs."""
    return (
        tokens.shape[1] == 1
        and not torch.is_grad_enabled()
        and not model.training
        and tokens.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


def fits_plain(
    model: Backbone, tokens: Tensor, state: State, plain: Callable[[Block], bool]
) -> bool:
    """Whether a step `is_one_token_on_cpu`, in blocks without convolutions or added values of which
    each is `plain`."""
    config = model.config
    return (
        is_one_token_on_cpu(model, tokens)
        and isinstance(state.position, int)
        and not (config.conv or config.canon or config.value_residual or config.value_embedding)
        and all(plain(block) for block in model.layers())
    )


def quick_read(
    block: Block, x: Tensor, windows: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """x (B, C) normalized, through the block's short convolution, and its windows after that."""
    u = x * mean_square(x).rsqrt_()
    if block.conv is None:
        return u, windows
    seen = torch.cat((windows[0], u[:, None]), dim=1)  # (B, K, C), the newest last
    u = nn.functional.silu((seen * block.conv.weight.flip(0)).sum(1))
    return u, (seen[:, 1:],)


def quick_feed(mlp: MLP, x: Tensor) -> Tensor:
    """x (B, C) + mlp(norm(x)): W_down relu(r z)^2 = r^2 W_down relu(z)^2, with r = 1 / rms(x)."""
    hidden = mlp.up(x).relu_().square_()
    return torch.addcmul(x, mlp.down(hidden), mean_square(x).reciprocal_())


def fits(model: Backbone, tokens: Tensor, state: State) -> bool:
    """Whether this step can be made here: one token of each row, at one position, without
    gradients, on a CPU in float32, in blocks that have attention and MLP alone."""
    return fits_plain(model, tokens, state, _plain)


def step_hidden(
    model: Backbone, tokens: Tensor, state: BackboneState
) -> tuple[Tensor, BackboneState]:
    """`Backbone.step_stream` of a step that `fits`."""
    x = rms_norm(model.embedding(tokens, state.last))[:, 0]  # (B, C)
    blocks, mixers = model.layers(), list(state.mixers)
    assert isinstance(state.position, int)
    tables = _rotations(blocks, state.position, x)
    for n, (block, cosine, sine) in enumerate(zip(blocks, *tables, strict=True)):
        mixer, mlp = block.mixer, block.mlp
        assert isinstance(mixer, Attention)
        assert isinstance(mlp, MLP)
        y, mixers[n] = _attention(mixer, x, mixers[n], cosine, sine)
        x = x + y
        x = quick_feed(mlp, x)
    return rms_norm(x)[:, None], model.advanced(state, tokens, mixers, state.windows)


def _attention(
    mixer: Attention, x: Tensor, cache: KVCache, cosine: Tensor, sine: Tensor
) -> tuple[Tensor, KVCache]:
    """x (B, C) not normalized, tables (2H, d) -> (B, C), and the cache after this token."""
    heads = mixer.heads
    qkv: Tensor = mixer.qkv(x).mul_(mean_square(x).rsqrt_())
    qkv = qkv.view(x.shape[0], 3 * heads, -1)
    qk = rms_norm(qkv[:, : 2 * heads])
    qk = torch.addcmul(qk * cosine, qk.roll(mixer.rope.pairs, -1), sine)[:, :, None]
    cache = cache.append(qk[:, heads:], qkv[:, 2 * heads :, None])
    k, v = cache.views()
    y = nn.functional.scaled_dot_product_attention(qk[:, :heads], k, v)  # (B, H, 1, d)
    out: Tensor = mixer.out(y.reshape(x.shape))
    return out, cache


def _rotations(
    blocks: Sequence[Block], position: int, x: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Cosines and signed sines of a position in each layer, times the gains of its queries:
    (2H, d) each, the heads' queries first."""
    mixers = [block.mixer for block in blocks if isinstance(block.mixer, Attention)]
    cosine, sine = (table[0] for table in mixers[0].rope.tables(position, 1, x))  # (1, d)
    found = [mixer.gain for mixer in mixers if mixer.gain is not None]
    heads = mixers[0].heads
    gains = x.new_ones(len(mixers), 2 * heads, 1)
    if found:
        gains[:, :heads, 0] = torch.stack([gain.gains() for gain in found])
    return (gains * cosine).unbind(), (gains * sine).unbind()


def _plain(block: Block) -> bool:
    """Whether a block is attention and MLP alone, as computed here, without hooks on its MLP."""
    mixer, mlp = block.mixer, block.mlp
    if type(mixer) is not Attention or type(mlp) is not MLP or mixer.mass is not None:
        return False
    if type(mixer.out) is nn.Linear and mixer.out.weight.dtype is not torch.float32:
        return False
    return not (mlp._forward_hooks or mlp._forward_pre_hooks)
