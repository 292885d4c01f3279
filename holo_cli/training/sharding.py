"""One model spread over several processes: FSDP2 around a model of the contract.

Each block and the rest of the model are sharded along the first dimension of their tensors
(`fully_shard`): a process keeps a part of every parameter, gradient and optimizer state, and has a
block whole only while it computes it. Training calls `hidden` alone, so nothing else of a model has
to know. Whoever needs the model as it is (evaluation, samples, growth, checkpoints) gets a plain
copy with all weights from `ShardedModel.whole`.

Numbers (tensors without a dimension) cannot be sharded: every process holds them, and the trainer
averages their gradients. Those of sharded parameters are averaged by each backward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from holo_cli.checkpoint.read import MODEL_PREFIX
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.models.base import LanguageModel
from holo_cli.training.distributed import World
from holo_cli.training.invariant import RunningSum
from holo_cli.training.optim import Optimizer
from holo_cli.training.placement import Placement
from holo_cli.training.sharded_tensors import whole_tensor

MARKS = ("splits", "heads", "no_muon")  # what a parameter tells Muon, as attributes


def make_mesh(config: TrainingConfig, world: int, device: torch.device) -> DeviceMesh:
    """The processes as one dimension, "shard"; with groups as two, "replicate" and "shard"."""
    size = config.shard_group or world
    if size == world:
        return init_device_mesh(device.type, (world,), mesh_dim_names=("shard",))
    shape = (world // size, size)
    return init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard"))


class ShardedModel(Placement):
    """A sharded model. Making it consumes `model`, which becomes `self.model`.

    All processes must make it, and call each of its methods, together.
    """

    spread = True

    def __init__(
        self, model: LanguageModel, config: TrainingConfig, dtype: torch.dtype, world: World
    ) -> None:
        super().__init__(model)
        self.config, self.world = config, world
        self.mesh = make_mesh(config, world.size, model.device)
        self.plain = _without_weights(model)
        marks = {
            name: {mark: getattr(p, mark) for mark in MARKS if hasattr(p, mark)}
            for name, p in model.named_parameters()
        }
        numbers = {p for p in model.parameters() if p.ndim == 0}
        low = dtype if config.shard_gather == "bfloat16" and dtype == torch.bfloat16 else None
        options: dict[str, Any] = {
            "mesh": self.mesh,
            "ignored_params": numbers,
            "mp_policy": MixedPrecisionPolicy(
                param_dtype=low,
                reduce_dtype=torch.float64 if config.world_invariant else torch.float32,
                cast_forward_inputs=False,
            ),
        }
        for block in _blocks(model):
            if config.compile:
                block.forward = torch.compile(block.forward)
            fully_shard(block, **options)
        # the loss reads the head after the forward pass: what is outside the blocks stays whole
        # from there to the end of the backward pass
        self.root = root = fully_shard(model, reshard_after_forward=False, **options)
        register_fsdp_forward_method(model, "hidden")
        root.set_reduce_scatter_unused_params(True)  # unused in one process, maybe used in another
        self._running: list[RunningSum] = []
        if config.world_invariant:
            self._sum_exactly([*_blocks(model), model])
        for name, p in model.named_parameters():
            for mark, value in marks[name].items():
                setattr(p, mark, value)
        self.numbers = [p for p in model.parameters() if p.ndim == 0]
        self._parts = [p for p in model.parameters() if p.ndim]  # later some may be whole ones
        self.tied = _tied(model)  # (further name, first name) of parameters that have several

    def _sum_exactly(self, modules: Sequence[nn.Module]) -> None:
        for module in modules:
            assert isinstance(module, FSDPModule)
            running = RunningSum()
            module.set_gradient_divide_factor(1.0)  # sums over processes, not means
            module.set_all_reduce_hook(running)
            self._running.append(running)

    def before_backward(self) -> None:
        for p in self._parts:  # what the hooks give is the sum so far, not to be added to this
            p.grad = None

    def after_step(self) -> None:
        for running in self._running:
            running.total = None

    @property
    def averaged(self) -> list[nn.Parameter]:
        return self.numbers

    def share(self, parts: Mapping[str, int]) -> dict[str, int]:
        size = self.mesh.size(self.mesh.ndim - 1)
        spread = ("weights", "gradients", "optimizer")
        return {name: n // size if name in spread else n for name, n in parts.items()}

    def whole(self, *, everywhere: bool = False) -> LanguageModel | None:
        """A plain model with the present weights in the first process; None in the others.

        `everywhere`: in all processes. In evaluation mode or not as the sharded one is.
        """
        self.root.reshard()  # the rest of the model is still whole after a forward pass alone
        mine = everywhere or self.world.is_main
        memo: dict[int, Any] = {}
        shells = dict(self.plain.named_parameters())
        for name, p in self.model.named_parameters():
            full = whole_tensor(p.detach())
            if mine:
                new = nn.Parameter(full if p.ndim else full.clone(), p.requires_grad)
                memo[id(shells[name])] = _marked(new, p)
        if not mine:
            return None
        model = copy.deepcopy(self.plain, memo)
        buffers = dict(self.model.named_buffers())
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        return model.train(self.model.training)

    def whole_state(self, optimizer: Optimizer) -> tuple[LanguageModel, Optimizer]:
        model = self.whole(everywhere=True)
        assert model is not None
        state = {name: whole_tensor(t) for name, t in optimizer.state_tensors().items()}
        whole = type(optimizer)(model, self.config, optimizer.fast_bf16)
        whole.load_state_tensors(state)
        return model, whole

    def take_buffers(self, model: LanguageModel | None) -> None:
        theirs = {} if model is None else dict(model.named_buffers())
        for name, buffer in self.model.named_buffers():
            if name in theirs:
                buffer.copy_(theirs[name])
            dist.broadcast(buffer, src=0)

    @property
    def shared(self) -> dict[str, str]:
        return {MODEL_PREFIX + name: MODEL_PREFIX + first for name, first in self.tied}


def _blocks(model: LanguageModel) -> list[nn.Module]:
    found = getattr(model, "blocks", None)
    return list(found) if isinstance(found, nn.ModuleList) else []


def _tied(model: nn.Module) -> list[tuple[str, str]]:
    first: dict[int, str] = {}
    named = list(model.named_parameters(remove_duplicate=False))
    for name, p in named:
        first.setdefault(id(p), name)
    return [(name, first[id(p)]) for name, p in named if first[id(p)] != name]


def _marked(new: nn.Parameter, old: nn.Parameter) -> nn.Parameter:
    for mark in MARKS:
        if hasattr(old, mark):
            setattr(new, mark, getattr(old, mark))
    return new


def _without_weights(model: LanguageModel) -> LanguageModel:
    """A copy whose parameters have shapes and no storage; buffers and settings are copied."""
    memo: dict[int, Any] = {}
    for p in model.parameters():
        memo[id(p)] = _marked(nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad), p)
    return copy.deepcopy(model, memo)
