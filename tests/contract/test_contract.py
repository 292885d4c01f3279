"""The contract of a model, item by item, over every model found (see holo_cli/models/README.md)."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from holo_cli.checkpoint import model_tensors
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.models.base import LanguageModel
from holo_cli.training.loss import cross_entropy
from holo_cli.training.optim import Optimizer
from tests.contract.conftest import CONTEXT, VOCAB, Case, random_tokens


def test_shapes_are_right_and_values_finite(case: Case) -> None:
    model = case.build(dtype=torch.float32)
    tokens = random_tokens(2, 33)
    logits = model(tokens)
    assert logits.shape == (2, 33, VOCAB)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(tokens)
        hidden = model.hidden(tokens)
    assert low.dtype == torch.float32
    assert low.isfinite().all()
    assert hidden.x.shape == (2, 33, model.config.width)
    for name, loss in hidden.aux.items():
        assert loss.ndim == 0, name
        assert loss.isfinite(), name
    # the same function, up to bfloat16's three digits
    assert (low - logits).abs().mean() < 0.05 * logits.abs().mean() + 0.02


def test_no_gradient_flows_from_a_position_to_later_tokens(
    case: Case, model: LanguageModel
) -> None:
    tokens = random_tokens(1, 20)
    seen: list[torch.Tensor] = []

    def catch(module: torch.nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        output.retain_grad()
        seen.append(output)
        return output

    table = next(m for m in model.modules() if isinstance(m, torch.nn.Embedding))
    handle = table.register_forward_hook(catch)
    for position in (0, 7, 18):
        seen.clear()
        model.zero_grad()
        model(tokens)[0, position].pow(2).sum().backward()
        grad = seen[0].grad
        assert grad is not None
        # exactly zero, but where a case says that its FFT along time spreads rounding errors
        assert (grad[0, position + 1 :].abs() <= case.claims.rounding).all()
        assert grad[0, position].abs().sum() > 0
    handle.remove()


def test_replacing_later_tokens_changes_nothing_earlier(model: LanguageModel) -> None:
    tokens = random_tokens(1, 48)
    with torch.no_grad():
        logits = model(tokens)
        generator = torch.Generator().manual_seed(3)
        for _ in range(40):
            cut = int(torch.randint(1, 48, (), generator=generator))
            changed = tokens.clone()
            changed[:, cut:] = torch.randint(0, VOCAB, (1, 48 - cut), generator=generator)
            torch.testing.assert_close(model(changed)[:, :cut], logits[:, :cut], rtol=0, atol=1e-11)


def test_the_first_token_reaches_the_last_position(case: Case, model: LanguageModel) -> None:
    """Or the last one that the mixer claims to reach."""
    tokens = random_tokens(1, CONTEXT)
    changed = tokens.clone()
    changed[0, 0] = (tokens[0, 0] + 1) % VOCAB
    last = CONTEXT - 1 if case.claims.reach is None else min(case.claims.reach, CONTEXT - 1)
    with torch.no_grad():
        difference = (model(tokens) - model(changed))[0, last].abs().max()
    assert difference > 1e-7


def test_rows_of_a_batch_do_not_meet_and_order_does_not_matter(model: LanguageModel) -> None:
    tokens = random_tokens(5, 40)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        together = model(tokens)
        alone = torch.cat([model(row[None]) for row in tokens])
        shuffled = model(tokens[order])
        again = model(tokens)
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-11)
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-11)
    assert torch.equal(again, together)


def test_step_equals_forward_for_every_split(model: LanguageModel) -> None:
    length = 37  # no multiple of any chunk
    tokens = random_tokens(2, length)
    with torch.no_grad():
        logits = model(tokens)
        for cut in range(length + 1):
            state = model.init_state(2)
            parts = []
            if cut:
                part, state = model.step(tokens[:, :cut], state)
                parts.append(part)
            for t in range(cut, length):
                part, state = model.step(tokens[:, t : t + 1], state)
                parts.append(part)
            assert state.position == length
            torch.testing.assert_close(torch.cat(parts, 1), logits, rtol=0, atol=1e-9)
        state = model.init_state(2)  # pieces of several tokens, as a chat gives them
        pieces = []
        for piece in tokens.split([5, 1, 17, 2, 12], dim=1):
            part, state = model.step(piece, state)
            pieces.append(part)
        torch.testing.assert_close(torch.cat(pieces, 1), logits, rtol=0, atol=1e-9)


def test_a_state_is_a_value(model: LanguageModel) -> None:
    """An old state can be continued again, and in another way, without harm to the new ones."""
    tokens = random_tokens(2, 20)
    other = random_tokens(2, 4, seed=9)
    with torch.no_grad():
        _, start = model.step(tokens[:, :10], model.init_state(2))
        first, _ = model.step(tokens[:, 10:14], start)
        branch, branched = model.step(other, start)
        again, kept = model.step(tokens[:, 10:14], start)
        torch.testing.assert_close(again, first, rtol=0, atol=0)
        on_branch, _ = model.step(tokens[:, 14:], branched)
        on_kept, _ = model.step(tokens[:, 14:], kept)
        whole = model(torch.cat((tokens[:, :10], other, tokens[:, 14:]), 1))
        torch.testing.assert_close(torch.cat((branch, on_branch), 1), whole[:, 10:])
        torch.testing.assert_close(on_kept, model(tokens)[:, 14:], rtol=0, atol=1e-9)


def test_selected_rows_of_a_state_go_on_as_those_rows(model: LanguageModel) -> None:
    tokens = random_tokens(3, 16)
    rows = torch.tensor([2, 0, 2, 2])
    with torch.no_grad():
        _, state = model.step(tokens[:, :9], model.init_state(3))
        logits, _ = model.step(tokens[rows, 9:], state.select(rows))
        torch.testing.assert_close(logits, model(tokens)[rows, 9:], rtol=0, atol=1e-9)
        empty = model.init_state(1).select(torch.zeros(3, dtype=torch.int64))
        logits, _ = model.step(tokens, empty)
        torch.testing.assert_close(logits, model(tokens), rtol=0, atol=1e-9)


def test_the_fast_form_equals_the_reference(case: Case, model: LanguageModel) -> None:
    for length in (1, 5, 23):
        tokens = random_tokens(2, length)
        torch.testing.assert_close(model(tokens), case.logits(model, tokens), rtol=1e-9, atol=1e-9)


def test_gradients_equal_those_of_the_reference(case: Case, model: LanguageModel) -> None:
    tokens = random_tokens(1, 13)
    weight = torch.randn(1, 13, VOCAB, dtype=torch.float64)
    (model(tokens) * weight).sum().backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (case.logits(model, tokens) * weight).sum().backward()
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(fast[name], p.grad, rtol=1e-7, atol=1e-9, msg=name)
        else:
            assert name not in fast or (fast[name] == 0).all(), name


def test_every_parameter_gets_a_gradient(case: Case) -> None:
    model = case.build(awake=False, dtype=torch.float32).train()
    optimizer = Optimizer(model, TrainingConfig(lr=0.01), fast_bf16=False)
    optimizer.set_lr(1.0)
    reached: set[str] = set()
    for seed in range(6):  # a few steps: zero initialisation blocks gradients at first
        tokens = torch.randint(0, VOCAB, (16, 33), generator=torch.Generator().manual_seed(seed))
        hidden, aux = model.hidden(tokens[:, :-1])
        loss = cross_entropy(hidden, model.head, tokens[:, 1:])
        (loss + sum(aux.values(), torch.zeros(()))).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert p.grad.isfinite().all(), name
            if p.grad.abs().sum() > 0:
                reached.add(name)
        optimizer.step()
        model.zero_grad()
    assert reached == {name for name, _ in model.named_parameters()}


def test_the_chunked_loss_is_the_loss(model: LanguageModel) -> None:
    tokens = random_tokens(2, 21)
    x, y = tokens[:, :-1], tokens[:, 1:]
    loss = cross_entropy(model.hidden(x).x, model.head, y)
    loss.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    plain = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    plain.backward()
    torch.testing.assert_close(loss, plain)
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(grads[name], p.grad, rtol=1e-6, atol=1e-9)


def test_gradient_checkpointing_changes_no_value(case: Case) -> None:
    tokens = random_tokens(2, 30)
    grads = []
    for recompute in (False, True):
        model = case.build(dtype=torch.float32).train()
        model.grad_checkpoint = recompute
        model.hidden(tokens).x.square().sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        assert torch.equal(grad, grads[1][name]), name


def test_it_overfits_one_batch(case: Case) -> None:
    model = case.build(awake=False, dtype=torch.float32).train()
    optimizer = Optimizer(model, TrainingConfig(lr=0.02, adam_lr=0.02), fast_bf16=False)
    tokens = random_tokens(4, 17)
    loss = torch.tensor(float("inf"))
    for step in range(300):
        optimizer.set_lr(min(1.0, (300 - step) / 100))
        hidden, aux = model.hidden(tokens[:, :-1])
        loss = cross_entropy(hidden, model.head, tokens[:, 1:])
        (loss + sum(aux.values(), torch.zeros(()))).backward()
        optimizer.step()
        model.zero_grad()
        if loss < 0.1:
            break
    assert loss < 0.1, f"loss {loss:.3f} after {step + 1} steps"


def test_without_its_mechanism_it_cannot_look_back(case: Case) -> None:
    """The token nine positions ago, out of reach of any convolution here, is to be named.

    A `reference.py` may claim less for a case by its `CLAIMS`.
    """
    back = case.claims.recall
    if back is None:
        pytest.skip("claims no recall by position")
    losses = []
    for switched_off in (False, True):
        model = case.build(awake=False, dtype=torch.float32).train()
        if switched_off:
            model.disable()
        optimizer = Optimizer(model, TrainingConfig(lr=0.02, adam_lr=0.01), fast_bf16=False)
        for step in range(200):
            optimizer.set_lr(min(1.0, (200 - step) / 80))
            seeded = torch.Generator().manual_seed(step)
            tokens = torch.randint(0, VOCAB, (16, 24), generator=seeded)
            target = tokens.roll(back, dims=1)
            target[:, :back] = -100
            hidden, aux = model.hidden(tokens)
            loss = cross_entropy(hidden, model.head, target)
            (loss + sum(aux.values(), torch.zeros(()))).backward()
            optimizer.step()
            model.zero_grad()
        losses.append(loss.item())
    chance = torch.tensor(float(VOCAB)).log().item()
    assert losses[1] > 0.95 * chance
    assert losses[0] < 0.8 * losses[1]


def test_describe_agrees_with_what_can_be_counted(case: Case) -> None:
    model = case.build(dtype=torch.float32)
    described = model.describe()
    assert described.parameters == sum(p.numel() for p in model.parameters())
    assert 0 < described.active_parameters <= described.parameters
    assert described.train_flops_per_token >= 6 * 0.5 * described.active_parameters
    assert described.decode_flops_per_token > 0
    tokens = random_tokens(1, CONTEXT)
    state = model.init_state(1)
    with torch.no_grad():
        for length in (1, 17, CONTEXT):
            _, state = model.step(tokens[:, state.position : length], state)
            assert state.nbytes() == model.state_bytes(length)
    assert described.state_bytes == model.state_bytes(model.config.context)


def test_flops_agree_with_the_profiler(case: Case) -> None:
    """Products counted while a whole context runs, against the formula for the forward pass."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    def grouped(a: list[int], b: list[int], *_: object, **__: object) -> int:
        return 2 * a[0] * a[1] * b[-1]  # rows of all groups (P, n), a matrix each (G, n, k)

    def solve(a: list[int], b: list[int], *_: object, **__: object) -> int:
        return 2 * a[-1] * math.prod(b)  # the whole square, as of attention

    model = case.build(dtype=torch.float32)
    # the counter sees products, not what a fused attention kernel does inside
    counts = {  # it does not know these by itself
        torch.ops.aten._grouped_mm: grouped,
        torch.ops.aten.linalg_solve_triangular: solve,
    }
    with (
        FlopCounterMode(display=False, custom_mapping=counts) as counter,
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
    ):
        model(random_tokens(1, CONTEXT))
    counted = counter.get_total_flops() / CONTEXT
    claimed = model.describe().train_flops_per_token / 3
    # counted is the whole square of attention, claimed its past half
    assert 0.6 * counted < claimed <= counted


def test_saved_tensors_are_the_parameters(model: LanguageModel) -> None:
    """Nothing that a forward pass changes, and no table, goes into a checkpoint."""
    before = {n: t.clone() for n, t in model_tensors(model).items()}
    model(random_tokens(2, 40))
    after = model_tensors(model)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    names = {f"model/{n}" for n, _ in model.named_parameters(remove_duplicate=False)}
    assert names <= after.keys()
