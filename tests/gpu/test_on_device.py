"""What must hold on an accelerator: the same values as on the CPU, exact resumes, no waiting.

No accelerator has run these yet (docs/results/gpu.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from holo_cli.check.cases import Case, random_tokens
from holo_cli.checkpoint import load_model, read_header
from holo_cli.config.resolve import resolve
from holo_cli.errors import Stopped
from holo_cli.inference.generation.compiled_step import CompiledStep, room_for
from holo_cli.inference.generation.engine import Engine
from holo_cli.inference.generation.loaded_model import load
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.layers.static import buffers
from holo_cli.models.base import LanguageModel
from holo_cli.training.loss import cross_entropy
from holo_cli.training.precision import autocast, pick_device, pick_dtype
from holo_cli.training.run import resume, train
from tests.contract.test_compile import chosen
from tests.training.conftest import SMALL, home, prepared
from tests.training.test_run import ignore

__all__ = ["home", "prepared"]  # fixtures

pytestmark = pytest.mark.gpu
CASES = pytest.mark.parametrize("case", chosen(), ids=lambda case: f"{case.name}:{case.label}")


def results(model: LanguageModel, tokens: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Hidden states, loss and gradients of a step, on the CPU."""
    model.train().zero_grad()
    torch.manual_seed(0)
    tokens = tokens.to(model.device)
    with autocast(model.device, dtype):
        out = model.hidden(tokens)
    loss = cross_entropy(out.x, model.head, tokens, dtype)
    (loss + sum(out.aux.values())).backward()
    found = {f"d {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    every = {"x": out.x, "loss": loss} | found
    return {name: t.detach().float().cpu() for name, t in every.items()}


@CASES
def test_values_and_gradients_are_those_of_the_cpu(case: Case, device: str) -> None:
    tokens = random_tokens(2, 32)
    expected = results(case.build(dtype=torch.float32), tokens, torch.float32)
    found = results(case.build(dtype=torch.float32).to(device), tokens, torch.float32)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@CASES
def test_a_step_of_decoding_is_the_forward_pass(case: Case, device: str) -> None:
    model = case.build(dtype=torch.float32).to(device)
    tokens = random_tokens(2, 24).to(device)
    with torch.no_grad():
        whole = model(tokens)
        first, state = model.step(tokens[:, :16], model.init_state(2))
        rest = []
        for n in range(16, 24):
            logits, state = model.step(tokens[:, n : n + 1], state)
            rest.append(logits)
    torch.testing.assert_close(torch.cat([first, *rest], 1), whole, rtol=1e-3, atol=1e-3)


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    """On CUDA an operation inside that waits for the device is an error."""
    if not device.startswith("cuda"):
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@CASES
def test_a_step_does_not_wait_for_the_device(case: Case, device: str) -> None:
    model = case.build(dtype=torch.float32).to(device).train()
    tokens = random_tokens(2, 32).to(device)
    for again in (False, True):  # the first step makes tables and workspaces
        model.zero_grad()
        with no_waiting(device if again else ""):
            out = model.hidden(tokens)
            loss = cross_entropy(out.x, model.head, tokens, torch.float32)
            (loss + sum(out.aux.values())).backward()


@CASES
def test_a_compiled_step_computes_the_same(case: Case, device: str) -> None:
    model = case.build(dtype=torch.float32).to(device).eval()
    tokens = random_tokens(2, 32).to(device)
    torch._dynamo.reset()
    backend = "eager" if device == "cpu" else "inductor"
    compiled = torch.compile(model.hidden, fullgraph=True, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(tokens).x, model.hidden(tokens).x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_run_stops_resumes_and_speaks(
    dtype: str, device: str, prepared: Path, home: Path
) -> None:
    if device.startswith("cuda") and dtype == "bfloat16" and not torch.cuda.is_bf16_supported():
        pytest.skip("this GPU has no bfloat16")
    flags = SMALL | {
        "data.path": str(prepared), "training.device": device, "training.dtype": dtype,
        "training.steps": 60, "training.eval_every": 20, "model.dropout": 0.0,
    }  # fmt: skip
    resolved = resolve("vanilla", flags=flags, env={})
    train(resolved, run="whole", events=ignore)
    with pytest.raises(Stopped):
        train(resolved, run="parts", events=ignore, stop_at=30)
    resume("parts", events=ignore)
    a, b = (read_header(f"checkpoints/{run}_last.safetensors") for run in ("whole", "parts"))
    assert a.losses.val == pytest.approx(b.losses.val, abs=2e-2)
    assert a.history[0]["val_loss"] > a.losses.val
    load_model("whole", device=device)
    assert "".join(load("whole", device=device).generate("the ", max_new_tokens=8))


def test_speed_is_measured(device: str) -> None:
    """A smoke test: ten steps of a small model end within a minute."""
    found = pick_device(device)
    model = chosen()[0].build(dtype=torch.float32).to(found)
    began = time.perf_counter()
    for _ in range(10):
        results(model, random_tokens(8, 64), pick_dtype("auto", found))
    assert time.perf_counter() - began < 60


@CASES
def test_decoding_through_one_graph_in_fixed_buffers(case: Case, device: str) -> None:
    """On CUDA the graph is recorded and replayed: every position must read and write the same
    addresses, and a step must wait for nothing."""
    model = case.build(dtype=torch.float32).to(device)
    if (reason := model.step_obstacle()) is not None:
        pytest.skip(reason)
    torch._dynamo.reset()
    engine = Engine(model)
    tokens = random_tokens(2, 24).to(device)
    _, _, state = engine.advance(tokens[:, :8], None)
    backend = None if device.startswith("cuda") else "eager"
    step = CompiledStep(
        model, state, room_for(model, 24), lambda: engine.mode(single=True), backend
    )
    step.take(engine, state)
    places = [buffer.data_ptr() for buffer in buffers(step._state)]
    for n in range(8, 24):
        with no_waiting(device):
            logits, _ = step.read(tokens[:, n : n + 1])
        expected, _, state = engine.advance(tokens[:, n : n + 1], state)
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert [buffer.data_ptr() for buffer in buffers(step._state)] == places


def test_a_text_through_cuda_graphs_is_the_same(device: str) -> None:
    model = chosen()[0].build(dtype=torch.float32).to(device)
    backend = None if device.startswith("cuda") else "eager"
    torch._dynamo.reset()
    texts = []
    for engine in (Engine(model), Engine(model, compile_steps=True, backend=backend)):
        decoding = engine.generate([1, 2, 3], SamplingConfig(max_new_tokens=90, temperature=0))
        texts.append([step[0] for step in decoding])  # beyond the context of 64
    assert texts[0] == texts[1]
