"""The optimizer of a run against torch's own."""

from __future__ import annotations

import torch

from holo_cli.check.cases import cases_of, random_tokens
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.training.optim import Optimizer


def test_adamw_is_that_of_torch_to_the_bit() -> None:
    config = TrainingConfig(optimizer="adamw", lr=0.01, weight_decay=0.1)
    case = cases_of("vanilla")[0]
    ours, theirs = (case.build(dtype=torch.float32) for _ in range(2))
    optimizer = Optimizer(ours, config, fast_bf16=False)
    parameters = list(theirs.parameters())
    betas = (config.beta1, config.beta2)
    plain = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=0.01, betas=betas, fused=True,
    )  # fmt: skip
    for step in range(3):
        for model in (ours, theirs):
            model.zero_grad()
            model(random_tokens(2, 9, seed=step)).square().sum().backward()
        optimizer.step()
        plain.step()
    for mine, other in zip(ours.parameters(), parameters, strict=True):
        assert torch.equal(mine, other)
