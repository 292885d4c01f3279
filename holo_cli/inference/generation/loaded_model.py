"""A loaded checkpoint: the model and its tokenizer, with text in and text out.

`holo.load(...)` returns a `LoadedModel`; `holo generate` and `holo chat` are thin wrappers of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holo_cli.data.normalize import to_nfc
from holo_cli.errors import UsageError
from holo_cli.inference.chat.conversation import Turn, encode_turn, encode_turns
from holo_cli.inference.generation.engine import Engine, LogitsMixer
from holo_cli.inference.generation.prompt import PromptFormat, span_breakers
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.inference.generation.stream import TextGeneration
from holo_cli.inference.generation.weights import INT8, STORED, quantise, relay
from holo_cli.inference.generation.whole_characters import WholeCharacters

if TYPE_CHECKING:
    import torch

    from holo_cli.checkpoint.header import Header
    from holo_cli.config.model_schema import ModelConfig
    from holo_cli.data.tokenizers import Tokenizer
    from holo_cli.models.base import LanguageModel


@dataclass
class LoadedModel:
    """A model, its tokenizer, and the header of their checkpoint."""

    model: LanguageModel
    tokenizer: Tokenizer
    header: Header
    dtype: torch.dtype | None = None  # None: the dtype of the weights
    compile_steps: bool = False  # whether decoding goes through torch.compile

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return self.model.config

    @cached_property
    def engine(self) -> Engine:
        banned = self.tokenizer.unsampled(self.model.config.vocab_size)
        characters = WholeCharacters(self.tokenizer, self.model.config.vocab_size)
        relay(self.model)
        return Engine(
            self.model,
            end=self.tokenizer.end,
            banned=banned,
            breakers=span_breakers(self.tokenizer),
            characters=characters if characters.is_needed else None,
            dtype=self.dtype,
            compile_steps=self.compile_steps,
        )

    @cached_property
    def prompts(self) -> PromptFormat:
        """How this checkpoint encodes prompts."""
        return PromptFormat.of(self.tokenizer, self.header.data)

    @property
    def only_continues(self) -> bool:
        """Whether this is a base model, which continues text: it was trained on no conversations,
        so that the checkpoint's header has no chat format."""
        return self.header.data.chat is None

    def write(
        self,
        prompt: str,
        sampling: SamplingConfig,
        lang: str | None = None,
        mixer: LogitsMixer | None = None,
        texts: Sequence[tuple[int, ...]] = (),
    ) -> TextGeneration:
        """Prefills the prompt, then yields (row, text) pieces of all samples as they are decoded.

        `mixer` changes the logits of every new token, as a memory does (chat/knn_memory.py);
        `texts` are token ids that a suffix memory can propose from.
        """
        ids = self.prompts.encode(prompt, lang)
        if sampling.num_samples > 1:  # one row fits, and the import costs start-up time
            from holo_cli.training.capacity import check_rows

            # a row has at least its logits, twice while it is sampled from, in float64
            row = 16 * self.model.config.vocab_size
            check_rows(sampling.num_samples, row, "--num-samples", self.model.device)
        decoding = self.engine.generate(ids, sampling, mixer=mixer, texts=texts)
        return TextGeneration(decoding, self.tokenizer, sampling.stop)

    def generate(
        self, prompt: str = "", *, stream: bool = False, lang: str | None = None, **sampling: Any
    ) -> str | list[str] | Iterator[str]:
        """The text that follows the prompt, without the prompt.

        `sampling` are the fields of SamplingConfig: max_new_tokens, temperature, top_k, ...
        `stream=True` returns an iterator of pieces, `num_samples` above 1 a list of texts.
        Raises UsageError for options that do not exist or are out of range.
        """
        config = SamplingConfig.from_options(sampling)
        if stream and config.num_samples > 1:
            raise UsageError(
                "stream=True supports only one sample.",
                next_step="Omit num_samples, or use write(), whose pieces name their sample.",
            )
        writing = self.write(prompt, config, lang)
        pieces = (piece.text for piece in writing)
        if stream:
            return pieces
        for _ in pieces:
            pass
        texts = [sample.text for sample in writing.samples]
        return texts if config.num_samples > 1 else texts[0]

    def answer(
        self, text: str, *, system: str = "", lang: str | None = None, **sampling: Any
    ) -> str:
        """The answer to a text, as the first of a conversation: what `holo chat` shows.

        A base model continues the text instead. Raises UsageError as `generate` does.
        """
        config = replace(SamplingConfig.from_options(sampling), num_samples=1)
        turn = encode_turn(self.prompts, Turn(text), None, lang)
        ids = encode_turns(self.prompts, to_nfc(system), [turn])
        decoding = self.engine.generate(ids, config)
        return "".join(p.text for p in TextGeneration(decoding, self.tokenizer, config.stop))

    def generate_full(
        self, prompt: str = "", *, lang: str | None = None, **sampling: Any
    ) -> dict[str, Any]:
        """Like `generate`, with statistics: the keys of `holo generate --json`.

        {"samples": [{"text", "tokens", "tokens_per_second", "finish"}], "prompt_tokens": int}
        """
        writing = self.write(prompt, SamplingConfig.from_options(sampling), lang)
        for _ in writing:
            pass
        return {
            "samples": [asdict(sample) for sample in writing.samples],
            "prompt_tokens": writing.prompt_tokens,
        }


def load(
    path_or_run: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    weights: str = STORED,
    compile_steps: bool = False,
) -> LoadedModel:
    """Loads a checkpoint by path, by run name ("ngt-shakespeare"), or (default) the newest one.

    `device` is auto, cpu, cuda or mps; `dtype` None computes in the dtype of the weights (float32),
    others run under autocast. `weights` "int8" rounds them to eight bits, for faster decoding on a
    CPU (docs/commands/generate.md). `compile_steps` makes each step of decoding one graph by
    torch.compile, which takes up to a minute before the first token. Raises CheckpointError for a
    file that is missing or damaged, UsageError for a device that is not available.
    """
    from holo_cli.checkpoint import load_model
    from holo_cli.training.precision import pick_device

    model, tokenizer, header = load_model(path_or_run, device=pick_device(device))
    if weights == INT8:
        quantise(model)
    return LoadedModel(model, tokenizer, header, dtype, compile_steps)
