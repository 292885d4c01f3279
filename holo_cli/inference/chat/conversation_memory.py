"""The memory of one conversation beyond the model's context, and memory files.

The memory holds texts loaded from memory files and the earlier turns outside the context: turns
that were dropped from it or, for a model of unlimited context, turns that ended more than
`model.context` tokens ago, the length the model was trained on. Turns inside the context are left
to the model, because a memory that repeats what was just said reinforces itself.

The same texts serve two ways of recalling: the kNN memory (knn_memory.py), and the suffix memory of
a model that has one, which then proposes from them as from the text that the model reads.

A memory file is JSON: the texts, and a hash of the weights they were saved with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from holo_cli.data.normalize import to_nfc
from holo_cli.errors import HoloError, UsageError
from holo_cli.files import atomic_write_json
from holo_cli.inference.chat import file_names
from holo_cli.inference.chat.conversation import Turn
from holo_cli.inference.chat.knn_memory import KNNMemory, Neighbours
from holo_cli.parsing import ParseError, read_json

if TYPE_CHECKING:
    from holo_cli.inference.generation.loaded_model import LoadedModel

FORMAT = 1
MARK = "holo_memory"  # the key of the format version; marks a JSON file as a memory


class MemoryFileError(HoloError):
    """A file is not what /memory save writes."""

    def __init__(self, message: str) -> None:
        super().__init__(message, next_step="Load a file that /memory save wrote.")


@dataclass(frozen=True)
class SavedMemory:
    """The part of a conversation's memory that is saved with it: whether it is on, how many of
    the first turns `/memory clear` removed from it, and the texts from memory files."""

    on: bool
    cleared: int = 0
    texts: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"on": self.on, "cleared": self.cleared, "texts": list(self.texts)}

    @staticmethod
    def from_dict(content: object, turns: int) -> SavedMemory | None:
        """From the "memory" object of a conversation file with this many turns; None if absent.
        Raises ValueError for anything that `as_dict` does not write."""
        if content is None:
            return None
        if not isinstance(content, dict):
            raise ValueError("not an object")
        on, cleared, texts = (content.get(name) for name in ("on", "cleared", "texts"))
        if not isinstance(on, bool) or type(cleared) is not int or not 0 <= cleared <= turns:
            raise ValueError("'on' or 'cleared'")
        if not isinstance(texts, list) or not are_texts(texts):
            raise ValueError("'texts'")
        return SavedMemory(on, cleared, tuple(texts))


class ConversationMemory:
    """The memory of one conversation. On by default only for models with an episodic or a suffix
    memory of their own, which it extends."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._knn = KNNMemory(loaded.engine)
        self._encoded: tuple[tuple[str, ...], list[tuple[int, ...]]] = ((), [])
        self.saved = self.at_start()
        self.last: Neighbours | None = None  # used for the last answer

    def at_start(self) -> SavedMemory:
        """The memory of an empty conversation."""
        model = self._loaded.model
        return SavedMemory(on=model.has_memory or model.can_recall)

    def neighbours(
        self, turns: Sequence[Turn], dropped: int, query: Sequence[int]
    ) -> Neighbours | None:
        """What to mix into the answer to `query` (token ids) after these turns, of which the first
        `dropped` are no longer in the context; None if the memory is off or empty."""
        self.last = None
        if self.saved.on:
            ids = [ids_of(turn) for turn in self.outside_context(turns, dropped)]
            ids += self._loaded_ids()
            self.last = self._knn.neighbours([i for i in ids if i], query)
        return self.last

    def recalled(self, turns: Sequence[Turn], dropped: int) -> list[tuple[int, ...]]:
        """The texts, as token ids, that the model's suffix memory can propose from; none if the
        memory is off or the model has no such memory. Turns of a model of unlimited context are in
        its state already."""
        model = self._loaded.model
        if not self.saved.on or not model.can_recall:
            return []
        ids = self._loaded_ids()
        if model.context_limit is not None:
            ids += [ids_of(turn) for turn in self.outside_context(turns, dropped)]
        return [i for i in ids if i]

    def _loaded_ids(self) -> list[tuple[int, ...]]:
        """The loaded texts as token ids, encoded once."""
        if self._encoded[0] != self.saved.texts:
            self._encoded = self.saved.texts, encoded(self._loaded, self.saved.texts)
        return list(self._encoded[1])

    def outside_context(self, turns: Sequence[Turn], dropped: int) -> list[Turn]:
        """The turns in the memory: those that the model no longer sees."""
        if self._loaded.model.context_limit is None:
            room, dropped = self._loaded.config.context, len(turns)
            while dropped and room > 0:
                dropped -= 1
                room -= len(ids_of(turns[dropped]))
        return list(turns[self.saved.cleared : dropped])

    def clear(self, turns: int) -> None:
        """Removes the first `turns` turns and all loaded texts from the memory."""
        self._knn.clear()
        self.saved = SavedMemory(self.saved.on, turns)
        self.last = None

    def set_on(self, on: bool) -> None:
        """Turns recall on or off; the texts are kept."""
        self.saved = SavedMemory(on, self.saved.cleared, self.saved.texts)

    def restore(self, saved: SavedMemory | None) -> None:
        """Replaces the memory by a saved one; None is an empty one."""
        self.clear(0)
        self.saved = saved or self.at_start()

    def save(self, path: str | Path, turns: Sequence[Turn]) -> Path:
        """Writes the loaded texts and these turns, inside the context or not, to a memory file;
        returns its path. Raises HoloError."""
        kept = [turn.user + turn.answer for turn in turns[self.saved.cleared :]]
        return write_memory(path, self._loaded, [*self.saved.texts, *kept])

    def load(self, path: str | Path) -> int:
        """Adds the texts of a memory file; returns how many. Raises HoloError, changing nothing."""
        texts = read_memory(path, self._loaded)
        saved = self.saved
        self.saved = SavedMemory(saved.on, saved.cleared, (*saved.texts, *texts))
        return len(texts)


def encoded(loaded: LoadedModel, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Texts as token ids."""
    return [tuple(loaded.tokenizer.encode(to_nfc(text))) for text in texts]


def recall_from(
    loaded: LoadedModel, texts: Sequence[Sequence[int]], prompt: str
) -> Neighbours | None:
    """What to mix into the continuation of `prompt` from the texts of a memory file, as ids."""
    query = encoded(loaded, [prompt])[0]
    return KNNMemory(loaded.engine).neighbours(texts, query)


def ids_of(turn: Turn) -> tuple[int, ...]:
    """The token ids of a turn as one text."""
    return (*turn.user_ids, *turn.answer_ids)


def are_texts(value: object) -> bool:
    """Whether this is a list of non-empty texts."""
    return isinstance(value, list) and all(isinstance(text, str) and text for text in value)


# -- memory files ---------------------------------------------------------------------------------


def identity(loaded: LoadedModel) -> dict[str, Any]:
    """The checkpoint that a memory belongs to: model, run, step and a hash of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(loaded.model.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    header = loaded.header
    who = {"model": header.model, "run": header.run, "step": header.step}
    return {**who, "weights": digest.hexdigest()[:16]}


def write_memory(path: str | Path, loaded: LoadedModel, texts: Sequence[str]) -> Path:
    """Writes texts as JSON atomically and returns the path, with .json added if it had no suffix.
    Only an existing memory file is overwritten. Raises HoloError."""
    path = file_names.to_write(path)
    if path.exists() and path.stat().st_size:
        try:
            _content(path)
        except HoloError as error:
            raise HoloError(
                f"{path} exists and is not a memory file, so it was not overwritten.",
                next_step="Choose another file name.",
            ) from error
    try:
        atomic_write_json(path, {MARK: FORMAT, **identity(loaded), "texts": list(texts)})
    except OSError as error:
        raise HoloError(
            f"The memory could not be written to {path}: {error.strerror or error}.",
            next_step="Choose another folder.",
        ) from error
    return path


def read_memory(path: str | Path, loaded: LoadedModel) -> list[str]:
    """The texts of a memory file. Raises HoloError if it is not one, UsageError if it was saved
    with other weights: recall compares hidden states, which depend on them."""
    path = file_names.to_read(path)
    content = _content(path)
    texts = content.get("texts")
    if not isinstance(texts, list) or not are_texts(texts):
        raise MemoryFileError(f"{path} is not a memory file: it contains no list of texts.")
    own = identity(loaded)
    if content.get("weights") != own["weights"]:
        raise UsageError(
            f"{path} was saved with the checkpoint {_named(content)}, but this one is "
            f"{_named(own)}.",
            next_step="Load the memory with the checkpoint that it was saved with.",
        )
    return texts


def _named(who: dict[str, Any]) -> str:
    name, run, step = (who.get(key, "?") for key in ("model", "run", "step"))
    return f"{name} ({run}, step {step})"


def _content(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise HoloError(
            f"There is no memory file {path}.",
            next_step="Check the name. /memory save FILE writes a memory file.",
        ) from error
    except OSError as error:
        raise HoloError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ParseError as error:
        raise MemoryFileError(f"{path} is not a memory file: it is not JSON in UTF-8.") from error
    if not isinstance(content, dict) or type(content.get(MARK)) is not int:
        raise MemoryFileError(f"{path} is not a memory file: it lacks the key '{MARK}'.")
    if content[MARK] > FORMAT:
        raise HoloError(
            f"{path} was written by a newer version of holo (memory format {content[MARK]}).",
            next_step="Update holo: pip install --upgrade holo-cli",
        )
    return content
