"""The plan of a run on several GPUs, held against sums by hand."""

from __future__ import annotations

import pytest

from holo_cli.checkpoint.rebuild import shapes_only
from holo_cli.config.resolve import Resolved, resolve
from holo_cli.errors import UsageError
from holo_cli.training import device_plan
from holo_cli.training.device_plan import plan_devices, traffic
from holo_cli.training.published_gpus import GPUS, AssumedSpeed, published_gpu

ROW = 1_000_000  # bytes that a row keeps, and a tenth with recomputing


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def row_bytes(resolved: Resolved, *_: object) -> int:
        assert resolved.training.dtype == "bfloat16"
        return ROW // 10 if resolved.training.grad_checkpoint else ROW

    monkeypatch.setattr(device_plan, "row_bytes", row_bytes)
    monkeypatch.setattr(device_plan, "loss_bytes", lambda *_: 500_000)


def resolved(**more: object) -> Resolved:
    flags = {"training.batch_size": 64, "training.optimizer": "adamw", "training.steps": 100}
    return resolve("vanilla", "tiny", flags={"model.vocab_size": 256, **flags, **more}, env={})


def test_sizes_are_those_of_the_weights() -> None:
    plan = plan_devices(resolved(), 256, 4, 1e9)
    size = 4 * plan.parameters
    plain, sharded, recomputed, both = plan.layouts
    assert (plain.weights, plain.gradients, plain.optimizer) == (size, size, 2 * size)
    assert plain.gathered == 0
    assert sharded.weights == -(-size // 4)
    assert sharded.optimizer == -(-2 * size // 4)
    assert 0 < sharded.gathered < 3 * size
    assert (recomputed.flags, both.flags) == ("--grad-checkpoint", "--shard --grad-checkpoint")
    assert plain.traffic == round(2 * size * 3 / 4)
    assert sharded.traffic == round(3 * size * 3 / 4)
    assert plain.batch_size == 16  # 64 rows on four GPUs
    layers = resolved().model.layers
    assert (plain.row, both.row) == (ROW, ROW // 10 + ROW // layers)
    assert plan.best() == plain


@pytest.mark.parametrize("fit", [0, 1, 5, 16])
def test_the_batch_is_the_largest_that_fits_and_divides(fit: int) -> None:
    fixed = plan_devices(resolved(), 256, 4, 1e9).layouts[0].fixed()
    memory = (fixed + fit * ROW + 500_000) / device_plan.USABLE + 10
    plain = plan_devices(resolved(), 256, 4, memory).layouts[0]
    assert plain.rows == fit
    assert plain.batch_size == {0: 0, 1: 1, 5: 4, 16: 16}[fit]
    assert plain.batch_size * plain.grad_accum == (16 if fit else 0)


def test_sharding_is_chosen_only_where_it_is_needed() -> None:
    fixed = plan_devices(resolved(), 256, 4, 1e9).layouts[0].fixed()
    plan = plan_devices(resolved(), 256, 4, fixed)
    assert plan.layouts[0].rows == 0
    best = plan.best()
    assert best is not None
    assert best.shard
    assert plan_devices(resolved(), 256, 4, 1.0).best() is None
    assert [one.shard for one in plan_devices(resolved(), 256, 1, 1e9).layouts] == [False, False]


def test_time_follows_only_from_a_measured_speed() -> None:
    assert plan_devices(resolved(), 256, 2, 1e9).seconds is None
    plan = plan_devices(resolved(), 256, 2, 1e9, AssumedSpeed(tokens_per_second=1000.0))
    assert plan.tokens == 64 * plan.context * 100
    assert plan.seconds == plan.tokens / 2000
    assert plan.steps_per_second == 2000 / (64 * plan.context)


def test_bounds_of_the_speed_by_hand() -> None:
    speed = AssumedSpeed(flops=1e12, utilization=0.5, link=1e6)
    plan = plan_devices(resolved(), 256, 4, 1e9, speed)
    full = shapes_only("vanilla", resolved().model.model_copy(update={"vocab_size": 256}))
    tokens = 64 * plan.context
    compute = tokens / 4 * full.describe().train_flops_per_token / 0.5e12
    plain, sharded, recomputed, _ = plan.layouts
    for one, factor in ((plain, 1), (sharded, 1), (recomputed, 4 / 3)):
        send = one.traffic / 1e6
        assert one.compute_seconds == pytest.approx(factor * compute)
        assert one.send_seconds == send
        assert one.most_tokens_per_second == pytest.approx(tokens / max(factor * compute, send))
        assert one.least_tokens_per_second == pytest.approx(tokens / (factor * compute + send))
    assert plain.send_seconds is not None
    assert plain.send_seconds > compute  # so slow a link bounds the speed by itself
    assert plain.most_tokens_per_second == pytest.approx(tokens / plain.send_seconds)


def test_what_is_not_given_is_not_computed() -> None:
    rate = AssumedSpeed(flops=1e12)
    alone = plan_devices(resolved(), 256, 1, 1e9, rate).layouts[0]
    assert alone.most_tokens_per_second == alone.least_tokens_per_second
    plain = plan_devices(resolved(), 256, 4, 1e9, rate).layouts[0]
    assert plain.most_tokens_per_second == pytest.approx(4 * (alone.most_tokens_per_second or 0))
    assert plain.least_tokens_per_second is None
    nothing = plan_devices(resolved(), 256, 4, 1.0, rate).layouts[0]  # no batch fits
    assert (nothing.batch_size, nothing.most_tokens_per_second) == (0, None)
    assert plan_devices(resolved(), 256, 4, 1e9).layouts[0].most_tokens_per_second is None


def test_a_measured_speed_is_taken_before_a_published_one() -> None:
    both = AssumedSpeed(tokens_per_second=1000.0, flops=1e18, link=1e30)
    plain = plan_devices(resolved(), 256, 4, 1e9, both).layouts[0]
    assert plain.most_tokens_per_second == pytest.approx(4000)
    assert plain.least_tokens_per_second == pytest.approx(4000)


def test_traffic_of_rings() -> None:
    assert traffic(800, 1, shard=False, grad_accum=1) == 0
    assert traffic(800, 4, shard=False, grad_accum=8) == 1200
    assert traffic(800, 4, shard=True, grad_accum=2) == 3600


def test_impossible_numbers() -> None:
    for gpus, memory, given, says in (
        (0, 1e9, {}, "--gpus must be"),
        (7, 1e9, {}, "64 rows, which 7 GPUs cannot share equally"),
        (2, 0.0, {}, "--memory must be above 0"),
        (2, 1e9, {"tokens_per_second": 0.0}, "--tokens-per-second must be above 0"),
        (2, 1e9, {"flops": -1.0}, "--gpu-tflops must be above 0"),
        (2, 1e9, {"flops": 1e12, "link": float("inf")}, "--link must be above 0"),
        (2, 1e9, {"flops": 1e12, "utilization": 1.5}, "--utilization must be above 0"),
        (2, 1e9, {"link": 1e9}, "--link alone gives no speed"),
    ):
        speed = AssumedSpeed(**given)
        with pytest.raises(UsageError, match=says):
            plan_devices(resolved(), 256, gpus, memory, speed)


def test_published_figures_by_name() -> None:
    assert published_gpu("H100") is GPUS["h100"]
    with pytest.raises(UsageError, match="no published figures of 'h10'") as caught:
        published_gpu("h10")
    assert "h100" in str(caught.value.next_step)
