"""Config of brain-v1."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from holo_cli.config.added import added_key
from holo_cli.config.model_schema import MAX_NUMBER, BackboneConfig, RemovedKey, Stage
from holo_cli.config.tunable import tunable, tunable_choices
from holo_cli.wording import counted

NO_MARKER = -1  # in `language_tokens`: a language without a marker in this vocabulary
Sparsity = Literal["self", "columns", "kwta", "both", "dense"]
_SPARSE = ["self", "columns", "kwta", "both"]


class Config(BackboneConfig):
    """Sparse columns in the modern backbone, with options inspired by cortex."""

    mechanism: ClassVar[str] = "attention; an MLP of columns, of which 5 % fires at once"
    canon_places: ClassVar[str] = "AB"
    takes_values: ClassVar[bool] = True
    removed: ClassVar[Mapping[str, RemovedKey]] = {
        "inhibition": RemovedKey(
            False, "since columns learned nothing of each other and the loss did not fall"
        ),
        "dense_start": RemovedKey(
            0.0, "since winners that were few from the first step ended at the same loss"
        ),
        "predictor": RemovedKey(
            0, "since choosing among predicted candidates took more time than choosing among all"
        ),
        "predictor_share": RemovedKey(
            0.25, "with model.predictor, whose candidates it counted", detail_of="predictor"
        ),
    }

    mlp_ratio: float = Field(
        5.0, gt=0, le=100_000, description="hidden units of the MLP, as a multiple of C"
    )

    # -- sparse activity --------------------------------------------------------------------------
    sparsity: Sparsity = Field(
        "columns",
        description="columns: a router keeps few; self: the loudest columns are kept; kwta: the "
        "largest units win; both: winners inside columns that a router keeps; dense: all units, "
        "the twin to compare with",
    )
    activity: float = Field(
        0.05, description="share of the hidden units that fire for a token, above 0 and at most 1"
    )
    activation: Literal["signed", "relu"] = Field(
        "signed",
        description="what a unit that may fire sends; signed: u |u|, so that all of them do; relu: "
        "relu(u)^2, silent below zero",
        json_schema_extra=added_key(before="relu"),
    )
    columns: int = Field(40, ge=1, le=4096, description="columns of the MLP; they share its units")
    selection_inputs: float = Field(
        0.125, gt=0, le=1, description="self: share of the inputs by which columns are judged"
    )
    columns_kept: int = Field(
        0, ge=0, description="columns computed for a token; 0: as few as hold the active units",
        json_schema_extra=tunable_choices(0, 4, 8, when={"sparsity": ["both"]}),
    )  # fmt: skip
    shared_columns: int = Field(
        0, ge=0, description="of the kept columns, how many are kept for every token"
    )
    masked: bool = Field(
        False, description="compute every column and mask: no gain, for comparison only"
    )
    gate: Literal["drive", "sigmoid"] = Field(
        "drive",
        description="columns, both: how the router's value enters: added to the column's units "
        "before they fire, or as a factor after",
        json_schema_extra=tunable_choices("drive", "sigmoid", when={"sparsity": ["columns"]}),
    )
    balance: float = Field(
        1.0, ge=0, le=MAX_NUMBER,
        description="strength of load balancing over columns or units; 0 is off",
        json_schema_extra=tunable(0.1, 10.0, log=True, when={"sparsity": _SPARSE}),
    )  # fmt: skip
    depth_schedule: bool = Field(
        False, description="activity by thirds of the depth: 2, 1 and 0.4 times `activity`"
    )
    two_four: Literal["none", "mlp", "all"] = Field(
        "none", description="2:4 sparse weights: two of any four along the input are zero"
    )

    # -- attention --------------------------------------------------------------------------------
    dendrites: int = Field(
        0, ge=0, le=64, description="dendrites per head that gate it by context; 0 is off",
        json_schema_extra=tunable_choices(0, 2, 4, 8),
    )  # fmt: skip
    attention_top: float = Field(
        1.0, gt=0, le=1, description="evaluation keeps this share of a token's attention weights"
    )

    # -- early exit -------------------------------------------------------------------------------
    exit_loss: float = Field(
        0.0,
        ge=0,
        le=MAX_NUMBER,
        description="weight of the loss of earlier layers' predictions; 0 is off",
    )
    exit_threshold: float = Field(
        2.0,
        gt=0,
        le=MAX_NUMBER,
        description="a token exits where its confidence reaches this; above 1 never",
    )
    exit_weights: Literal["deeper", "even"] = Field(
        "deeper", description="how layers share `exit_loss`: deeper ones more, or all the same"
    )
    exit_confidence: Literal["top1", "margin", "entropy", "learned"] = Field(
        "top1", description="largest probability; its lead over the second; 1 - entropy / ln V; "
        "learned: a gate predicts what leaving costs",
    )  # fmt: skip
    exit_from: int = Field(1, ge=1, description="layers that every token passes before it may exit")
    exit_every: int = Field(1, ge=1, description="an exit after every n-th layer")
    layer_dropout: float = Field(
        0.0, ge=0, lt=1, description="probability of skipping the last layer in training; "
        "earlier layers less, the first never",
    )  # fmt: skip

    # -- languages --------------------------------------------------------------------------------
    adapters: int = Field(0, ge=0, description="width of the language adapters; 0 is off")
    languages: tuple[str, ...] = Field(("ko", "en"), description="languages with an adapter")
    language_tokens: tuple[int, ...] = Field(
        (), description="ids of the languages' markers; set from the tokenizer"
    )
    language: str = Field("en", description="adapter used before the first marker")

    # -- growth -----------------------------------------------------------------------------------
    growth: tuple[int, ...] = Field(
        (), description="layers of the stages before the whole model, as in [2, 4, 8, 12]"
    )
    growth_at: tuple[float, ...] = Field(
        (), description="share of the steps at which each stage ends; empty: evenly, by one half"
    )
    growth_how: Literal["identity", "copy"] = Field(
        "identity", description="new layers that change nothing at first, or copies of the old ones"
    )

    @property
    def hidden(self) -> int:
        """Hidden units of a layer's MLP."""
        return round(self.mlp_ratio * self.width)

    @property
    def column_units(self) -> int:
        return self.hidden // self.columns

    @property
    def selection_width(self) -> int:
        """How many of the first inputs columns are judged by: their share, a multiple of 4 where
        the width is one, as 2:4 weights need."""
        wanted = -(-max(1, round(self.selection_inputs * self.width)) // 4) * 4
        return min(self.width, wanted)

    def layer_activity(self, layer: int) -> float:
        """The share of units to fire in a layer, 0 .. layers - 1."""
        if not self.depth_schedule:
            return self.activity
        return min(1.0, self.activity * (2.0, 1.0, 0.4)[third(layer, self.layers)])

    def active_units(self, layer: int) -> int:
        """The units that fire for a token in a layer: the nearest whole number, at least one."""
        return max(1, round(self.layer_activity(layer) * self.hidden))

    def kept_columns(self, layer: int) -> int:
        """The columns that are computed for a token in a layer."""
        least = -(-self.active_units(layer) // self.column_units)
        return max(self.columns_kept, least)

    def from_specials(self, specials: Mapping[str, int]) -> dict[str, Any]:
        """The ids of the languages' markers, where there are adapters to choose by them."""
        ids = tuple(specials.get(f"<|{language}|>", NO_MARKER) for language in self.languages)
        known = self.adapters and any(i != NO_MARKER for i in ids)
        return super().from_specials(specials) | ({"language_tokens": ids} if known else {})

    def stages(self) -> tuple[Stage, ...]:
        """The depths of growth, the whole model last; () without growth.

        >>> [tuple(s) for s in Config(layers=12, width=320, heads=5, growth=(2, 4, 8)).stages()]
        [(0.0, 2), (0.16667, 4), (0.33333, 8), (0.5, 12)]
        """
        depths = [depth for depth in self.growth if depth < self.layers]
        if not depths:
            return ()
        count = len(depths)
        at = self.growth_at or tuple(round(0.5 * (i + 1) / count, 5) for i in range(count))
        return tuple(Stage(*s) for s in zip((0.0, *at), (*depths, self.layers), strict=True))

    @model_validator(mode="after")
    def _sparsity_is_possible(self) -> Config:
        if not 0 < self.activity <= 1:
            raise ValueError(
                f"model.activity ({self.activity:g}) is the share of units that fire: above 0 and "
                "at most 1, as in 0.05"
            )
        if self.gate != "drive" and self.sparsity == "self":
            raise ValueError(
                f"model.gate ({self.gate}) is for a router's value, and with model.sparsity self "
                "there is no router: set model.sparsity to columns or both"
            )
        if self.hidden % self.columns:
            raise ValueError(
                f"model.columns ({self.columns}) must divide the hidden units, model.mlp_ratio x "
                f"model.width = {self.hidden}"
            )
        if self.columns_kept > self.columns:
            raise ValueError(
                f"model.columns_kept ({self.columns_kept}) must be at most model.columns "
                f"({self.columns})"
            )
        least = min(self.kept_columns(layer) for layer in range(self.layers))
        if self.shared_columns and self.shared_columns >= least:
            raise ValueError(
                f"model.shared_columns ({self.shared_columns}) must leave a column to choose: "
                f"{least} are kept"
            )
        if self.two_four != "none" and (self.width % 4 or self.column_units % 4):
            raise ValueError(
                f"model.two_four needs groups of four inputs: model.width ({self.width}) and the "
                f"units of a column ({self.column_units}) must be multiples of 4"
            )
        return self

    @model_validator(mode="after")
    def _languages_agree(self) -> Config:
        if self.adapters and self.language not in self.languages:
            raise ValueError(
                f"model.language ({self.language}) must be one of model.languages "
                f"({', '.join(self.languages)})"
            )
        if self.language_tokens and len(self.language_tokens) != len(self.languages):
            raise ValueError(
                f"model.language_tokens has {counted(len(self.language_tokens), 'id')} for "
                f"{counted(len(self.languages), 'language')}"
            )
        return self

    @model_validator(mode="after")
    def _exits_can_be_learned(self) -> Config:
        if self.exit_confidence != "learned":
            return self
        if not self.exit_loss:
            raise ValueError(
                "model.exit_confidence learned is trained with the exits, and model.exit_loss is "
                "0: set it above 0, as in 0.3"
            )
        if self.growth:
            raise ValueError(
                "model.exit_confidence learned does not go with model.growth: a new layer has no "
                "trained gate"
            )
        first = -(-self.exit_from // self.exit_every) * self.exit_every
        if first >= self.layers:
            raise ValueError(
                f"model.exit_confidence learned needs an exit before the last layer: the first "
                f"that model.exit_from ({self.exit_from}) and model.exit_every "
                f"({self.exit_every}) leave is after layer {first} of {self.layers}"
            )
        return self

    @model_validator(mode="after")
    def _growth_is_growth(self) -> Config:
        stages = ", ".join(map(str, self.growth))
        if any(a >= b for a, b in pairwise((0, *self.growth))):
            raise ValueError(f"model.growth ({stages}) must rise from stage to stage, from 1 on")
        if self.growth and self.value_residual:
            raise ValueError(
                "model.value_residual does not go with model.growth: a new layer may be a copy of "
                "the first one, which has no factor for the first layer's values"
            )
        if self.growth and self.growth[-1] > self.layers:
            raise ValueError(
                f"model.growth ({stages}) is deeper than the model: model.layers is {self.layers}"
            )
        count = sum(depth < self.layers for depth in self.growth)
        if self.growth_at and len(self.growth_at) != count:
            raise ValueError(
                f"model.growth_at must have {counted(count, 'share')}, one for each stage before "
                "the whole "
                f"model, and has {len(self.growth_at)}"
            )
        ends = (0.0, *self.growth_at, 1.0)
        if any(a >= b for a, b in pairwise(ends)):
            raise ValueError(
                "model.growth_at must rise from stage to stage, between 0 and 1, as in [0.1, 0.3]"
            )
        return self


def third(layer: int, layers: int) -> int:
    """0, 1 or 2: the third of the depth that a layer, 0 .. layers - 1, stands in."""
    return layer * 3 // layers
