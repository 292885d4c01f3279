"""Config of holographic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from holo_cli.config.added import added_key
from holo_cli.config.model_schema import MAX_NUMBER, MAX_SIZE, BackboneConfig, RemovedKey
from holo_cli.config.tunable import tunable, tunable_choices

# What the memory is made of by default: plates at fixed frequencies, or, where keys are learned,
# one plate, since each costs C^2 parameters a layer.
FIXED: dict[str, Any] = {
    "phases": "gaussian",
    "plates": 8,
    "rope_fraction": 0.25,
    "tied_start": True,
}
LEARNED: dict[str, Any] = {
    "phases": "learned",
    "plates": 1,
    "rope_fraction": 1.0,
    "tied_start": False,
}


class Config(BackboneConfig):
    """Holographic memory in the modern backbone, its variants, and category experts."""

    mechanism: ClassVar[str] = "holographic memory: interference of phases"
    takes_values: ClassVar[bool] = True
    removed: ClassVar[Mapping[str, RemovedKey]] = {
        "binding_shape": RemovedKey(
            "1d", "since binding over a plane or a volume was no better than over a line"
        )
    }

    mixer: Literal["memory", "fftconv", "classic"] = Field(
        "memory",
        description="memory; fftconv: one long learned filter; classic: the older per-token "
        "formula beside attention",
    )
    binding: Literal["phasor", "hrr"] = Field(
        "phasor", description="keys are phases, or spectra of vectors projected to magnitude 1"
    )
    plates: int = Field(
        8, ge=1, le=64, description="redundant plates per head, R; 1 with learned phases",
        json_schema_extra=added_key(before=1) | tunable_choices(
            4, 8, 16, when={"phases": ["gaussian", "gravity"]}
        ),
    )  # fmt: skip
    phases: Literal["learned", "gaussian", "gravity"] = Field(
        "gaussian",
        description="of phasor keys: learned maps for every plate, or fixed random frequencies of "
        "a learned point, whose plates estimate a Gaussian or gravity's kernel",
        json_schema_extra=added_key(before="learned"),
    )
    phase_coords: int = Field(
        8, ge=1, le=256, description="coordinates of a head's point, for fixed frequencies",
        json_schema_extra=tunable_choices(4, 8, 16, when={"phases": ["gaussian", "gravity"]}),
    )  # fmt: skip
    rope_fraction: float = Field(
        0.25, ge=0, le=1,
        description="share of the phases, and of the dimensions of attention, that is rotated by "
        "position; 1 with learned phases",
        json_schema_extra=added_key(before=1.0) | tunable_choices(0.25, 0.5, 0.75, 1.0),
    )  # fmt: skip
    tied_start: bool = Field(
        True, description="keys start with the weights of queries; off with learned phases",
        json_schema_extra=added_key(before=False),
    )  # fmt: skip
    half_life_min: float = Field(
        4.0, gt=0, le=MAX_SIZE, description="initial half-life of the shortest head, in tokens",
        json_schema_extra=tunable(1.0, 32.0, log=True, when={"mixer": ["memory", "fftconv"]}),
    )  # fmt: skip
    half_life_max: float = Field(
        4096.0, gt=0, le=MAX_SIZE, description="initial half-life of the longest head, in tokens",
        json_schema_extra=tunable(64.0, 16_384.0, log=True, when={"mixer": ["memory", "fftconv"]}),
    )  # fmt: skip
    fft_modes: int = Field(
        16, ge=1, le=256,
        description="fftconv: decaying oscillations per head that sum to its filter",
        json_schema_extra=tunable_choices(8, 16, 32, 64, when={"mixer": ["fftconv"]}),
    )  # fmt: skip
    blend: bool = Field(
        False, description="mix the memory with attention, by a gate per head and token"
    )
    attention_every: int = Field(
        0, ge=0, description="every n-th layer is plain attention; 0 is none"
    )
    topology: bool = Field(
        False, description="the output gate depends on how crowded the past is around a token"
    )
    topology_window: int = Field(
        16, ge=2, le=256, description="tokens back in which topology looks for neighbours"
    )
    experts: int = Field(
        1, ge=1, le=256, description="category experts; 1 is a plain MLP",
        json_schema_extra=added_key(before=3),
    )  # fmt: skip
    experts_top_k: int = Field(1, ge=1, description="experts that process each token")
    balance: float = Field(
        0.01, ge=0, le=MAX_NUMBER,
        description="weight of the load-balancing loss of the experts; 0 is off",
        json_schema_extra=tunable(0.001, 0.1, log=True, when={"experts": range(2, 257)}),
    )  # fmt: skip

    @classmethod
    def linked_defaults(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Keys of hrr are learned, and the other mixers have no plates."""
        learned = (
            given.get("phases") == "learned"
            or given.get("binding") == "hrr"
            or given.get("mixer") in ("fftconv", "classic")
        )
        return LEARNED if learned else FIXED

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def has_attention(self, layer: int) -> bool:
        """Whether a layer keeps keys and values of the past, 0 .. layers - 1."""
        return self.blend or self.mixer == "classic" or self.is_plain_attention(layer)

    def is_plain_attention(self, layer: int) -> bool:
        return self.attention_every > 0 and (layer + 1) % self.attention_every == 0

    def without_effect(self) -> frozenset[str]:
        attends = any(self.has_attention(layer) for layer in range(self.layers))
        return frozenset() if attends else frozenset({"query_gain"})

    @model_validator(mode="after")
    def _choices_agree(self) -> Config:
        if self.binding == "hrr" and self.phases != "learned":
            raise ValueError(
                f"model.phases ({self.phases}) is for model.binding phasor; hrr learns its keys"
            )
        if self.binding == "hrr" and self.head_width < 3:
            # the Fourier transform of two numbers is real: there are signs, but no phases to learn
            raise ValueError(
                "model.binding hrr needs heads of more than 2 numbers, and model.width / "
                f"model.heads is {self.head_width}"
            )
        if self.half_life_max < self.half_life_min:
            raise ValueError(
                f"model.half_life_max ({self.half_life_max:g}) must be at least "
                f"model.half_life_min ({self.half_life_min:g})"
            )
        if self.experts_top_k > self.experts:
            raise ValueError(
                f"model.experts_top_k ({self.experts_top_k}) must be at most model.experts "
                f"({self.experts})"
            )
        if self.attention_every == 1 or self.attention_every > self.layers:
            raise ValueError(
                f"model.attention_every ({self.attention_every}) must be 0, or from 2 to "
                f"model.layers ({self.layers})"
            )
        if self.mixer == "classic" and (self.blend or self.topology):
            raise ValueError(
                "model.mixer classic has its own way to join attention, and no gate: "
                "model.blend and model.topology must be false"
            )
        return self
