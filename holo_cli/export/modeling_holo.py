"""holo's models in the form that `transformers` asks for.

`holo export --to hf` copies this file into the folder it writes, where
`AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)` runs it. It translates: the
installed package `holo-cli` builds the model and computes, so that each formula is written once.

Rows of a batch may have padding on either side, as `attention_mask` says: such rows are computed
one at a time, without it. Legend: B rows, S positions, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

try:
    from holo_cli import registry
except ImportError as error:
    raise ImportError("This model is computed by the package holo: pip install holo-cli") from error


class HoloConfig(PretrainedConfig):
    """`holo_model` is the name of a holo model, `holo_config` its settings."""

    model_type = "holo"

    def __init__(
        self,
        holo_model: str = "vanilla",
        holo_config: dict[str, Any] | None = None,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        self.holo_model = holo_model
        self.holo_config = dict(holo_config or {})
        self.use_cache = use_cache
        self.vocab_size = self.holo_config.get("vocab_size", 0)
        self.hidden_size = self.holo_config.get("width", 0)
        self.num_hidden_layers = self.holo_config.get("layers", 0)
        self.num_attention_heads = self.holo_config.get("heads", 0)
        self.max_position_embeddings = self.holo_config.get("context", 0)
        super().__init__(**kwargs)


class HoloCache:
    """What the model keeps of the tokens so far: one state of all rows, or one state for each row
    where rows had padding. `length` counts padding too."""

    is_compileable = False

    def __init__(self, states: list[Any], length: int) -> None:
        self.states = states
        self.length = length

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the given rows, in that order, as beam search asks."""
        if len(self.states) == 1:
            self.states = [self.states[0].select(beam_idx)]
        else:
            self.states = [self.states[row] for row in beam_idx.tolist()]

    def of_rows(self, rows: int) -> list[Any]:
        """A state for each row."""
        if len(self.states) == rows:
            return self.states
        (state,) = self.states
        places = torch.arange(rows, device=next(state.tensors()).device)
        return [state.select(place[None]) for place in places]


class HoloForCausalLM(PreTrainedModel, GenerationMixin):
    """A holo model, `self.model`, with logits, loss and cache in the form of transformers."""

    config_class = HoloConfig
    _is_stateful = True  # a state cannot be cut back to fewer tokens, as assisted decoding needs

    def __init__(self, config: HoloConfig) -> None:
        super().__init__(config)
        kind = registry.config_class(config.holo_model)
        # not on the meta device: models compute tables that no file has
        with torch.device("cpu"):
            self.model = registry.build_model(
                config.holo_model, kind.from_stored(config.holo_config)
            )
        first: dict[int, str] = {}
        self._tied_weights_keys = {
            name: first[id(parameter)]
            for name, parameter in self.named_parameters(remove_duplicate=False)
            if first.setdefault(id(parameter), name) != name
        }
        config.tie_word_embeddings = bool(self._tied_weights_keys)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: the model drew its own initial values."""

    def get_input_embeddings(self) -> torch.nn.Module:
        weight = self.model.head.weight
        tables = [m for m in self.model.modules() if isinstance(m, torch.nn.Embedding)]
        return next((t for t in tables if t.weight is weight), tables[0])

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.model.head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: HoloCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast | tuple[Tensor, ...]:
        """Tokens (B, S) after those of `past_key_values` -> logits (B, S, V), and loss and cache
        where they are asked for. `attention_mask` (B, all positions so far) is 0 at padding;
        `labels` are shifted here, and -100 is left out."""
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        mask = _padding(attention_mask, input_ids)
        aux: dict[str, Tensor] = {}
        states: list[Any] | None = None
        if mask is not None or (past_key_values is not None and len(past_key_values.states) > 1):
            if mask is None:
                mask = torch.ones_like(input_ids, dtype=torch.bool)
            x, states = self._rows(input_ids, mask, past_key_values)
        elif use_cache or past_key_values is not None:
            state = past_key_values.states[0] if past_key_values else None
            state = self.model.init_state(len(input_ids)) if state is None else state
            x, state = self.model.step_hidden(input_ids, state)
            states = [state]
        else:
            x, aux = self.model.hidden(input_ids)
        logits = self.model.head(x[:, -logits_to_keep:] if logits_to_keep else x)
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
            )
            if self.training:
                loss = loss + sum(aux.values())
        cache = None
        if use_cache and states is not None:
            before = past_key_values.get_seq_length() if past_key_values is not None else 0
            cache = HoloCache(states, before + input_ids.shape[1])
        if return_dict is False:
            return tuple(part for part in (loss, logits, cache) if part is not None)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)

    def _rows(
        self, tokens: Tensor, mask: Tensor, cache: HoloCache | None
    ) -> tuple[Tensor, list[Any]]:
        """Hidden states (B, S, C), zero at padding, and a state for each row."""
        if cache is None:
            states = [self.model.init_state(1) for _ in tokens]
        else:
            states = list(cache.of_rows(len(tokens)))
        width = self.model.config.width
        found = self.model.head.weight.new_zeros(*tokens.shape, width)
        for row, own in enumerate(mask):
            if bool(own.any()):
                x, states[row] = self.model.step_hidden(tokens[row, own][None], states[row])
                found[row, own] = x[0].to(found.dtype)
        return found, states

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: HoloCache | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **unused: Any,
    ) -> dict[str, Any]:
        if past_key_values is not None:
            input_ids = input_ids[:, past_key_values.get_seq_length() :]
        return {
            "input_ids": input_ids,
            "past_key_values": past_key_values,
            "attention_mask": attention_mask,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
        }


def _padding(mask: Tensor | None, tokens: Tensor) -> Tensor | None:
    """(B, S) bool: False at the padding among these tokens; None where there is none."""
    if mask is None:
        return None
    if mask.dim() != 2:
        raise ValueError("attention_mask must be (rows, positions): holo's models have no other")
    own = mask[:, -tokens.shape[1] :].bool()
    return None if bool(own.all()) else own
