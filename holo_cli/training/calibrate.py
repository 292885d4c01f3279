"""How many steps this machine makes in a given time: for runs that must fit a person's patience.

A cooldown only helps if the run reaches its end, so a run of fixed duration needs to know its
number of steps before it starts.
"""

from __future__ import annotations

import torch

from holo_cli import registry
from holo_cli.config import Resolved
from holo_cli.data.dataset import PreparedData
from holo_cli.training.loop import Loop
from holo_cli.training.optim import Optimizer
from holo_cli.training.precision import pick_device, pick_dtype
from holo_cli.training.process import training_rows
from holo_cli.training.state import Progress

WARM, TIMED = 3, 8  # steps thrown away (first-use costs), and steps timed


def steps_within(resolved: Resolved, seconds: float) -> int:
    """Optimizer steps of this config that take about `seconds` of training here.

    Trains a few steps on a throw-away model, which go through the whole schedule with all that
    changes on the way (depth, say); writes nothing and leaves the global random state as it was.
    """
    config = resolved.training.model_copy(
        update={
            "steps": WARM + TIMED + 1, "warmup": 0, "log_every": WARM, "time_limit": None,
            "compile": False,
        }
    )  # fmt: skip
    device = pick_device(config.device)
    data = PreparedData.open(resolved.data.path, verify=False)
    shape = resolved.model.model_copy(update={"vocab_size": data.tokenizer.vocab_size})
    with torch.random.fork_rng(devices=[]):
        stages = shape.stages()
        first = shape.at_depth(stages[0].layers) if stages else shape
        model = registry.build_model(resolved.model_name, first).to(device)
        dtype = pick_dtype(config.dtype, device)
        optimizer = Optimizer(model, config, fast_bf16=dtype == torch.bfloat16)
        loop = Loop(
            model, optimizer, data, config.model_copy(update={"eval_every": 10**9}), dtype,
            Progress(), events=lambda event: None, save=lambda kind, loop: None,
            stages=stages, batches=training_rows(resolved, data),
        )  # fmt: skip
        model.train()
        for _ in range(WARM):
            loop.step()
        before = loop.progress.train_seconds
        for _ in range(TIMED):
            loop.step()
    return max(1, int(seconds * TIMED / (loop.progress.train_seconds - before)))
