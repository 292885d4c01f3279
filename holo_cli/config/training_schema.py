"""What can be set about training and data: plain data, checked, without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from holo_cli.config.added import added_key
from holo_cli.config.tunable import tunable

MAX_SEED = 2**63 - 1  # of every command; what a 64-bit generator of torch and of numpy takes
SEED_RANGE = "a whole number from 0 to 2^63 - 1"
MAX_STEPS = 10**12
MAX_ROWS = 10**9  # of a batch
MAX_LR = 1e30


def is_seed(value: object) -> bool:
    """Whether a value is in the range of seeds, which is the same everywhere."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SEED


def _seed(value: int) -> int:
    if not is_seed(value):
        raise ValueError(f"must be {SEED_RANGE}")
    return value


Seed = Annotated[int, AfterValidator(_seed)]


class TrainingConfig(BaseModel):
    """The keys under `training.`: one loop for every model reads them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(
        1000, ge=1, le=MAX_STEPS, description="optimizer steps of the whole schedule"
    )
    batch_size: int = Field(16, ge=1, le=MAX_ROWS, description="sequences in one forward pass")
    grad_accum: int = Field(1, ge=1, le=MAX_ROWS, description="forward passes per optimizer step")
    optimizer: Literal["muon", "adamw"] = Field(
        "muon", description="muon: matrices by Muon, the rest by AdamW; adamw: everything"
    )
    lr: float = Field(0.02, gt=0, le=MAX_LR, description="peak rate (of Muon, where it is used)")
    adam_lr: float = Field(
        0.003,
        gt=0,
        le=MAX_LR,
        description="peak AdamW rate of embeddings, gains and the like beside Muon",
    )
    min_lr: float = Field(0.0, ge=0, le=1, description="final rate as a share of the peak")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    momentum: float = Field(0.95, ge=0, lt=1, description="momentum of Muon")
    muon_steps: Literal[3, 5] = Field(
        3,
        description="Muon's products: 5 as published, or 3 with polynomials fitted to each",
        json_schema_extra=added_key(before=5),
    )
    muon_heads: bool = Field(
        True,
        description="queries, keys and values of each head are matrices of their own for Muon",
        json_schema_extra=added_key(before=False),
    )
    weight_decay: float = Field(0.01, ge=0, json_schema_extra=tunable(0.001, 0.3, log=True))
    schedule: Literal["constant-cooldown", "cosine"] = "constant-cooldown"
    warmup: int = Field(
        50, ge=0, le=MAX_STEPS, description="steps of linear warm-up",
        json_schema_extra=tunable(0.01, 0.25, share=True),
    )  # fmt: skip
    cooldown: float = Field(0.5, ge=0, le=1, description="share of the steps in the cooldown")
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 is off")
    eval_every: int = Field(
        250, ge=1, le=MAX_STEPS, description="steps between evaluations of the whole val set"
    )
    eval_batch_size: int = Field(
        0, ge=0, le=MAX_ROWS, description="sequences per evaluation batch; 0: as fits"
    )
    log_every: int = Field(10, ge=1, le=MAX_STEPS, description="steps between lines of metrics")
    save_every: int = Field(
        0, ge=0, le=MAX_STEPS, description="steps between saves; 0: at every evaluation"
    )
    sample_tokens: int = Field(
        64, ge=0, le=1_000_000, description="tokens of sample text at evaluations"
    )
    target_loss: float | None = Field(None, gt=0, description="stop at this validation loss")
    time_limit: float | None = Field(None, gt=0, description="stop after this many train seconds")
    grad_checkpoint: bool = Field(False, description="recompute activations in the backward pass")
    compile: bool = Field(False, description="torch.compile where it works")
    mirror: str = Field(
        "", max_length=1000,
        description="address in an object store to which each checkpoint is copied, such as "
        "s3://bucket/runs",
    )  # fmt: skip
    tracker: Literal["none", "trackio", "wandb"] = Field(
        "none", description="where the curves go beside TensorBoard; each is an extra of its name"
    )
    tracker_project: str = Field(
        "holo", min_length=1, max_length=100, description="project of the tracker"
    )
    shard: bool = Field(
        False,
        description="spread weights, gradients and optimizer over the processes of torchrun (FSDP)",
    )
    world_invariant: bool = Field(
        False,
        description="the same bits for any number of processes: gradients of whole batches, summed "
        "in float64",
    )
    shard_group: int = Field(
        0, ge=0, le=MAX_ROWS,
        description="processes that share one copy of the model, with copies between such groups; "
        "0: all",
    )  # fmt: skip
    shard_gather: Literal["float32", "bfloat16"] = Field(
        "float32", description="format in which processes send each other the weights of a block"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    seed: Seed = 0
    init_seed: Seed | None = Field(
        None, description="seed of the initial weights; none: that of training.seed"
    )
    unlikelihood: float = Field(
        0.0, ge=0, le=100, description="weight of the penalty on tokens that repeat; 0 is off"
    )
    unlikelihood_span: int = Field(
        1, ge=1, le=64,
        description="tokens of a repeated span from which its last one is penalized",
    )  # fmt: skip
    ramp_steps: float = Field(
        0.0, ge=0, le=1, description="share of the steps trained with a shorter context first"
    )
    ramp_context: int = Field(0, ge=0, description="the shorter context; 0 is off")

    @property
    def weights_seed(self) -> int:
        """The seed that new weights are drawn with."""
        return self.seed if self.init_seed is None else self.init_seed

    @model_validator(mode="after")
    def _ramp(self) -> TrainingConfig:
        if self.warmup > self.steps:
            raise ValueError(
                f"training.warmup ({self.warmup}) is longer than training.steps ({self.steps})"
            )
        return self


class DataConfig(BaseModel):
    """The keys under `data.`: what is trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field("", description="folder or name of a prepared set; empty: the only one")
    sets: tuple[str, ...] = Field(
        (), description="several sets in place of data.path, each NAME or NAME=WEIGHT"
    )
    verify: bool = Field(True, description="check the shards' hashes before training")
    balance: bool = Field(
        False, description="read rows of each language equally often, however much there is of it"
    )
    document_mask: bool = Field(
        False, description="no row holds two documents, so nothing is seen across their borders"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> DataConfig:
        if self.path and self.sets:
            raise ValueError("data.path and data.sets cannot be combined")
        return self
