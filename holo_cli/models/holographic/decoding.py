"""One token of each row through plates of phasors, with few operations.

Between its products a step of `Backbone.step_stream` makes some sixty operations in a layer. Here
the same function has half as many:

- all projections of a layer's input are one product (`Holographic.store_by_columns`);
- exp(-softplus(g)) is the sigmoid of -g;
- the plates decay into a new tensor, to which the token is added in place, and only the channels
  that position rotates are rotated, by one table for all layers.

It differs from `Backbone.step_stream`, the oracle of its tests, by rounding alone. Legend: B rows,
C width, H heads, R plates, f complex channels, k rotated ones of the R f.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holo_cli.layers.mlp import MLP
from holo_cli.layers.norm import mean_square, rms_norm
from holo_cli.models.backbone import Backbone, BackboneState, Block
from holo_cli.models.holographic.binding import PhasorBinding
from holo_cli.models.holographic.memory import Memory
from holo_cli.models.holographic.mixer import Holographic, HoloState
from holo_cli.models.vanilla.decoding import is_one_token_on_cpu, quick_feed, quick_read


def fits(model: Backbone, tokens: Tensor) -> bool:
    """Whether this step can be made here: one token of each row without gradients, on a CPU in
    float32, in blocks that have plates of phasors and an MLP alone. Rows may be at different
    positions: plates know none. A compiler fuses the plain form by itself."""
    config = model.config
    return (
        not torch.compiler.is_compiling()
        and is_one_token_on_cpu(model, tokens)
        and not (config.canon or config.value_residual or config.value_embedding)
        and all(_plain(block) for block in model.layers())
    )


def step_hidden(
    model: Backbone, tokens: Tensor, state: BackboneState
) -> tuple[Tensor, BackboneState]:
    """`Backbone.step_stream` of a step that `fits`."""
    x = rms_norm(model.embedding(tokens, state.last))[:, 0]  # (B, C)
    blocks, mixers, windows = model.layers(), list(state.mixers), list(state.windows)
    tables = _rotation(blocks[0], x)
    for n, block in enumerate(blocks):
        mixer, mlp = block.mixer, block.mlp
        assert isinstance(mixer, Holographic)
        assert isinstance(mlp, MLP)
        u, windows[n] = quick_read(block, x, windows[n])
        y, mixers[n] = _remember(mixer, u, mixers[n], *tables)
        x = quick_feed(mlp, x + y)
    return rms_norm(x)[:, None], model.advanced(state, tokens, mixers, windows)


def _remember(
    mixer: Holographic, u: Tensor, state: HoloState, cosine: Tensor, sine: Tensor
) -> tuple[Tensor, HoloState]:
    """u (B, C), tables (k,) and (2, k) -> what to add, (B, C), and the state after the token."""
    memory, joined, readers = mixer.memory, mixer.joined, mixer.readers()
    assert isinstance(memory, Memory)
    assert isinstance(memory.binding, PhasorBinding)
    if joined is not None and joined.holds(readers):
        qk, v, gate, raw = joined.products(u)
    else:
        qk, v, gate, raw = (layer(u) for layer in readers)
    rows, heads = len(u), memory.binding.heads
    phases = memory.binding.phases(qk)  # (B, 2, H, R, f)
    (q_re, k_re), (q_im, k_im) = phases.cos().unbind(1), phases.sin().unbind(1)
    decay, write = (raw + memory.gates_bias).split(heads, dim=1)
    values = v.view(rows, heads, 2, 1, -1) * write.sigmoid()[..., None, None, None]
    v_re, v_im = values.unbind(2)  # (B, H, 1, f)
    now = state.memory * decay.neg().sigmoid_()[..., None, None, None]  # (B, H, 2, R, f)
    re, im = now.unbind(2)
    re.addcmul_(k_re, v_re).addcmul_(k_im, v_im, value=-1.0)
    im.addcmul_(k_re, v_im).addcmul_(k_im, v_re)
    read = q_re[:, :, None] * now
    read_re, read_im = read.unbind(2)
    read_re.addcmul_(q_im, im)
    read_im.addcmul_(q_im, re, value=-1.0)
    y = read.mean(3).view(rows, heads, -1)  # real parts, then imaginary ones: the head's halves
    y = (y * mean_square(y).rsqrt_()).view(u.shape)
    if len(cosine):  # the next step counts its position from 0 again
        rotated = now.flatten(3)[..., : len(cosine)]
        other = rotated.flip(2)
        rotated.mul_(cosine).addcmul_(other, sine)
    out: Tensor = mixer.out(y.mul_(nn.functional.silu(gate)))
    return out, HoloState(state.position + 1, now)


def _rotation(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    """e^{-iw} of the rotated channels, which all layers share: its real part (k,), and what the
    other part is multiplied by, (2, k)."""
    mixer = block.mixer
    assert isinstance(mixer, Holographic)
    assert isinstance(mixer.memory.binding, PhasorBinding)
    transform = mixer.memory.binding.transform
    angles = transform.angles(1, 1, x).flatten()[: transform.rotated]
    sine = angles.sin()
    return angles.cos(), torch.stack((sine, -sine))


def _plain(block: Block) -> bool:
    """Whether a block has what is computed here, without hooks on its parts."""
    mixer, mlp = block.mixer, block.mlp
    if type(mixer) is not Holographic or type(mlp) is not MLP:
        return False
    memory = mixer.memory
    if type(memory) is not Memory or not isinstance(memory.binding, PhasorBinding):
        return False
    if mixer.blend is not None or mixer.topology is not None:
        return False
    if type(mixer.out) is nn.Linear and mixer.out.weight.dtype is not torch.float32:
        return False
    parts = (mlp, mixer, memory, memory.binding)
    return not any(part._forward_hooks or part._forward_pre_hooks for part in parts)
