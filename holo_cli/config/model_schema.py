"""What every model's config has in common: plain data, checked, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from holo_cli.config.added import added_key, completed, value_before
from holo_cli.config.tunable import tunable, tunable_choices

MAX_SIZE = 10**9  # of every whole number here: products of three of them are still whole numbers
MAX_NUMBER = 1e6  # of other numbers: far beyond what trains, far within what float32 holds


class RemovedKey(NamedTuple):
    """A key that earlier versions had."""

    off: Any  # the value at which it computed nothing: stored configs with it are read
    why: str
    detail_of: str = ""  # another removed key, without which it computed nothing at any value


class Stage(NamedTuple):
    """A stage of developmental growth: from share `at` of the schedule, `layers` blocks."""

    at: float
    layers: int


class ModelConfig(BaseModel):
    """The keys that all models share, under `model.` in a config file.

    `width` is C, `heads` is H; `context` is the length T the model is trained on. A model adds its
    own keys in a subclass. Values are checked at construction; instances are immutable.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mechanism: ClassVar[str] = ""  # one line for `holo models`: how tokens are mixed
    removed: ClassVar[Mapping[str, RemovedKey]] = {}

    vocab_size: int = Field(0, ge=0, description="size of the vocabulary; set from the tokenizer")
    layers: int = Field(6, ge=1, le=1000, description="number of blocks")
    heads: int = Field(6, ge=1, le=100_000, description="number of heads")
    width: int = Field(384, ge=1, le=MAX_SIZE, description="width of the residual stream, C")
    mlp_ratio: float = Field(
        4.0, gt=0, le=100_000, description="hidden units of the MLP, as a multiple of C"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout probability in training")
    context: int = Field(256, ge=2, le=MAX_SIZE, description="length of a training sequence, T")

    @classmethod
    def linked_defaults(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults that depend on which keys are given, by name; {} for most models.

        A key that is named here is named whatever is given: so it is known which ones follow.
        """
        return {}

    @model_validator(mode="before")
    @classmethod
    def _linked_defaults_apply(cls, given: Any) -> Any:
        return {**cls.linked_defaults(given), **given} if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _numbers_are_sizes(self) -> ModelConfig:
        for key in type(self).model_fields:
            value = getattr(self, key)
            if isinstance(value, int) and abs(value) > MAX_SIZE:
                raise ValueError(f"model.{key} ({value}) must be at most {MAX_SIZE}")
        return self

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ModelConfig:
        if self.width % self.heads:
            raise ValueError(
                f"model.width ({self.width}) must be a multiple of model.heads ({self.heads})"
            )
        return self

    def from_specials(self, specials: Mapping[str, int]) -> dict[str, Any]:
        """Keys that follow from the tokenizer's special tokens, given by name; {} for most models.

        Training lays them over the config together with the vocabulary's size.
        """
        return {}

    @classmethod
    def before(cls, name: str) -> Any:
        """What a key stands for in a config that was stored without it, as JSON has it."""
        return value_before(cls, name)

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """The config that a checkpoint of this or an earlier version holds.

        Raises ValidationError, as for an unknown key, where it uses a key that was removed.
        """
        return cls.model_validate(cls.completed(stored))

    @classmethod
    def completed(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """A stored config with what later keys stand for, without removed ones that were off."""
        gone = cls.removed.keys() - set(cls.removed_in(stored))
        return completed(cls, {key: value for key, value in stored.items() if key not in gone})

    @classmethod
    def removed_in(cls, stored: Mapping[str, Any]) -> list[str]:
        """The removed keys that a stored config uses: those that were not off."""

        def is_on(name: str) -> bool:
            off, _, detail_of = cls.removed[name]
            return stored.get(name, off) != off and (not detail_of or is_on(detail_of))

        return [name for name in cls.removed if is_on(name)]

    def without_effect(self) -> frozenset[str]:
        """Keys that nothing reads in a model of this config: runs that differ in them are equal."""
        return frozenset()

    def caution(self) -> str:
        """What a person should know before training a model of this config; "" for nothing."""
        return ""

    def stages(self) -> tuple[Stage, ...]:
        """The depths that training grows a model through; () for a model of one depth.

        Both numbers rise from stage to stage; the first is at 0 and the last has all `layers`.
        A model whose config names stages has `LanguageModel.grown`.
        """
        return ()

    def at_depth(self, layers: int) -> Self:
        """The config of the same model with that many blocks: how it is at one of its stages."""
        return self.model_copy(update={"layers": layers})


class BackboneConfig(ModelConfig):
    """The keys of the modern backbone that vanilla and all the other models are built on."""

    # where this model can have Canon convolutions, and whether its mixers have values to add to
    canon_places: ClassVar[str] = "ACD"
    takes_values: ClassVar[bool] = False

    rope_base: float = Field(
        10_000.0, gt=1, le=MAX_SIZE, description="base of the rotary position frequencies",
        json_schema_extra=tunable(300.0, 100_000.0, log=True),
    )  # fmt: skip
    rope_fraction: float = Field(
        1.0, ge=0, le=1, description="share of a head's dimensions that is rotated",
        json_schema_extra=tunable_choices(0.25, 0.5, 0.75, 1.0),
    )  # fmt: skip
    soft_cap: float = Field(
        15.0, ge=0, le=MAX_NUMBER, description="logits are capped at +-this; 0 is off",
        json_schema_extra=tunable_choices(0.0, 10.0, 15.0, 30.0),
    )  # fmt: skip
    tied: bool = Field(True, description="one matrix for embedding and head")
    conv: int = Field(
        0, ge=0, le=16, description="width of a short causal convolution before the mixer; 0 is off"
    )
    bigrams: int = Field(
        0, ge=0, description="rows of a hashed table of bigram embeddings; 0 is off"
    )
    query_gain: bool = Field(
        True,
        description="attention learns a gain per head on its normalized queries",
        json_schema_extra=added_key(before=False),
    )
    canon: str = Field(
        "",
        description="Canon convolutions of 4 tokens: A before the mixer, B inside it, C before the "
        "MLP, D inside it; empty is off",
    )
    value_residual: bool = Field(
        False, description="the first layer's values are added to those of the others"
    )
    value_embedding: bool = Field(
        False, description="each token has an embedding that is added to the values of all layers"
    )

    suffix: bool = Field(
        False,
        description="what followed the longest earlier match of the last tokens is proposed; a "
        "learned gate says how much that counts",
    )
    end_token: int = Field(
        -1, ge=-1, description="id of the token that begins a document; set from the tokenizer"
    )

    def from_specials(self, specials: Mapping[str, int]) -> dict[str, Any]:
        """The mark between documents, across which nothing is matched."""
        known = self.suffix and "<|end|>" in specials
        return {"end_token": specials["<|end|>"]} if known else {}

    @model_validator(mode="after")
    def _heads_are_even(self) -> BackboneConfig:
        if self.width // self.heads % 2:
            raise ValueError(
                f"model.width / model.heads ({self.width} / {self.heads}) must be even: rotary "
                "positions rotate pairs"
            )
        return self

    @model_validator(mode="after")
    def _switches_apply(self) -> BackboneConfig:
        if "".join(sorted(set(self.canon) & set("ABCD"))) != self.canon:
            raise ValueError(
                f"model.canon ({self.canon}) must be letters of {self.canon_places} in this order, "
                "each at most once; empty is off"
            )
        for place in self.canon:
            if place not in self.canon_places:
                raise ValueError(
                    f"model.canon ({self.canon}): this model has no place {place} for a "
                    f"convolution, only {', '.join(self.canon_places)}"
                )
        for key in ("value_residual", "value_embedding"):
            if getattr(self, key) and not self.takes_values:
                raise ValueError(f"model.{key}: the mixers of this model have no values to add to")
        return self


Recipe = Literal["modern", "classic", "llama"]


class UnrotatedConfig(BackboneConfig):
    """A backbone whose mixer knows the order of tokens without rotary positions: by its decay."""

    rope_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the dimensions of keys and queries that is rotated by position; the "
        "published form has none",
        json_schema_extra=tunable_choices(0.0, 0.5, 1.0),
    )
