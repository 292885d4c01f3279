"""Options of the older projects and of other tools, and what holo has in their place.

A command that is given an option it does not have looks here before it reports it. The same table
is docs/old-flags.md; a test holds the two equal and every replacement to an option or a
config key that exists.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from holo_cli import registry
from holo_cli.errors import UsageError

PAGE = "docs/old-flags.md"
FlagOrigin = Literal["option", "setting", "common"]


class OldFlag(NamedTuple):
    """An option as it was, and what to type now. `model` has the keys of `--set model.KEY`.

    `origin` says where the name is from: "option", an older project's option as it was spelled;
    "setting", an older project's setting or mechanism, spelled as its option would be; "common",
    the usual name in nanoGPT, Hugging Face or papers. `now` belongs to `command`. `removed` is the
    key that the option had here until it was removed; `now` is then what comes nearest.
    """

    name: str
    now: str
    model: str = "vanilla"
    origin: FlagOrigin = "setting"
    command: str = "train"
    removed: str = ""


OLD_FLAGS: tuple[OldFlag, ...] = (
    # ngt
    OldFlag("--use-soft-cutoff", "--set model.radius_mode=soft", "ngt", "option"),
    OldFlag("--use-hard-cutoff", "--set model.radius_mode=hard", "ngt"),
    OldFlag("--use-radius-cutoff", "--set model.radius_mode=hard", "ngt"),
    OldFlag("--radius", "--set model.radius=4.0", "ngt"),
    OldFlag("--radius-cutoff", "--set model.radius=4.0", "ngt"),
    OldFlag("--cutoff-radius", "--set model.radius=4.0", "ngt"),
    OldFlag("--gamma", "--set model.power=8", "ngt"),
    OldFlag("--gravity-gamma", "--set model.power=8", "ngt"),
    OldFlag("--gravity-power", "--set model.power=8", "ngt"),
    OldFlag("--mass-in-value", "--set model.mass_in_value=true", "ngt"),
    OldFlag("--use-repulsion", "--set model.lambda_repulsion=0.01", "ngt"),
    OldFlag("--lambda-repulsion", "--set model.lambda_repulsion=0.01", "ngt"),
    OldFlag("--repulsion-interval", "--set model.repulsion_interval=1", "ngt"),
    OldFlag("--coord-dim", "--set model.coords=16", "ngt"),
    OldFlag("--curvature", "--set model.kernel=lorentz --set model.beta=1.0", "ngt"),
    OldFlag("--use-curvature", "--set model.kernel=lorentz", "ngt"),
    OldFlag("--use-hyperbolic", "--set model.kernel=lorentz", "ngt"),
    # holographic
    OldFlag("--num-experts", "--set model.experts=3", "holographic"),
    OldFlag("--num-experts-per-tok", "--set model.experts_top_k=1", "holographic", "common"),
    OldFlag("--balance-weight", "--set model.balance=0.01", "holographic"),
    OldFlag("--binding", "--set model.binding=hrr", "holographic"),
    OldFlag("--binding-shape", "--set model.binding=hrr", "holographic", removed="binding_shape"),
    OldFlag("--num-plates", "--set model.phases=learned --set model.plates=4", "holographic"),
    OldFlag("--use-topology", "--set model.topology=true", "holographic"),
    OldFlag("--use-blend", "--set model.blend=true", "holographic"),
    OldFlag("--gradient-checkpointing", "--grad-checkpoint", "holographic"),
    # brain-v1
    OldFlag("--sparsity-base", "--set model.activity=0.05", "brain-v1"),
    OldFlag("--sparsity", "--set model.activity=0.05", "brain-v1"),
    OldFlag("--num-columns", "--set model.columns=40", "brain-v1"),
    OldFlag("--kwta", "--set model.sparsity=kwta", "brain-v1"),
    OldFlag("--k-winners", "--set model.sparsity=kwta", "brain-v1"),
    OldFlag("--lateral-inhibition", "--set model.sparsity=kwta", "brain-v1", removed="inhibition"),
    OldFlag("--use-lateral-inhibition", "--set model.sparsity=kwta", "brain-v1",
            removed="inhibition"),
    OldFlag("--num-dendrites", "--set model.dendrites=4", "brain-v1"),
    OldFlag("--use-2-4-sparsity", "--set model.two_four=mlp", "brain-v1"),
    OldFlag("--two-four", "--set model.two_four=mlp", "brain-v1"),
    OldFlag("--attention-sparsity", "--set model.attention_top=0.1", "brain-v1"),
    OldFlag("--use-early-exit", "--set model.exit_loss=0.3", "brain-v1"),
    OldFlag("--early-exit", "--set model.exit_loss=0.3", "brain-v1"),
    OldFlag("--early-exit-threshold", "--exit-threshold auto", "brain-v1", command="generate"),
    OldFlag("--growth-stages", "--set model.growth=[2,4]", "brain-v1"),
    OldFlag("--language-adapters", "--set model.adapters=32", "brain-v1"),
    # brain-v2
    OldFlag("--use-episodic-memory", "--set model.memory=delta", "brain-v2"),
    OldFlag("--episodic-memory", "--set model.memory=delta", "brain-v2"),
    OldFlag("--use-hebbian", "--set model.memory=hebbian", "brain-v2"),
    OldFlag("--memory-heads", "--set model.memory_heads=2", "brain-v2"),
    OldFlag("--state-dim", "--set model.state=64", "brain-v2"),
    OldFlag("--d-state", "--set model.state=64", "brain-v2", "common"),
    OldFlag("--d-conv", "--set model.conv=4", "brain-v2", "common"),
    OldFlag("--selective-attention", "--set model.attention_share=0.1", "brain-v2"),
    OldFlag("--attention-ratio", "--set model.attention_share=0.1", "brain-v2"),
    OldFlag("--ponder-steps", "--set model.ponder=4", "brain-v2"),
    OldFlag("--adaptive-computation", "--set model.ponder=4", "brain-v2"),
    OldFlag("--ponder-weight", "--set model.ponder_weight=0.01", "brain-v2"),
    # sizes, as other tools name them
    OldFlag("--n-layer", "--set model.layers=6", origin="common"),
    OldFlag("--num-layers", "--set model.layers=6", origin="common"),
    OldFlag("--n-head", "--set model.heads=8", origin="common"),
    OldFlag("--num-heads", "--set model.heads=8", origin="common"),
    OldFlag("--n-embd", "--set model.width=384", origin="common"),
    OldFlag("--d-model", "--set model.width=384", origin="common"),
    OldFlag("--hidden-size", "--set model.width=384", origin="common"),
    OldFlag("--dropout", "--set model.dropout=0.1", origin="common"),
    OldFlag("--block-size", "--context 256", origin="common"),
    OldFlag("--seq-len", "--context 256", origin="common"),
    OldFlag("--max-seq-len", "--context 256", origin="common"),
    # training, as other tools name it
    OldFlag("--learning-rate", "--lr 0.02", origin="common"),
    OldFlag("--max-iters", "--steps 1000", origin="common"),
    OldFlag("--max-steps", "--steps 1000", origin="common"),
    OldFlag("--epochs", "--steps 1000", origin="common"),
    OldFlag("--num-train-epochs", "--steps 1000", origin="common"),
    OldFlag("--eval-interval", "--eval-every 250", origin="common"),
    OldFlag("--eval-steps", "--eval-every 250", origin="common"),
    OldFlag("--per-device-train-batch-size", "--batch-size 16", origin="common"),
    OldFlag("--gradient-accumulation-steps", "--grad-accum 2", origin="common"),
    OldFlag("--weight-decay", "--set training.weight_decay=0.01", origin="common"),
    OldFlag("--warmup-iters", "--set training.warmup=100", origin="common"),
    OldFlag("--warmup-steps", "--set training.warmup=100", origin="common"),
    OldFlag("--grad-clip", "--set training.clip=1.0", origin="common"),
    OldFlag("--max-grad-norm", "--set training.clip=1.0", origin="common"),
    OldFlag("--min-lr", "--set training.min_lr=0.1", origin="common"),
    OldFlag("--optimizer", "--set training.optimizer=adamw", origin="common"),
    OldFlag("--bf16", "--dtype bfloat16", origin="common"),
    OldFlag("--no-cuda", "--device cpu", origin="common"),
    OldFlag("--dataset", "--data shakespeare", origin="common"),
    OldFlag("--run-name", "--run my-run", origin="common"),
    # generation, as other tools name it
    OldFlag("--max-tokens", "--max-new-tokens 256", origin="common", command="generate"),
    OldFlag("--max-length", "--max-new-tokens 256", origin="common", command="generate"),
    OldFlag("--start", "--prompt TEXT", origin="common", command="generate"),
    OldFlag("--num-return-sequences", "--num-samples 4", origin="common", command="generate"),
)  # fmt: skip

_BY_NAME = {flag.name: flag for flag in OLD_FLAGS}


def find_old_flag(name: str) -> OldFlag | None:
    """The row of an option, with hyphens or underscores; `--no-X` and `--X` are different."""
    return _BY_NAME.get(name.lower().replace("_", "-"))


def unknown_option(name: str, command: str, known: Collection[str]) -> UsageError | None:
    """The error for an option that `command` ("holo train") does not have; None for one that no
    row names. `known` are the options that the command has."""
    flag = find_old_flag(name)
    if flag is None:
        return None
    given_here = all(word in known for word in flag.now.split() if word.startswith("--"))
    now = flag.now if given_here else f"holo {flag.command} {flag.now}"
    hint = f"Use {now} instead. All such options: {PAGE}."
    if flag.removed:
        why = registry.config_class(flag.model).removed[flag.removed].why
        hint = (
            f"Use {now} instead: model.{flag.removed} was removed, {why}. All such options: {PAGE}."
        )
    return UsageError(
        f"There is no option {name} in {command}: it is from another project.",
        next_step=hint,
    )
