"""What one conversation remembers beyond what its model still sees, and memory files.

Remembered are the earlier turns that are out of sight, and texts loaded from memory files. Out of
sight is a turn that was left out of the context, or, for a model whose past has no limit but
fades, one that ended more than `model.context` tokens ago: the length it was trained to look back.
What is in sight is left to the model: a store that repeats what was just said feeds on itself.

A memory file is JSON: the texts, and which weights they were remembered with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from holo_cli.errors import HoloError, UsageError
from holo_cli.files import atomic_write_json
from holo_cli.inference.chat.conversation import Turn
from holo_cli.inference.chat.knn_memory import KNNMemory, Recall

if TYPE_CHECKING:
    from holo_cli.inference.generation.loaded_model import LoadedModel

FORMAT = 1
MARK = "holo_memory"  # the key that says a JSON file is one, and its format


@dataclass(frozen=True)
class SavedMemory:
    """What is saved with a conversation: whether its memory is on, how many of the first turns
    /memory clear let go of, and the texts that came from memory files."""

    on: bool
    cleared: int = 0
    texts: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"on": self.on, "cleared": self.cleared, "texts": list(self.texts)}

    @staticmethod
    def of(content: object, turns: int) -> SavedMemory | None:
        """From the "memory" of a conversation file with so many turns; None if there is none.
        Raises ValueError for anything that `as_dict` does not write."""
        if content is None:
            return None
        if not isinstance(content, dict):
            raise ValueError("its memory is not an object")
        on, cleared, texts = (content.get(name) for name in ("on", "cleared", "texts"))
        if not isinstance(on, bool) or type(cleared) is not int or not 0 <= cleared <= turns:
            raise ValueError("its memory has no 'on' or no right 'cleared'")
        if not isinstance(texts, list) or not are_texts(texts):
            raise ValueError("its memory has no list of texts")
        return SavedMemory(on, cleared, tuple(texts))


class ConversationMemory:
    """The memory of one conversation. On from the start for models with an episodic memory of
    their own, which this one carries on; off for others until it is asked for."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._store = KNNMemory(loaded.engine)
        self.saved = self.at_start()
        self.last: Recall | None = None  # what was asked for the last answer

    def at_start(self) -> SavedMemory:
        """What an empty conversation remembers."""
        return SavedMemory(on=self._loaded.model.has_memory)

    def recall(self, turns: Sequence[Turn], dropped: int, asked: Sequence[int]) -> Recall | None:
        """What is to be mixed into the answer to `asked`, after these turns, the first `dropped`
        of which are no longer in the context."""
        self.last = None
        if self.saved.on:
            ids = [ids_of(turn) for turn in self.out_of_sight(turns, dropped)]
            ids += [tuple(self._loaded.tokenizer.encode(text)) for text in self.saved.texts]
            self.last = self._store.recall([i for i in ids if i], asked)
        return self.last

    def out_of_sight(self, turns: Sequence[Turn], dropped: int) -> list[Turn]:
        """The turns that are remembered because the model does not see them any more."""
        if self._loaded.model.context_limit is None:
            room, dropped = self._loaded.config.context, len(turns)
            while dropped and room > 0:
                dropped -= 1
                room -= len(ids_of(turns[dropped]))
        return list(turns[self.saved.cleared : dropped])

    def clear(self, turns: int) -> None:
        """Lets go of these first turns and of all loaded texts."""
        self._store.forget()
        self.saved = SavedMemory(self.saved.on, turns)
        self.last = None

    def set_on(self, on: bool) -> None:
        """Whether answers draw on the memory."""
        self.saved = SavedMemory(on, self.saved.cleared, self.saved.texts)

    def restore(self, saved: SavedMemory | None) -> None:
        """Takes over what was saved with a conversation; None is an empty one."""
        self.clear(0)
        self.saved = saved or self.at_start()

    def save(self, path: Path, turns: Sequence[Turn]) -> Path:
        """Writes what is remembered of these turns, in sight or not, and the loaded texts, to a
        memory file; returns its path. Raises HoloError."""
        kept = [turn.user + turn.answer for turn in turns[self.saved.cleared :]]
        return write_memory(path, self._loaded, [*self.saved.texts, *kept])

    def load(self, path: Path) -> int:
        """Adds the texts of a memory file; returns how many. Raises HoloError, changing nothing."""
        texts = read_memory(path, self._loaded)
        known = self.saved
        self.saved = SavedMemory(known.on, known.cleared, (*known.texts, *texts))
        return len(texts)


def ids_of(turn: Turn) -> tuple[int, ...]:
    """A turn as one text."""
    return (*turn.user_ids, *turn.answer_ids)


def are_texts(value: object) -> bool:
    """Whether this is a list of texts, none of them empty."""
    return isinstance(value, list) and all(isinstance(text, str) and text for text in value)


# -- memory files ---------------------------------------------------------------------------------


def identity(loaded: LoadedModel) -> dict[str, Any]:
    """What a memory belongs to: the model, and a hash of all its weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(loaded.model.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    header = loaded.header
    who = {"model": header.model, "run": header.run, "step": header.step}
    return {**who, "weights": digest.hexdigest()[:16]}


def write_memory(path: Path, loaded: LoadedModel, texts: Sequence[str]) -> Path:
    """Writes texts as JSON, whole or not at all, and returns the path, with .json if it had no
    suffix. An existing file is only replaced when it holds a memory. Raises HoloError."""
    path = path.expanduser()
    path = path if path.suffix else path.with_suffix(".json")
    if path.exists() and path.stat().st_size:
        try:
            _content(path)
        except HoloError as error:
            raise HoloError(
                f"{path} exists and holds no memory; it was left alone.",
                next_step="Choose another name.",
            ) from error
    try:
        atomic_write_json(path, {MARK: FORMAT, **identity(loaded), "texts": list(texts)})
    except OSError as error:
        raise HoloError(
            f"The memory could not be written to {path}: {error.strerror or error}.",
            next_step="Choose another place.",
        ) from error
    return path


def read_memory(path: Path, loaded: LoadedModel) -> list[str]:
    """The texts of a memory file. Raises HoloError when it is none, or was saved with other
    weights: what a memory brings up depends on how its model sees text."""
    path = path.expanduser()
    if not path.exists() and not path.suffix:
        path = path.with_suffix(".json")
    content = _content(path)
    texts = content.get("texts")
    if not isinstance(texts, list) or not are_texts(texts):
        raise _damaged(path, "it has no list of texts")
    own = identity(loaded)
    if content.get("weights") != own["weights"]:
        raise UsageError(
            f"{path} is the memory of {_named(content)}, but this is {_named(own)}.",
            next_step="Load it with that checkpoint.",
        )
    return texts


def _named(who: dict[str, Any]) -> str:
    name, run, step = (who.get(key, "?") for key in ("model", "run", "step"))
    return f"{name} ({run}, step {step})"


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HoloError(
            f"There is no memory at {path}.", next_step="Check the name; /memory save writes one."
        ) from error
    except OSError as error:
        raise HoloError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON in UTF-8") from error
    if not isinstance(content, dict) or type(content.get(MARK)) is not int:
        raise _damaged(path, f"it lacks the key '{MARK}'")
    if content[MARK] > FORMAT:
        raise HoloError(
            f"{path} was written by a newer holo (memory format {content[MARK]}).",
            next_step="Update holo: pip install --upgrade holo-cli",
        )
    return content


def _damaged(path: Path, what: str) -> HoloError:
    return HoloError(
        f"{path} is not a memory saved by /memory save: {what}.", next_step="Load another file."
    )
