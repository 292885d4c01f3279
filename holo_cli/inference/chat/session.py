"""A conversation with a model, without any terminal.

`ChatSession.reply` gives the pieces of an answer as they come. Between turns the decoding state is
kept, so that only new text is read; the answers are those that reading everything again would give.
When the context is full, whole turns are left out, the oldest first; the system text stays.
conversation.py describes how turns become tokens.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from holo_cli.errors import UsageError
from holo_cli.inference.chat.conversation import (
    Turn,
    damaged,
    encode_turns,
    load_conversation,
    read_json,
    save_conversation,
)
from holo_cli.inference.chat.conversation_memory import ConversationMemory, SavedMemory
from holo_cli.inference.generation.engine import PrefixCache
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.generation.sampling import SamplingConfig, derive_seed
from holo_cli.inference.generation.stream import TextGeneration, ids_of_text

SYSTEM_SHARE = 4  # the system text may take one part in this many of the context
LANG = "lang"  # what /set takes beside the sampling options


@dataclass(frozen=True)
class Statistics:
    """Figures of the last answer. `context_used` counts the tokens the model sees by now."""

    tokens: int = 0
    tokens_per_second: float = 0.0
    finish: str = ""
    read_tokens: int = 0  # of the prompt that were not in the kept state
    context_used: int = 0
    context_limit: int | None = None
    dropped_turns: int = 0  # that no longer fit in the context
    cut: bool = False  # the last text alone was too long; its beginning was left out


class ChatSession:
    """Turns with one model. Options out of range raise UsageError and change nothing."""

    def __init__(
        self,
        loaded: LoadedModel,
        sampling: SamplingConfig | None = None,
        system: str = "",
        lang: str | None = None,
    ) -> None:
        self.loaded = loaded
        self.sampling = replace(sampling or SamplingConfig(), num_samples=1)
        self.turns: list[Turn] = []
        self.statistics = Statistics(context_limit=loaded.model.context_limit)
        self.system = ""
        self.lang: str | None = None
        self._known: list[
            PrefixCache
        ] = []  # states worth going on from: before and after an answer
        self._dropped = 0  # oldest turns that are no longer in the context
        self.memory = ConversationMemory(loaded)
        self._answers = 0  # given so far, so that every answer of a seeded chat has its own seed
        self.set_system(system)
        self.set_lang(lang)

    @property
    def only_continues(self) -> bool:
        """Whether the model was trained on plain text only and does not answer but go on."""
        return self.loaded.only_continues

    # -- talking ----------------------------------------------------------------------------------

    def reply(self, text: str) -> Generator[str, None, None]:
        """Reads the text, then yields the answer in pieces.

        The turn belongs to the conversation once the first piece was asked for. An answer that is
        broken off (the iterator closed, or KeyboardInterrupt inside it) is kept as far as it was
        yielded, with the finish "stopped".
        """
        if not text.strip():
            raise UsageError("There is nothing to answer.", next_step="Type a text.")
        return self._begin(self.turns, text)

    def retry(self) -> Generator[str, None, None]:
        """Drops the last answer and answers the same text again."""
        if not self.turns:
            raise UsageError("There is no answer yet to try again.", next_step="Type a text.")
        return self._begin(self.turns[:-1], self.turns[-1].user)

    def _begin(self, before: list[Turn], text: str) -> Generator[str, None, None]:
        turn = self._encode(Turn(text), before[-1].language if before else None)
        dropped, turn, cut = self._fit(before, turn)
        ids = encode_turns(self.loaded.prompts, self.system, [*before[dropped:], turn])
        engine = self.loaded.engine
        kept = max((len(p.ids) for p in self._known if p.begins(ids)), default=0)
        prompt = engine.read(ids, self._known)
        sampling = self.sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=derive_seed(sampling.seed, self._answers))
        recall = self.memory.recall(before, dropped, turn.user_ids)
        decoding = engine.generate(ids, sampling, [prompt], recall)
        writing = TextGeneration(decoding, self.loaded.tokenizer, sampling.stop)
        figures = Statistics(
            read_tokens=len(ids) - kept,
            context_limit=self.loaded.model.context_limit,
            dropped_turns=dropped,
            cut=cut,
        )
        return self._answer(before, turn, writing, prompt, figures)

    def _answer(
        self,
        before: list[Turn],
        turn: Turn,
        writing: TextGeneration,
        prompt: PrefixCache,
        figures: Statistics,
    ) -> Generator[str, None, None]:
        known = [prompt]
        try:
            for piece in writing:
                yield piece.text
            known.append(writing.decoding.prefix())
        except GeneratorExit:  # closed between two pieces: the state is whole
            known.append(writing.decoding.prefix())
            raise
        finally:
            writing.stop()
            sample = writing.samples[0]
            ids = ids_of_text(self.loaded.tokenizer, writing.decoding.new_tokens(0), sample.text)
            answered = replace(
                turn, answer=sample.text, finish=sample.finish or "stopped", answer_ids=tuple(ids)
            )
            self.turns = [*before, answered]
            self._known, self._dropped = known, figures.dropped_turns
            self._answers += 1
            self.statistics = replace(
                figures,
                tokens=sample.tokens,
                tokens_per_second=sample.tokens_per_second,
                finish=answered.finish,
                context_used=self.context_used(),
            )

    def _encode(self, turn: Turn, previous: str | None) -> Turn:
        """The turn with its ids and its language: --lang, else as in the text; a text without
        letters ("1 + 1?") is in the language of the turn before."""
        form = self.loaded.prompts
        language = form.language(turn.user, self.lang)
        if self.lang is None and previous and not any(c.isalpha() for c in turn.user):
            language = previous
        encode = self.loaded.tokenizer.encode
        return replace(
            turn,
            language=language,
            user_ids=tuple(encode(turn.user)),
            answer_ids=tuple(encode(turn.answer)),
        )

    def _fit(self, before: list[Turn], turn: Turn) -> tuple[int, Turn, bool]:
        """How many of the oldest turns to leave out, the new turn, and whether it had to be cut.

        Room is left for the answer, but never more than half of the context. A new text that is
        too long by itself loses its beginning.
        """
        limit = self.loaded.model.context_limit
        if limit is None:
            return 0, turn, False
        budget = limit - min(self.sampling.max_new_tokens, limit // 2)
        form = self.loaded.prompts
        for dropped in range(min(self._dropped, len(before)), len(before) + 1):
            excess = len(encode_turns(form, self.system, [*before[dropped:], turn])) - budget
            if excess <= 0:
                return dropped, turn, False
        return len(before), replace(turn, user_ids=turn.user_ids[excess:]), True

    # -- settings ---------------------------------------------------------------------------------

    def set_option(self, name: str, text: str) -> None:
        """One sampling option, or `lang`, from typed text. Raises UsageError."""
        if name == LANG:
            self.set_lang(None if text.lower() in ("", "none") else text)
            return
        if name.replace("-", "_") == "num_samples":
            raise UsageError("A conversation has one answer at a time.", next_step="Use /retry.")
        self.sampling = self.sampling.with_text(name, text)

    def set_lang(self, lang: str | None) -> None:
        """The language of the turns to come; None finds it in each text."""
        self.loaded.prompts.language("", lang)  # raises for one that is not known
        self.lang = lang

    def set_system(self, text: str) -> None:
        """The text before the first turn; "" for none. It may take a quarter of the context."""
        limit = self.loaded.model.context_limit
        length = len(self.loaded.tokenizer.encode(text))
        if limit is not None and length > limit // SYSTEM_SHARE:
            raise UsageError(
                f"The system text takes {length} tokens; this model's context of {limit} leaves "
                f"{limit // SYSTEM_SHARE} for it.",
                next_step="Shorten it.",
            )
        self.system = text

    # -- the conversation as a whole --------------------------------------------------------------

    def out_of_sight(self) -> int:
        """Turns that the model does not see any more, but the memory may recall."""
        return len(self.memory.out_of_sight(self.turns, self._dropped))

    def clear(self) -> None:
        """Forgets all turns; system text and options stay."""
        self.turns = []
        self._known, self._dropped, self._answers = [], 0, 0
        self.memory.restore(SavedMemory(self.memory.saved.on))
        self.statistics = Statistics(context_limit=self.loaded.model.context_limit)

    def context_used(self) -> int:
        """Tokens of the conversation that the model still sees."""
        seen = self.turns[self._dropped :]
        if not seen:
            return 0
        length = len(encode_turns(self.loaded.prompts, self.system, seen))
        limit = self.loaded.model.context_limit
        return length if limit is None else min(length, limit)

    def state_bytes(self) -> int:
        """Measured size of the decoding state that is kept for the next turn."""
        return self._known[-1].state.nbytes() if self._known else 0

    def save(self, path: Path) -> Path:
        """Writes the conversation as JSON, atomically; returns the path, with .json if it had no
        suffix. Raises HoloError."""
        path = path.expanduser()
        path = path if path.suffix else path.with_suffix(".json")
        header = self.loaded.header
        memory = self.memory.saved.as_dict()
        about = {"model": header.model, "run": header.run, "memory": memory}
        save_conversation(path, self.system, self.lang, self.turns, about)
        return path

    def load(self, path: Path) -> None:
        """Replaces the conversation by a saved one. Raises HoloError and changes nothing when the
        file is missing, damaged, or asks for a language this checkpoint does not know."""
        path = path.expanduser()
        if not path.exists() and not path.suffix:
            path = path.with_suffix(".json")
        system, lang, texts = load_conversation(path)
        try:
            remembered = SavedMemory.of(read_json(path).get("memory"), len(texts))
        except ValueError as error:
            raise damaged(path, str(error)) from error
        old = self.system, self.lang
        try:
            self.set_system(system)
            self.set_lang(lang)
        except UsageError:
            self.system, self.lang = old
            raise
        turns: list[Turn] = []
        for turn in texts:
            turns.append(self._encode(turn, turns[-1].language if turns else None))
        self.clear()
        self.turns = turns
        self.memory.restore(remembered)
