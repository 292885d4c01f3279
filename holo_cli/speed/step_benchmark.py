"""Benchmarks of one model in one process: the real training step and real decoding.

Training runs the `Trainer` of `holo train` on random tokens: chunked loss, autocast, gradient
clipping and the optimizer's update are those of a run. Decoding runs the `Engine` of
`holo generate`, sampling included. Both measure wall clock and processor seconds; on a busy machine
processor time is more reliable. Legend: T context, p position, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from holo_cli import registry
from holo_cli.config.resolve import Resolved
from holo_cli.data.batches import TrainBatches
from holo_cli.errors import TrainingError
from holo_cli.inference.generation.engine import Engine, PrefixCache
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.models.base import LanguageModel
from holo_cli.training.build import build_trainer
from holo_cli.training.capacity import check_run
from holo_cli.training.compile import compile_hidden
from holo_cli.training.memory_estimate import peak_rss_bytes, rss_bytes
from holo_cli.training.optim import Optimizer
from holo_cli.training.precision import pick_device, pick_dtype

FOREVER = 10**9  # steps of a schedule that no measurement reaches the end of
WINDOWS = 64  # of random tokens, which are read repeatedly


class Stopwatch:
    """Wall clock and processor seconds (of all threads) since its creation."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        _finish(device)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """{"seconds", "cpu_seconds"}, after the device has finished its queued work."""
        _finish(self._device)
        return {
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
        }


def random_rows(vocab_size: int, context: int, rows: int) -> TrainBatches:
    """Training rows of random tokens: the time of a step does not depend on the tokens."""
    tokens = (context + 1) * max(WINDOWS, 2 * rows)
    random = np.random.default_rng(0).integers(vocab_size, size=tokens, dtype=np.uint32)
    return TrainBatches([random], context, seed=0)


class _TimedOptimizer(Optimizer):
    """The optimizer of every run, with the time of its updates."""

    seconds = 0.0

    def step(self) -> None:
        watch = Stopwatch(self.adam.param_groups[0]["params"][0].device)
        super().step()
        self.seconds += watch.read()["seconds"]


class TrainingBenchmark:
    """Training steps of one config. Its batches have `batch_size` rows of T tokens."""

    def __init__(self, resolved: Resolved) -> None:
        self.before = rss_bytes()
        config = resolved.training.model_copy(
            update={
                "steps": FOREVER, "eval_every": FOREVER, "log_every": FOREVER, "grad_accum": 1,
                "save_every": 0, "time_limit": None, "target_loss": None, "ramp_context": 0,
            }
        )  # fmt: skip
        watch = Stopwatch(torch.device("cpu"))
        self.model = _build(resolved)
        shape = self.model.config
        self.trainer = build_trainer(
            replace(resolved, training=config),
            self.model,
            random_rows(shape.vocab_size, shape.context, config.batch_size),
            stages=(),  # a model that grows is measured whole
            optimizer=_TimedOptimizer,
        )
        self.dtype = self.trainer.dtype
        assert isinstance(self.trainer.optimizer, _TimedOptimizer)
        self.optimizer = self.trainer.optimizer
        if config.compile:
            self.trainer.hidden, problem = compile_hidden(self.model)
            if problem:
                raise TrainingError(f"torch.compile does not work here: {problem}.")
        self.built = watch.read()["seconds"]

    def warm(self, steps: int = 2) -> dict[str, Any]:
        """The first steps, which include first use and compilation; returns facts about the
        model."""
        times = []
        for _ in range(max(1, steps)):
            watch = Stopwatch(self.model.device)
            self.trainer.step()
            times.append(watch.read()["seconds"])
        described = self.model.describe()
        return {
            "build_seconds": self.built,
            "first_step_seconds": times[0],
            "warm_seconds": sum(times),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "threads": torch.get_num_threads(),
            "parameters": described.parameters,
            "active_parameters": described.active_parameters,
            "flops_per_token": described.train_flops_per_token,
        }

    def measure(self, seconds: float = 0.0) -> dict[str, Any]:
        """Steps until `seconds` have passed, at least one."""
        watch = Stopwatch(self.model.device)
        steps, tokens, updating = 0, self.trainer.progress.tokens, self.optimizer.seconds
        end = time.perf_counter() + seconds
        while not steps or time.perf_counter() < end:
            self.trainer.step()
            steps += 1
        return watch.read() | {
            "steps": steps,
            "tokens": self.trainer.progress.tokens - tokens,
            "optimizer_seconds": self.optimizer.seconds - updating,
            "peak_bytes": peak_bytes(self.model.device),
            "before_bytes": self.before,
        }


class DecodingBenchmark:
    """Decoding of one row from any position up to T."""

    def __init__(self, resolved: Resolved) -> None:
        self.before = rss_bytes()
        watch = Stopwatch(torch.device("cpu"))
        self.model = _build(resolved).eval()
        name = resolved.training.dtype
        # as in `holo generate`: auto computes as the weights are
        dtype = None if name == "auto" else pick_dtype(name, self.model.device)
        self.engine = Engine(self.model, dtype=dtype)
        vocab, context = self.model.config.vocab_size, self.model.config.context
        self.ids = np.random.default_rng(0).integers(vocab, size=context).tolist()
        self.prefixes: dict[int, PrefixCache] = {}
        self.built = watch.read()["seconds"]

    def warm(self, tokens: int = 4) -> dict[str, Any]:
        """The first tokens, which include first use; returns facts about the model."""
        watch = Stopwatch(self.model.device)
        self._write(self.engine.prefill(self.ids[:1]), tokens)
        described = self.model.describe()
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        per_weight = weights / described.parameters
        return {
            "build_seconds": self.built,
            "warm_seconds": watch.read()["seconds"],
            "dtype": str(self.engine.dtype or torch.float32).removeprefix("torch."),
            "device": str(self.model.device),
            "threads": torch.get_num_threads(),
            "parameters": described.parameters,
            "active_parameters": described.active_parameters,
            # bytes of weights that one token reads
            "weight_bytes": int(described.active_parameters * per_weight),
        }

    def read(self, position: int) -> dict[str, Any]:
        """Prefill up to a position, starting from the nearest position that was read before."""
        before = [p for p in self.prefixes if p < position]
        start = max(before, default=0)
        watch = Stopwatch(self.model.device)
        known = [self.prefixes[start]] if start else []
        prefix = self.engine.prefill(self.ids[:position], known)
        self.prefixes[position] = prefix
        return watch.read() | {
            "tokens": position - start,
            "state_bytes": prefix.state.nbytes(),
            "said_bytes": self.model.state_bytes(position),
        }

    def measure(self, position: int, tokens: int = 16) -> dict[str, Any]:
        """Decode `tokens` tokens from a position that was read. The first ones are not counted:
        they need no step of the model, or copy a state."""
        seconds, times = self._write(self.prefixes[position], tokens + 2)
        return seconds | {
            "tokens": tokens,
            "median_token_seconds": float(np.median(times)),
            "peak_bytes": peak_bytes(self.model.device),
            "before_bytes": self.before,
        }

    def _write(self, prefix: PrefixCache, tokens: int) -> tuple[dict[str, float], list[float]]:
        """Seconds of all tokens but the first two, together and one by one."""
        config = SamplingConfig(max_new_tokens=tokens, temperature=1.0, seed=0)
        decoding = self.engine.generate(prefix.ids, config, [prefix])
        for _ in range(min(2, tokens - 1)):
            next(decoding)
        whole, times = Stopwatch(self.model.device), []
        for _ in range(max(0, tokens - 2)):
            started = time.perf_counter()
            next(decoding)
            times.append(time.perf_counter() - started)
        return whole.read(), times


def _build(resolved: Resolved) -> LanguageModel:
    torch.manual_seed(resolved.training.seed)
    device = pick_device(resolved.training.device)
    check_run(resolved)
    return registry.build_model(resolved.model_name, resolved.model).to(device)


BENCHMARKS: Mapping[str, type[TrainingBenchmark] | type[DecodingBenchmark]] = {
    "training": TrainingBenchmark,
    "decoding": DecodingBenchmark,
}


# -- the machine ----------------------------------------------------------------------------------


def read_rate(nbytes: int, seconds: float = 0.2) -> float:
    """Bytes per second that a matrix-vector product reads from a float32 matrix of `nbytes`, as in
    decoding one row. The best product within `seconds`."""
    columns = 1024
    matrix = torch.ones(max(1, nbytes // (4 * columns)), columns)
    vector = torch.ones(columns)
    return _best_rate(lambda: matrix @ vector, matrix.nbytes, seconds)


def copy_rate(nbytes: int, seconds: float = 0.2) -> float:
    """Bytes per second read plus written when copying `nbytes`."""
    source = torch.ones(max(1, nbytes // 4))
    target = torch.empty_like(source)
    return _best_rate(lambda: target.copy_(source), 2 * source.nbytes, seconds)


def _best_rate(operation: Any, nbytes: int, seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    operation()
    while best == float("inf") or time.perf_counter() < end:
        started = time.perf_counter()
        operation()
        best = min(best, time.perf_counter() - started)
    return nbytes / best


def peak_bytes(device: torch.device) -> int | None:
    """Peak memory: of the GPU on CUDA, else resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_rss_bytes()


def _finish(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
