"""A conversation with a model, independent of any terminal.

`ChatSession.reply` yields the pieces of an answer as they are decoded. The decoding state is kept
between turns, so that only new text is prefilled; the answers equal those of a full prefill.
When the context is full, whole turns are dropped, oldest first; the system text stays.
conversation.py describes how turns become tokens.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from holo_cli.data.normalize import to_nfc
from holo_cli.errors import UsageError
from holo_cli.inference.chat import file_names
from holo_cli.inference.chat.conversation import (
    ConversationFileError,
    Turn,
    encode_turn,
    encode_turns,
    load_conversation,
    read_conversation_file,
    save_conversation,
)
from holo_cli.inference.chat.conversation_memory import ConversationMemory, SavedMemory, ids_of
from holo_cli.inference.generation.engine import PrefixCache
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.inference.generation.sampling import SamplingConfig, derive_seed
from holo_cli.inference.generation.speculation import DraftCounts
from holo_cli.inference.generation.stream import TextGeneration, ids_of_text
from holo_cli.wording import counted

SYSTEM_SHARE = 4  # the system text may take 1 / SYSTEM_SHARE of the context
LANG = "lang"  # accepted by /set in addition to the sampling options


@dataclass(frozen=True)
class Statistics:
    """Statistics of the last answer. `context_used` counts the tokens the model now sees."""

    tokens: int = 0
    tokens_per_second: float = 0.0
    finish: str = ""
    read_tokens: int = 0  # prompt tokens that were not in the cached state
    context_used: int = 0
    context_limit: int | None = None
    dropped_turns: int = 0  # oldest turns that no longer fit in the context
    drafted: DraftCounts | None = None  # with draft_layers: tokens guessed and accepted
    cut: bool = False  # the last user text alone was too long; its beginning was dropped


class ChatSession:
    """A conversation with one model. Invalid options raise UsageError and change nothing."""

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
        self._caches: list[PrefixCache] = []  # states to resume from: before and after an answer
        self._dropped = 0  # oldest turns that are no longer in the context
        self.memory = ConversationMemory(loaded)
        self._answers = 0  # so far; derives a seed per answer from the seed of the conversation
        self.set_system(system)
        self.set_lang(lang)

    @property
    def only_continues(self) -> bool:
        """Whether this is a base model, which continues text instead of answering."""
        return self.loaded.only_continues

    # -- answers ----------------------------------------------------------------------------------

    def reply(self, text: str) -> Generator[str, None, None]:
        """Prefills the text, then yields the answer in pieces.

        The turn becomes part of the conversation when the first piece is requested. An answer that
        is interrupted (iterator closed, or KeyboardInterrupt inside it) is kept as far as it was
        yielded, with the finish "stopped".
        """
        if not text.strip():
            raise UsageError("The text is empty.", next_step="Type a text.")
        return self._begin(self.turns, text)

    def retry(self) -> Generator[str, None, None]:
        """Drops the last answer and answers the same text again."""
        if not self.turns:
            raise UsageError("There is no answer to retry yet.", next_step="Type a text first.")
        return self._begin(self.turns[:-1], self.turns[-1].user)

    def _begin(self, before: list[Turn], text: str) -> Generator[str, None, None]:
        turn = self._encode(Turn(text), before[-1].language if before else None)
        dropped, turn, cut = self._fit(before, turn)
        ids = encode_turns(self.loaded.prompts, self.system, [*before[dropped:], turn])
        engine = self.loaded.engine
        texts = self.memory.recalled(before, dropped)
        known = engine.recalled(texts, ())
        cached = max((len(p.ids) for p in self._caches if p.is_prefix_of(ids, known)), default=0)
        prompt = engine.prefill(ids, self._caches, texts)
        sampling = self.sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=derive_seed(sampling.seed, self._answers))
        neighbours = self.memory.neighbours(before, dropped, turn.user_ids)
        decoding = engine.generate(ids, sampling, [prompt], neighbours, texts)
        generation = TextGeneration(decoding, self.loaded.tokenizer, sampling.stop)
        statistics = Statistics(
            read_tokens=len(ids) - cached,
            context_limit=self.loaded.model.context_limit,
            dropped_turns=dropped,
            cut=cut,
        )
        return self._answer(before, turn, generation, prompt, statistics)

    def _answer(
        self,
        before: list[Turn],
        turn: Turn,
        generation: TextGeneration,
        prompt: PrefixCache,
        statistics: Statistics,
    ) -> Generator[str, None, None]:
        caches = [prompt]
        try:
            for piece in generation:
                yield piece.text
            caches.append(generation.decoding.prefix())
        except GeneratorExit:  # closed between two pieces, so the state is consistent
            caches.append(generation.decoding.prefix())
            raise
        finally:
            generation.stop()
            sample = generation.samples[0]
            ids = ids_of_text(self.loaded.tokenizer, generation.decoding.new_tokens(0), sample.text)
            answered = replace(
                turn, answer=sample.text, finish=sample.finish or "stopped", answer_ids=tuple(ids)
            )
            self.turns = [*before, answered]
            self._caches, self._dropped = caches, statistics.dropped_turns
            self._answers += 1
            self.statistics = replace(
                statistics,
                tokens=sample.tokens,
                tokens_per_second=sample.tokens_per_second,
                finish=answered.finish,
                drafted=generation.decoding.drafted,
                context_used=self.context_used(),
            )

    def _encode(self, turn: Turn, previous: str | None) -> Turn:
        return encode_turn(self.loaded.prompts, turn, previous, self.lang)

    def _fit(self, before: list[Turn], turn: Turn) -> tuple[int, Turn, bool]:
        """How many of the oldest turns to drop, the new turn, and whether it was truncated.

        Reserves room for the answer, at most half of the context. A new text that is too long by
        itself loses its beginning.
        """
        limit = self.loaded.model.context_limit
        if limit is None:
            return 0, turn, False
        budget = limit - min(self.sampling.max_new_tokens, limit // 2)
        form = self.loaded.prompts
        # Separators come on top: turns that are too long without them need not be encoded. A
        # conversation of a thousand turns would take seconds.
        first, room = len(before), budget - len(ids_of(turn))
        while first > self._dropped and room >= 0:
            first -= 1
            room -= len(ids_of(before[first]))
        for dropped in range(first, len(before) + 1):
            excess = len(encode_turns(form, self.system, [*before[dropped:], turn])) - budget
            if excess <= 0:
                return dropped, turn, False
        return len(before), replace(turn, user_ids=turn.user_ids[excess:]), True

    # -- settings ---------------------------------------------------------------------------------

    def set_option(self, name: str, text: str) -> None:
        """Sets one sampling option, or `lang`, from typed text. Raises UsageError."""
        if name == LANG:
            self.set_lang(None if text.lower() in ("", "none") else text)
            return
        if name.replace("-", "_") == "num_samples":
            raise UsageError(
                "A conversation has one answer at a time.",
                next_step="Use /retry for another answer.",
            )
        self.sampling = self.sampling.with_text(name, text)

    def option(self, name: str) -> str:
        """The value of one sampling option, or of `lang`, as text. Raises UsageError."""
        if name == LANG:
            return self.lang or "(detected in each text)"
        return str(self.sampling.value(name))

    def set_lang(self, lang: str | None) -> None:
        """Sets the language of later turns; None detects it in each text."""
        self.loaded.prompts.language("", lang)  # raises for an unknown one
        self.lang = lang

    def set_system(self, text: str) -> None:
        """Sets the text before the first turn ("" for none), at most a quarter of the context."""
        text = to_nfc(text)
        limit = self.loaded.model.context_limit
        length = len(self.loaded.tokenizer.encode(text))
        if limit is not None and length > limit // SYSTEM_SHARE:
            raise UsageError(
                f"The system text has {counted(length, 'token')}, but at most "
                f"{limit // SYSTEM_SHARE} of this "
                f"model's context of {counted(limit, 'token')} are available for it.",
                next_step="Shorten the system text.",
            )
        self.system = text

    # -- the conversation as a whole --------------------------------------------------------------

    def turns_outside_context(self) -> int:
        """Number of turns that the model no longer sees but the memory can recall."""
        return len(self.memory.outside_context(self.turns, self._dropped))

    def clear(self) -> None:
        """Removes all turns; the system text and the options stay."""
        self.turns = []
        self._caches, self._dropped, self._answers = [], 0, 0
        self.memory.restore(SavedMemory(self.memory.saved.on))
        self.statistics = Statistics(context_limit=self.loaded.model.context_limit)

    def context_used(self) -> int:
        """Tokens of the conversation that the model sees."""
        seen = self.turns[self._dropped :]
        if not seen:
            return 0
        length = len(encode_turns(self.loaded.prompts, self.system, seen))
        limit = self.loaded.model.context_limit
        return length if limit is None else min(length, limit)

    def state_bytes(self) -> int:
        """Measured size of the decoding state kept for the next turn, in bytes."""
        return self._caches[-1].state.nbytes() if self._caches else 0

    def save(self, path: str | Path) -> Path:
        """Writes the conversation as JSON atomically; returns the path, with .json added if it had
        no suffix. Raises HoloError."""
        path = file_names.to_write(path)
        header = self.loaded.header
        memory = self.memory.saved.as_dict()
        about = {"model": header.model, "run": header.run, "memory": memory}
        save_conversation(path, self.system, self.lang, self.turns, about)
        return path

    def load(self, path: str | Path) -> Path:
        """Replaces the conversation by a saved one and returns its path. Raises HoloError and
        changes nothing if the file is missing, damaged, or in a language that this checkpoint does
        not support."""
        path = file_names.to_read(path)
        system, lang, texts = load_conversation(path)
        try:
            memory = SavedMemory.from_dict(read_conversation_file(path).get("memory"), len(texts))
        except ValueError as error:
            raise ConversationFileError(f"{path} has an invalid memory: {error}.") from error
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
        self.memory.restore(memory)
        return path
