"""What is measured in one process: the real training step and real decoding of one model.

Training runs `training.trainer.Trainer`, the loop of `holo train`, on random tokens: chunked loss,
autocast, gradient clipping and the optimizer's update are those of a run. Decoding runs the
`Engine` of `holo generate`, sampling included. Both give wall-clock and processor seconds; on a
machine with other work the second say more. Legend: T context, p position, V vocabulary.
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
from holo_cli.training.compile import compile_hidden
from holo_cli.training.memory_estimate import peak_rss_bytes, rss_bytes
from holo_cli.training.optim import Optimizer
from holo_cli.training.precision import pick_device, pick_dtype

FOREVER = 10**9  # steps: a schedule that a measurement never leaves
WINDOWS = 64  # of random tokens, read again and again


class Stopwatch:
    """Wall-clock and processor seconds (of all threads) since it was made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        _finish(device)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """{"seconds", "cpu_seconds"}, once everything that was asked of the device is done."""
        _finish(self._device)
        return {
            "seconds": time.perf_counter() - self._wall,
            "cpu_seconds": time.process_time() - self._cpu,
        }


def random_rows(vocab_size: int, context: int, rows: int) -> TrainBatches:
    """Training rows of random tokens: how long a step takes does not depend on what it reads."""
    tokens = (context + 1) * max(WINDOWS, 2 * rows)
    random = np.random.default_rng(0).integers(vocab_size, size=tokens, dtype=np.uint32)
    return TrainBatches([random], context, seed=0)


class _TimedOptimizer(Optimizer):
    """The optimizer of every run, and how long its updates took."""

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
            stages=(),
            fixed_progress=1.0,  # what changes while a model learns is measured as it ends
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
        """The first steps, whose time is of building, first use and compilation; what it is."""
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
        """Steps until `seconds` have passed, one at least."""
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
    """One row that is written on, from any position up to T."""

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
        """The first tokens, whose time is of building and first use; what it is."""
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
            # what one token must read of the weights, in bytes
            "weight_bytes": int(described.active_parameters * per_weight),
        }

    def read(self, position: int) -> dict[str, Any]:
        """Read the tokens before a position, going on from the nearest one read before."""
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
        """Write `tokens` tokens from a position that was read. The first one is not counted: it
        needs no step of the model, or copies a state that was continued before."""
        seconds, times = self._write(self.prefixes[position], tokens + 2)
        return seconds | {
            "tokens": tokens,
            "median_token_seconds": float(np.median(times)),
            "peak_bytes": peak_bytes(self.model.device),
            "before_bytes": self.before,
        }

    def _write(self, prefix: PrefixCache, tokens: int) -> tuple[dict[str, float], list[float]]:
        """Seconds of all tokens but the first two, and of each of them."""
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
    return registry.build_model(resolved.model_name, resolved.model).to(device)


BENCHMARKS: Mapping[str, type[TrainingBenchmark] | type[DecodingBenchmark]] = {
    "training": TrainingBenchmark,
    "decoding": DecodingBenchmark,
}


# -- the machine ----------------------------------------------------------------------------------


def read_rate(nbytes: int, seconds: float = 0.2) -> float:
    """Bytes a second that a matrix-vector product reads, over a float32 matrix of that many bytes:
    what decoding one row is made of. The best of those made within `seconds`."""
    columns = 1024
    matrix = torch.ones(max(1, nbytes // (4 * columns)), columns)
    vector = torch.ones(columns)
    return _best_rate(lambda: matrix @ vector, matrix.nbytes, seconds)


def copy_rate(nbytes: int, seconds: float = 0.2) -> float:
    """Bytes a second that are read and written, both counted, copying that many bytes."""
    source = torch.ones(max(1, nbytes // 4))
    target = torch.empty_like(source)
    return _best_rate(lambda: target.copy_(source), 2 * source.nbytes, seconds)


def _best_rate(work: Any, nbytes: int, seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    work()
    while best == float("inf") or time.perf_counter() < end:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return nbytes / best


def peak_bytes(device: torch.device) -> int | None:
    """The most that was held: of the GPU's memory on CUDA, else of resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_rss_bytes()


def _finish(device: torch.device) -> None:
    """Wait until the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
