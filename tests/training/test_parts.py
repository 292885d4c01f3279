"""The loop's parts one by one, each against something slow and obvious."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from holo_cli import registry
from holo_cli.config.resolve import Resolved
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.data.batches import IGNORE
from holo_cli.errors import UsageError
from holo_cli.layers import cross_entropy as chunks
from holo_cli.layers.head import Head
from holo_cli.models.base import LanguageModel
from holo_cli.training import memory_estimate
from holo_cli.training.loss import cross_entropy, nats_per_token
from holo_cli.training.memory_estimate import estimate, memory_parts
from holo_cli.training.optim import Muon, clip_grad_norm
from holo_cli.training.precision import pick_device, pick_dtype
from holo_cli.training.schedule import context_at, lr_multiplier
from holo_cli.training.stopping import StopRequest

# -- Muon -----------------------------------------------------------------------------------------


def test_muon_in_batches_equals_torch_muon_matrix_by_matrix() -> None:
    torch.manual_seed(0)
    shapes = {"a": (8, 8), "b": (8, 8), "wide": (8, 24), "tall": (24, 8), "fused": (24, 8)}
    ours = {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    ours["fused"].splits = 3  # type: ignore[attr-defined]
    theirs = {n: nn.Parameter(p.detach().clone()) for n, p in ours.items() if n != "fused"}
    thirds = [nn.Parameter(t.clone()) for t in ours["fused"].detach().chunk(3)]
    reference = torch.optim.Muon(
        [*theirs.values(), *thirds], lr=0.1, weight_decay=0.05, momentum=0.9, nesterov=True,
        adjust_lr_fn="original",
    )  # fmt: skip
    muon = Muon(ours.values(), lr=0.1, momentum=0.9, weight_decay=0.05)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        for name, p in ours.items():
            p.grad = torch.randn(p.shape, generator=generator)
            if name == "fused":
                for third, g in zip(thirds, p.grad.chunk(3), strict=True):
                    third.grad = g.clone()
            else:
                theirs[name].grad = p.grad.clone()
        muon.step()
        reference.step()
    # torch's iterates in bfloat16, ours in float32 here: the same update up to its rounding
    for name, p in theirs.items():
        torch.testing.assert_close(ours[name], p, rtol=0, atol=0.02)
    torch.testing.assert_close(ours["fused"], torch.cat(thirds), rtol=0, atol=0.02)
    moved = {n: (ours[n] - torch.zeros(1)).norm() for n in ours}
    assert all(norm > 1 for norm in moved.values())


def test_muon_is_a_torch_optimizer() -> None:
    """Groups have learning rates of their own; the state goes through `state_dict` and back."""
    torch.manual_seed(0)
    a, b = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(6, 4))
    muon = Muon([{"params": [("a", a)], "lr": 0.0}, {"params": [("b", b)]}], lr=0.1)
    kept, moved = a.detach().clone(), b.detach().clone()

    def step(optimizer: Muon) -> None:
        for p in (a, b):
            p.grad = torch.ones_like(p)
        optimizer.step()

    step(muon)
    assert torch.equal(a, kept)
    assert not torch.equal(b, moved)
    saved, start = muon.state_dict(), b.detach().clone()
    assert saved["state"][1].keys() == {"momentum_buffer"}
    step(muon)
    after = b.detach().clone()
    with torch.no_grad():
        b.copy_(start)
    other = Muon([{"params": [("a", a)], "lr": 0.0}, {"params": [("b", b)]}], lr=0.5)
    other.load_state_dict(saved)
    step(other)
    assert torch.equal(b, after)


def test_clipping() -> None:
    p = nn.Parameter(torch.zeros(4))
    p.grad = torch.full((4,), 3.0)
    assert clip_grad_norm([p], 0.0).item() == pytest.approx(6.0)
    assert p.grad.norm().item() == pytest.approx(6.0)
    assert clip_grad_norm([p], 2.0).item() == pytest.approx(6.0)
    assert p.grad.norm().item() == pytest.approx(2.0, rel=1e-4)


# -- loss -----------------------------------------------------------------------------------------


def make_loss() -> tuple[torch.Tensor, Head, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)
    head = Head(nn.Parameter(torch.randn(11, 5, dtype=torch.float64)), 4.0)
    target = torch.randint(0, 11, (3, 7))
    target[0, 2] = target[2, 6] = IGNORE
    return x, head, target


def test_chunked_loss_and_gradients_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x, head, target = make_loss()
    whole = nn.functional.cross_entropy(head(x).flatten(0, 1), target.flatten())
    expected = torch.autograd.grad(whole, (x, head.weight))
    monkeypatch.setitem(chunks.CHUNK, "cpu", 11)
    for rows in (1, 4, 1000):
        monkeypatch.setattr(chunks, "LEAST_ROWS", rows)
        assert chunks.chunk_rows(x, 11) == rows
        loss = cross_entropy(x, head, target)
        torch.testing.assert_close(loss, whole)
        for got, right in zip(torch.autograd.grad(loss, (x, head.weight)), expected, strict=True):
            torch.testing.assert_close(got, right)
        nats = nats_per_token(x, head, target).double()
        torch.testing.assert_close(nats.sum() / 19, whole.detach(), rtol=1e-6, atol=1e-6)
        assert nats[0, 2] == nats[2, 6] == 0


def test_chunked_loss_passes_gradcheck() -> None:
    x, head, target = make_loss()
    assert torch.autograd.gradcheck(
        lambda x, w: cross_entropy(x, Head(w, 4.0), target), (x, head.weight)
    )


# -- schedule -------------------------------------------------------------------------------------


def test_constant_then_cooldown() -> None:
    config = TrainingConfig(steps=100, warmup=10, cooldown=0.4, min_lr=0.1)
    shares = [lr_multiplier(step, config) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:60] == [1.0] * 51
    assert shares[60] == 1.0
    assert shares[80] == pytest.approx(0.55)
    assert shares[99] == pytest.approx(0.1 + 0.9 / 40)
    assert all(a >= b for a, b in pairwise(shares[10:]))


def test_cosine() -> None:
    config = TrainingConfig(steps=100, warmup=0, schedule="cosine", min_lr=0.1)
    assert lr_multiplier(0, config) == 1.0
    assert lr_multiplier(50, config) == pytest.approx(0.55)
    assert lr_multiplier(99, config) == pytest.approx(0.1, abs=0.001)


def test_context_ramp() -> None:
    config = TrainingConfig(steps=10, warmup=0, ramp_steps=0.3, ramp_context=16)
    assert [context_at(s, 64, config) for s in (0, 2, 3, 9)] == [16, 16, 64, 64]
    assert context_at(0, 64, TrainingConfig()) == 64


# -- machine --------------------------------------------------------------------------------------


def test_devices_and_dtypes() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(UsageError, match="no device that holo knows"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="not available here"):
            pick_device("cuda")
    cpu = torch.device("cpu")
    assert pick_dtype("float32", cpu) == torch.float32
    assert pick_dtype("bfloat16", cpu) == torch.bfloat16
    assert pick_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    assert pick_dtype("auto", torch.device("mps")) == torch.float32


def test_memory_estimate_follows_batch_context_and_checkpointing(
    small: Callable[..., Resolved],
) -> None:
    resolved = small().replace({"model.vocab_size": 30})
    model = registry.build_model("vanilla", resolved.model)
    parts = memory_parts(model, resolved.training, torch.float32)
    weights = sum(p.numel() for p in model.parameters()) * 4
    assert parts["weights"] == parts["gradients"] == weights
    assert weights < parts["optimizer"] < 2 * weights  # Muon keeps one moment, AdamW two
    twice = memory_parts(model, TrainingConfig(batch_size=8), torch.float32)
    assert twice["activations"] == 2 * parts["activations"]
    width, context, batch = 16, 16, 4
    least = 10 * width * context * batch * 4  # a block keeps at least ten vectors of its width
    assert parts["activations"] > least
    model.grad_checkpoint = True
    assert memory_parts(model, resolved.training, torch.float32)["activations"] < (
        0.5 * parts["activations"]
    )
    shown = estimate(resolved, 30)
    assert shown["total_bytes"] == sum(parts.values())
    assert shown["parameters"] == weights // 4


@pytest.mark.parametrize("name", registry.model_names())
def test_long_rows_are_told_from_short_ones(
    small: Callable[..., Resolved], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    resolved = small(name, **{"model.context": 3072}).replace({"model.vocab_size": 30})
    model = registry.build_model(name, resolved.model)
    exact = memory_estimate.saved_bytes_per_row(model, torch.float32, 3072)
    monkeypatch.setattr(memory_estimate, "MEASURED_CONTEXT", 2304)
    assert memory_estimate.saved_bytes_per_row(model, torch.float32, 3072) == pytest.approx(
        exact, rel=0.1
    )


def test_a_row_too_long_to_run_is_never_run(
    small: Callable[..., Resolved], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    run = memory_estimate._measured_row

    def counted(model: LanguageModel, dtype: torch.dtype, context: int) -> int:
        ran.append(context)
        return run(model, dtype, context)

    monkeypatch.setattr(memory_estimate, "_measured_row", counted)
    estimate(small("vanilla", **{"model.context": 1_000_000}), 30)
    assert max(ran) == memory_estimate.MEASURED_CONTEXT


def test_deep_models_are_measured_by_their_first_blocks(
    small: Callable[..., Resolved], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = small(**{"model.layers": 8})
    exact = estimate(resolved, 30)
    monkeypatch.setattr(memory_estimate, "MEASURED_WHOLE", 100)
    scaled = estimate(resolved, 30)
    activations = scaled.pop("activations_bytes")
    assert activations == pytest.approx(exact.pop("activations_bytes"), rel=0.1)
    del exact["total_bytes"]
    assert scaled.pop("total_bytes") > activations
    assert scaled == exact


def test_signals_ask_first_and_interrupt_second() -> None:
    stop = StopRequest()
    before = signal.getsignal(signal.SIGINT)
    with stop.on_signals():
        signal.raise_signal(signal.SIGTERM)
        assert stop
        assert stop.reason == "signal"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_chance_level_loss_is_log_vocabulary(small: Callable[..., Resolved]) -> None:
    """A fresh model of either recipe starts at chance: the head is neither sharp nor biased."""
    for recipe in ("modern", "classic"):
        config = small().replace({"model.vocab_size": 300, "model.recipe": recipe})
        model = registry.build_model("vanilla", config.model)
        tokens = torch.randint(0, 300, (4, 16))
        loss = cross_entropy(model.hidden(tokens[:, :-1]).x, model.head, tokens[:, 1:])
        assert loss.item() == pytest.approx(math.log(300), abs=0.1)
