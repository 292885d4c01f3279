"""What a stored row must hold for a page to be drawn from it: keys and their types.

Rows are files that may have been edited or damaged, and a page that is drawn from them uses thirty
of their keys. Keys that are not named here are kept as they are: rows of older versions have fewer,
and newer ones more. Numbers are numbers here, not texts that look like some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, ValidationError

from holo_cli.checkpoint.header import complaint

Number = Annotated[float, AllowInfNan(False)]
NonNegative = Annotated[int, Field(ge=0)]


TRAINING = ("compare", "ladder", "controls", "recall")
ORIGIN = {"machine", "code", "date"}


class _Stored(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Machine(_Stored):
    """See `machine.describe_machine`."""

    cpu: str = ""
    cores: int | None = None
    threads: int = 0
    gflops_float32: Number = 0
    gflops_bfloat16: Number = 0
    system: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    date: str = ""


class _Config(_Stored):
    model: dict[str, Any]
    training: dict[str, Any]
    data: dict[str, Any] = Field(default_factory=dict)


class _Data(_Stored):
    name: str
    fingerprint: str


class _Point(_Stored):
    step: NonNegative
    tokens: NonNegative
    val_loss: Number
    bpb: Number
    train_seconds: Number = 0.0


class _Row(_Stored):
    """Of every bench that trains."""

    key: str
    status: Literal["done", "failed"]
    entry: str
    model: str
    rate: Number
    seed: int
    machine: _Machine
    config: _Config
    code: str
    date: str
    parameters: NonNegative | None = None
    active_parameters: NonNegative | None = None
    state_bytes: Number | None = None
    peak_rss_bytes: NonNegative | None = None
    cpu_seconds: Number | None = None
    wall_seconds: Number | None = None
    train_seconds: Number | None = None
    tokens_per_second: Number | None = None
    train_flops_per_token: Number | None = None
    best_val_loss: Number | None = None
    test_tokens: NonNegative | None = None
    device: str | None = None
    dtype: str | None = None
    shared_code: str | None = None


class _Failed(_Row):
    error: str
    kind: str | None = None


class _Throughput(_Row):
    """A measurement of how many steps fit the time."""

    role: Literal["pace"]
    steps: NonNegative


class _Trained(_Row):
    """A run of a comparison, a ladder or the controls."""

    role: str
    steps: NonNegative
    tokens: NonNegative
    train_seconds: Number
    eval_seconds: Number
    val_loss: Number
    bpb: Number
    tune_loss: Number = 0.0
    test_loss: Number = 0.0
    test_bpb: Number = 0.0
    stopped_by: str
    curve: list[_Point]
    train_curve: list[list[Number]] = Field(default_factory=list)
    data: _Data


class _Case(_Stored):
    trained: bool


class _Recalled(_Row):
    """A run of the recall bench."""

    stopped_by: str
    steps: NonNegative
    train_seconds: Number
    losses: list[list[Number]]
    cases: list[_Case]


def fault_of(row: Mapping[str, Any], bench: str) -> str:
    """What is wrong with a row of `holo bench BENCH`, as a clause; "" for nothing.

    Rows of the measurements of speed, which train nothing, and rows that do not say where they are
    from need a key only.
    """
    if not isinstance(row.get("key"), str):
        return "the key 'key' is missing" if "key" not in row else "'key': it is not a text"
    if bench not in TRAINING or len(ORIGIN & row.keys()) < 2:
        return ""
    kind: type[_Row] = _Recalled if bench == "recall" else _Trained
    if row.get("status") != "done":
        kind = _Failed
    elif row.get("role") == "pace":
        kind = _Throughput
    try:
        kind.model_validate(dict(row))
    except ValidationError as error:
        return complaint(error)
    return ""
