"""What is true of the gated delta rule only."""

from __future__ import annotations

import torch

from holo_cli.models.gated_deltanet.config import Config
from holo_cli.models.gated_deltanet.delta import RATE_MAX, STEP_MAX, ChannelGates, HeadGates

SHAPE = {"vocab_size": 29, "layers": 1, "heads": 2, "width": 16, "context": 32}


def test_channel_gates_that_are_equal_are_head_gates() -> None:
    """gdn2 with one decay and one strength for all channels of a head is gdn."""
    torch.manual_seed(0)
    config = Config(**SHAPE)
    heads, channels = HeadGates(config).double(), ChannelGates(config).double()
    for mixer in (heads, channels):
        mixer.finish_initialisation()
    with torch.no_grad():
        torch.nn.init.normal_(heads.out.weight)
        for name in ("qkv", "gate", "out"):
            getattr(channels, name).weight.copy_(getattr(heads, name).weight)
        # every channel of a head gets the head's row of the map
        decay, write = (x.repeat_interleave(8, dim=0) for x in heads.decay_write.weight.chunk(2))
        channels.erase_write.weight.copy_(torch.cat((write, write)))
        left, size, right = torch.linalg.svd(decay, full_matrices=False)
        channels.decay_up.weight.copy_(left[:, :8] * size[:8])  # rank 2 at most: 8 are enough
        channels.decay_down.weight.copy_(right[:8])
        channels.decay_bias.copy_(heads.decay_bias.repeat_interleave(8))
        u = torch.randn(2, 40, 16, dtype=torch.float64)
        torch.testing.assert_close(channels(u)[0], heads(u)[0])


def test_decays_start_between_slow_and_fast() -> None:
    for kind in (HeadGates, ChannelGates):
        mixer = kind(Config(**SHAPE))
        mixer.finish_initialisation()
        log_decay = mixer.log_decay(torch.zeros(1, 1, mixer.decay_bias.numel()))
        assert log_decay.shape == (1, 2, 1, mixer.decay_bias.numel() // 2)
        torch.testing.assert_close(log_decay.min(), torch.tensor(-RATE_MAX * STEP_MAX))
        torch.testing.assert_close(log_decay.max(), torch.tensor(-0.001))
