"""Checks of training: gradients, exact resuming, what can be learnt with and without the mixer.

Each takes a case and returns what it measured, in words; it raises CheckFailed.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from holo_cli.check.cases import SHAPE, VOCAB, Case, random_tokens
from holo_cli.check.compare import CheckFailed, close, need
from holo_cli.checkpoint import load_training, model_tensors
from holo_cli.checkpoint.find import run_path
from holo_cli.config.resolve import resolve
from holo_cli.config.training_schema import TrainingConfig
from holo_cli.data.prepare.prepare import prepare
from holo_cli.data.windows import IGNORE
from holo_cli.errors import Stopped
from holo_cli.models.base import LanguageModel
from holo_cli.paths import CHECKPOINTS
from holo_cli.training.loss import cross_entropy
from holo_cli.training.optim import Optimizer
from holo_cli.training.run import resume, train

ROUNDING = 1e-11  # of logits in float64, as where causality is checked
LEARNT = 0.75  # of the loss of guessing, below what has to be reached: no need to train on
FILE_TEXT = "The quick brown fox jumps over the lazy dog. "


def _config(**values: float) -> TrainingConfig:
    return TrainingConfig.model_validate(values)


def _train_step(model: LanguageModel, tokens: Tensor, target: Tensor) -> Tensor:
    """The loss, after its gradients were added to the parameters'."""
    hidden, aux = model.hidden(tokens)
    loss = cross_entropy(hidden, model.head, target)
    (loss + sum(aux.values(), torch.zeros(()))).backward()
    return loss


def every_parameter_trained(case: Case) -> str:
    model = case.build(noisy=False, dtype=torch.float32).train()
    optimizer = Optimizer(model, _config(lr=0.01), fast_bf16=False)
    optimizer.set_lr(1.0)
    names = [name for name, _ in model.named_parameters()]
    trained: set[str] = set()
    for seed in range(6):  # a few steps: zero initialisation blocks gradients at first
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(0, VOCAB, (16, 33), generator=generator)
        _train_step(model, tokens[:, :-1], tokens[:, 1:])
        for name, p in model.named_parameters():
            if p.grad is None:
                raise CheckFailed(f"{name} takes no part in the loss")
            need(p.grad.isfinite().all(), f"the gradient of {name} is not finite")
            if p.grad.abs().sum() > 0:
                trained.add(name)
        if len(trained) == len(names):
            break
        optimizer.step()
        model.zero_grad()
    untrained = [name for name in names if name not in trained]
    need(not untrained, f"the gradient is zero in 6 steps for {', '.join(untrained)}")
    return f"{len(names)} of {len(names)}"


def chunked_loss(case: Case) -> str:
    model = case.build()
    tokens = random_tokens(2, 21)
    x, y = tokens[:, :-1], tokens[:, 1:]
    loss = cross_entropy(model.hidden(x).x, model.head, y)
    loss.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    plain = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    plain.backward()
    largest = close(loss, plain, "loss by hidden and head against logits", 1e-7, 1e-7)
    for name, p in model.named_parameters():
        if p.grad is not None:
            close(grads[name], p.grad, f"gradient of {name}", 1e-9, 1e-6)
    return f"{largest:.1g}"


def gradient_checkpointing(case: Case) -> str:
    tokens = random_tokens(2, 30)
    grads = []
    for recompute in (False, True):
        model = case.build(dtype=torch.float32).train()
        model.grad_checkpoint = recompute
        model.hidden(tokens).x.square().sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    need(grads[0].keys() == grads[1].keys(), "other parameters have gradients")
    for name, grad in grads[0].items():
        need(torch.equal(grad, grads[1][name]), f"the gradient of {name} changes")
    return "no bit differs"


def overfits_a_batch(case: Case) -> str:
    model = case.build(noisy=False, dtype=torch.float32).train()
    optimizer = Optimizer(model, _config(lr=0.04, adam_lr=0.04), fast_bf16=False)
    tokens = random_tokens(4, 17)
    loss = math.inf
    for step in range(300):
        optimizer.set_lr(min(1.0, (300 - step) / 100))
        loss = _train_step(model, tokens[:, :-1], tokens[:, 1:]).item()
        optimizer.step()
        model.zero_grad()
        if loss < 0.1:
            break
    need(loss < 0.1, f"the loss is {loss:.3f} after {step + 1} steps on one batch, not below 0.1")
    return f"{loss:.3f} after {step + 1} steps"


def mixer_is_needed(case: Case) -> str:
    """The token some positions ago, out of reach of any convolution here, is to be named.

    A disabled model whose logits do not depend on that token is at chance, whatever it learns; it
    is trained, for as many steps as the other one, only where they do.
    """
    back = case.claims.recall
    assert back is not None
    chance = math.log(VOCAB)
    loss, steps = _name_earlier(case, back, most=200, disabled=False)
    without = chance
    if _reaches_disabled(case, back):
        without, _ = _name_earlier(case, back, most=steps, disabled=True)
    need(
        without > 0.95 * chance,
        f"with the mixer disabled the loss is {without:.2f}, below chance ({chance:.2f}): "
        "something else carries tokens over time, or disable() leaves the mixer on",
    )
    need(
        loss < 0.8 * without,
        f"the token {back} positions ago is named with a loss of {loss:.2f}, and of "
        f"{without:.2f} without the mixer; if it cannot find tokens by position, declare a "
        'shorter distance or None beside CASES, as in CLAIMS = {"LABEL": Claims(recall=3)}',
    )
    return f"{loss:.2f} against {without:.2f} nats, {back} back"


def _name_earlier(case: Case, back: int, *, most: int, disabled: bool) -> tuple[float, int]:
    """The loss after training to name the token `back` positions ago, and the steps it took."""
    model = case.build(noisy=False, dtype=torch.float32).train()
    if disabled:
        model.disable()
    optimizer = Optimizer(model, _config(lr=0.04, adam_lr=0.02), fast_bf16=False)
    for step in range(most):
        optimizer.set_lr(min(1.0, (200 - step) / 80))
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(0, VOCAB, (32, 24), generator=generator)
        target = tokens.roll(back, dims=1)
        target[:, :back] = IGNORE
        loss = _train_step(model, tokens, target)
        optimizer.step()
        model.zero_grad()
        if loss.item() < LEARNT * math.log(VOCAB):
            break
    return loss.item(), step + 1


@torch.no_grad()
def _reaches_disabled(case: Case, back: int) -> bool:
    """Whether a token reaches the logits `back` positions later with the mixer disabled, by more
    than rounding, which it may change where rows are sorted or transformed together."""
    model = case.build()
    model.disable()
    tokens = random_tokens(8, 24)
    changed = tokens.clone()
    # what the last position is to name, and all before it
    changed[:, : 24 - back] = (tokens[:, : 24 - back] + 1) % VOCAB
    return not (model(changed)[:, -1] - model(tokens)[:, -1]).abs().max() <= ROUNDING


@torch.no_grad()
def saved_tensors(case: Case) -> str:
    """Nothing that a forward pass changes, and no table, goes into a checkpoint."""
    model = case.build()
    before = {n: t.clone() for n, t in model_tensors(model).items()}
    model(random_tokens(2, 40))
    after = model_tensors(model)
    need(before.keys() == after.keys(), "a forward pass changes which tensors there are")
    for name, tensor in before.items():
        need(torch.equal(tensor, after[name]), f"a forward pass changes {name}")
    names = {f"model/{n}" for n, _ in model.named_parameters(remove_duplicate=False)}
    need(names <= after.keys(), f"not saved: {', '.join(sorted(names - after.keys()))}")
    return f"{len(after)} tensors"


def resumes_exactly(case: Case) -> str:
    """Six steps, and six steps with a stop in the middle, end with the same bits."""
    model = {"dropout": 0.1} | {k: v for k, v in SHAPE.items() if k != "vocab_size"}
    flags: dict[str, Any] = {f"model.{k}": v for k, v in (model | case.overrides).items()}
    flags |= {
        "model.context": 16, "training.steps": 6, "training.eval_every": 3, "training.warmup": 2,
        "training.batch_size": 4, "training.grad_accum": 2, "training.sample_tokens": 0,
        "training.dtype": "float32", "training.device": "cpu", "data.path": "text",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        text = "\n\n".join(FILE_TEXT[n % 20 :] * 4 for n in range(40))
        Path("text.txt").write_text(text, encoding="utf-8")
        prepare(["text"], source="text.txt", out=Path("data/text"), tokenizer="char")
        resolved = resolve(case.name, flags=flags, env={})
        train(resolved, run="whole", events=_ignore)
        with suppress(Stopped):
            train(resolved, run="parts", stop_at=3, events=_ignore)
        resume("parts", events=_ignore)
        whole, parts = (
            load_training(run_path(CHECKPOINTS, run, "last"))[1] for run in ("whole", "parts")
        )
    need(whole.keys() == parts.keys(), "the resumed run has saved other tensors")
    for name, tensor in whole.items():
        need(torch.equal(tensor, parts[name]), f"{name} differs after a stop at step 3 of 6")
    return f"no bit of {len(whole)} tensors differs"


def _ignore(event: dict[str, Any]) -> None:
    """No one reads these events."""
