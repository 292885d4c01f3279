"""Config of brain-v2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from holo_cli.config.added import added_key
from holo_cli.config.model_schema import MAX_NUMBER, BackboneConfig, RemovedKey
from holo_cli.config.tunable import tunable, tunable_choices
from holo_cli.wording import counted

MARKER = re.compile(r"<\|(?!end\|)([a-z]{2,3})\|>")  # special tokens that name a language


class Config(BackboneConfig):
    """State space, selective attention, episodic memory and pondering in the modern backbone."""

    mechanism: ClassVar[str] = "state space, episodic memory, attention for the tokens that matter"
    takes_values: ClassVar[bool] = True
    removed: ClassVar[Mapping[str, RemovedKey]] = {
        "memory_gates": RemovedKey(
            "joint", "since separate erase and write gates of the memory did not lower the loss"
        )
    }

    conv: int = Field(
        4, ge=0, le=16, description="width of a short causal convolution before the mixer; 0 is off"
    )
    ssm: Literal["scalar", "selective"] = Field(
        "scalar",
        description="scalar: one decay per head, matrix products; selective: one per channel "
        "and number of state, token by token",
    )
    state: int = Field(
        0,
        ge=0,
        le=256,
        description="state dimensions per channel; 0 is 64 for scalar, 16 for selective",
    )
    dt_min: float = Field(
        0.001, gt=0, le=MAX_NUMBER, description="smallest initial step size of the state space",
        json_schema_extra=tunable(0.0001, 0.02, log=True),
    )  # fmt: skip
    dt_max: float = Field(
        0.1, gt=0, le=MAX_NUMBER, description="largest initial step size of the state space",
        json_schema_extra=tunable(0.02, 0.5, log=True),
    )  # fmt: skip
    attention_every: int = Field(
        4, ge=0, description="every n-th layer attends to selected tokens; 0 is none"
    )
    attention_share: float = Field(
        0.1, gt=0, le=1, description="share of the tokens that attention selects",
        json_schema_extra=tunable(0.05, 0.5, log=True, when={"attention_every": range(1, 1001)}),
    )  # fmt: skip
    attention_calibrated: bool = Field(
        True, description="evaluation and decoding use thresholds set on held-out text",
        json_schema_extra=added_key(before=False),
    )  # fmt: skip
    languages: tuple[str, ...] = Field(
        (), description="languages with a threshold of their own; set from the tokenizer"
    )
    language_tokens: tuple[int, ...] = Field(
        (), description="ids of the languages' markers; set from the tokenizer"
    )
    memory: Literal["delta", "hebbian", "none"] = Field(
        "delta",
        description="episodic memory; delta: a new value replaces the old one of its key, hebbian: "
        "it is added to it",
    )
    memory_every: int = Field(2, ge=1, description="every n-th layer has an episodic memory")
    memory_heads: int = Field(
        0, ge=0, description="heads of the memory, of the usual width; 0 is half of `heads`",
        json_schema_extra=tunable_choices(0, 1, 2, 4, when={"memory": ["delta", "hebbian"]}),
    )  # fmt: skip
    layout: Literal["added", "interleaved"] = Field(
        "interleaved",
        description="interleaved: a layer has one part, attention before memory before the state "
        "space; added: a layer's parts are added",
        json_schema_extra=added_key(before="added"),
    )
    ponder: int = Field(
        1, ge=1, le=16, description="steps that a token's MLP may take; 1 is no pondering"
    )
    ponder_prior: float = Field(
        0.5, gt=0, lt=1, description="prior probability of halting at each step",
        json_schema_extra=tunable(0.2, 0.8, when={"ponder": range(2, 17)}),
    )  # fmt: skip
    ponder_weight: float = Field(
        0.01, ge=0, le=MAX_NUMBER, description="weight of the divergence of halting from its prior",
        json_schema_extra=tunable(0.001, 0.1, log=True, when={"ponder": range(2, 17)}),
    )  # fmt: skip
    ponder_rest: float = Field(
        0.05, ge=0, lt=1, description="a token halts once the remaining probability is at most this"
    )

    @classmethod
    def linked_defaults(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values that are carried between layers need a state space in each."""
        carried = given.get("value_residual") or given.get("value_embedding")
        return {"layout": "added" if carried else "interleaved"}

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def state_size(self) -> int:
        """N: numbers of state per channel."""
        return self.state or (64 if self.ssm == "scalar" else 16)

    @property
    def memory_head_count(self) -> int:
        return self.memory_heads or max(1, self.heads // 2)

    def has_state_space(self, layer: int) -> bool:
        """Whether layer 0, 1, ... has a state space."""
        alone = self.layout == "interleaved"
        return not (alone and (self.has_memory(layer) or self.has_attention(layer)))

    def has_memory(self, layer: int) -> bool:
        """Whether layer 0, 1, ... has an episodic memory."""
        if self.layout == "interleaved" and self.has_attention(layer):
            return False
        return self.memory != "none" and layer % self.memory_every == self.memory_every - 1

    def has_attention(self, layer: int) -> bool:
        """Whether layer 0, 1, ... attends to selected tokens."""
        return self.attention_every > 0 and layer % self.attention_every == self.attention_every - 1

    @property
    def crowded_out(self) -> bool:
        """Whether there is no memory because attention has all of its layers."""
        has_none = not any(self.has_memory(layer) for layer in range(self.layers))
        return has_none and self.memory != "none" and self.memory_every <= self.layers

    def caution(self) -> str:
        if self.crowded_out:
            return (
                f"No layer has a memory: with model.layout = interleaved attention has every layer "
                f"that model.memory_every = {self.memory_every} names. Set model.attention_every "
                f"({self.attention_every}) to another number, or model.layout=added."
            )
        return ""

    def from_specials(self, specials: Mapping[str, int]) -> dict[str, Any]:
        """The languages that the tokenizer has markers for, where thresholds are calibrated."""
        end = super().from_specials(specials)
        if not (self.attention_calibrated and self._attends()):
            return end
        marks = [(MARKER.fullmatch(name), at) for name, at in specials.items()]
        found = {mark[1]: at for mark, at in marks if mark}
        if not found:
            return end
        return end | {"languages": tuple(found), "language_tokens": tuple(found.values())}

    def _attends(self) -> bool:
        return any(self.has_attention(layer) for layer in range(self.layers))

    def without_effect(self) -> frozenset[str]:
        return frozenset() if self._attends() else frozenset({"query_gain", "attention_calibrated"})

    @model_validator(mode="after")
    def _sizes_fit(self) -> Config:
        if self.dt_min > self.dt_max:
            raise ValueError(
                f"model.dt_min ({self.dt_min}) must be at most model.dt_max ({self.dt_max})"
            )
        if len(self.languages) != len(self.language_tokens):
            raise ValueError(
                f"model.language_tokens has {counted(len(self.language_tokens), 'id')} for "
                f"{counted(len(self.languages), 'language')}"
            )
        if self.layout == "interleaved" and (self.value_residual or self.value_embedding):
            raise ValueError(
                "model.layout = interleaved does not go with model.value_residual or "
                "model.value_embedding: only the state space has values to add to"
            )
        if self.state % 2:
            raise ValueError(
                f"model.state ({self.state}) must be even: rotary positions rotate pairs"
            )
        return self
