"""Opens a prepared set: token shards are memory-mapped, not copied."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holo_cli.data.answers import AnswerIndex
from holo_cli.data.chat_format import ChatMarks
from holo_cli.data.files import sha256_of
from holo_cli.data.meta import META, SPLITS, Meta, Shard, read_meta
from holo_cli.data.remote import is_remote, local_copy
from holo_cli.data.sources import source_names
from holo_cli.data.tokenizers import Tokenizer, load_tokenizer
from holo_cli.data.windows import TokenStream
from holo_cli.errors import DataError, UsageError, nearest
from holo_cli.names import existing, quoted
from holo_cli.paths import DATA


class PreparedData:
    """A set written by `holo prepare`. Open it with `PreparedData.open`."""

    def __init__(self, path: Path, meta: Meta, tokenizer: Tokenizer) -> None:
        self.path, self.meta, self.tokenizer = path, meta, tokenizer

    @classmethod
    def open(cls, path_or_name: str | Path, verify: bool = True) -> PreparedData:
        """Open a set by its folder, or by its name under `data/`.

        Checks the sizes and the tokenizer; `verify` also hashes every file (0.1 s per 100 MB) and
        searches for ids outside the vocabulary. Raises DataError if a check fails.
        """
        path = _locate(path_or_name)
        meta = read_meta(path)
        tokenizer = load_tokenizer(path)
        if tokenizer.fingerprint != meta.tokenizer.fingerprint:
            raise DataError(
                f"The tokenizer in {path} is not the tokenizer that the set was prepared with.",
                next_step="Prepare the set again with --force.",
            )
        if tokenizer.vocab_size != meta.tokenizer.vocab_size:
            raise DataError(
                f"The vocabulary in {path / META} has {meta.tokenizer.vocab_size:,} tokens; the "
                f"tokenizer has {tokenizer.vocab_size:,}.",
                next_step="Prepare the set again with --force.",
            )
        data = cls(path, meta, tokenizer)
        for shard in meta.shards:
            data._check(shard, verify)
        return data

    # -- metadata ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.meta.name

    @property
    def shown(self) -> str:
        """The folder, as messages name it."""
        return self.path.as_posix()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the tokens on disk: little-endian uint16 or uint32."""
        return np.dtype(self.meta.dtype).newbyteorder("<")

    @property
    def has_markers(self) -> bool:
        """Whether each document begins with a marker of its language."""
        return self.meta.markers

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of what determines a run: the tokenizer, and the tokens of each split.

        Changes to the other files of a set (document records, say) keep the fingerprint.
        """
        digest = hashlib.sha256(self.meta.tokenizer.fingerprint.encode())
        for split in SPLITS:
            for shard in self.meta.of(split):
                digest.update(f"{split} {shard.sha256}\n".encode())
        return digest.hexdigest()

    def matches_fingerprint(self, fingerprint: str) -> bool:
        """Whether a fingerprint, perhaps of an earlier version of holo, is of this data."""
        if fingerprint == self.fingerprint:
            return True
        digest = hashlib.sha256(self.meta.tokenizer.fingerprint.encode())
        for shard in self.meta.shards:
            line = f"{shard.name} {shard.sha256} {shard.idx_sha256} {shard.docs_sha256}\n"
            digest.update(line.encode("utf-8"))
        return fingerprint == digest.hexdigest()

    @property
    def languages(self) -> dict[str, int]:
        """Documents per language over both splits; "" for unknown languages."""
        counts: dict[str, int] = {}
        for shares in self.meta.languages.values():
            for code, share in shares.items():
                counts[code] = counts.get(code, 0) + share.documents
        return counts

    def token_count(self, split: str) -> int:
        """Tokens, including language markers and end tokens."""
        return sum(shard.tokens for shard in self._of(split))

    def byte_count(self, split: str) -> int:
        """UTF-8 bytes of the text; markers and end tokens count zero."""
        return sum(shard.bytes for shard in self._of(split))

    def document_count(self, split: str) -> int:
        return sum(shard.documents for shard in self._of(split))

    @property
    def has_chat(self) -> bool:
        """Whether some documents are conversations, of which only the answers are learnt."""
        return self.meta.chat

    @cached_property
    def chat(self) -> ChatMarks | None:
        """The marks of the chat format; None for a set without conversations."""
        return ChatMarks.of(self.tokenizer.specials) if self.has_chat else None

    # -- the content ------------------------------------------------------------------------------

    def split(self, split: str) -> list[np.memmap[Any, Any]]:
        """The tokens of "train" or "val": a read-only memory map per shard, (tokens,), in order."""
        return [
            np.memmap(self.path / f"{shard.name}.bin", dtype=self.dtype, mode="r")
            for shard in self._of(split)
        ]

    def stream(self, split: str) -> TokenStream:
        """The tokens of a split as one sequence, which knows those that are learnt."""
        shards = self.split(split)
        return TokenStream(shards, AnswerIndex(shards, self.chat).scored if self.chat else None)

    def document_ends(self, split: str) -> list[NDArray[np.uint64]]:
        """Per shard, (documents,): where each document ends, in tokens from the shard's start."""
        return [
            np.fromfile(self.path / f"{shard.name}.idx", dtype="<u8") for shard in self._of(split)
        ]

    def records(self, split: str) -> list[NDArray[Any]]:
        """Per shard, (documents,) of `RECORD`: bytes, language and source of each document."""
        return [
            np.load(self.path / f"{shard.name}.docs.npy", allow_pickle=False)
            for shard in self._of(split)
        ]

    # -- checks -----------------------------------------------------------------------------------

    def _of(self, split: str) -> list[Shard]:
        if split not in ("train", "val"):
            raise UsageError(f"There is no split '{split}'.", next_step="Use 'train' or 'val'.")
        return self.meta.of(split)

    def _check(self, shard: Shard, verify: bool) -> None:
        again = "Prepare the set again with --force."
        files = {
            f"{shard.name}.bin": (shard.tokens * self.dtype.itemsize, shard.sha256),
            f"{shard.name}.idx": (shard.documents * 8, shard.idx_sha256),
            f"{shard.name}.docs.npy": (None, shard.docs_sha256),
        }
        for name, (size, sha256) in files.items():
            path = self.path / name
            if not path.is_file():
                raise DataError(f"{path} is missing.", next_step=again)
            found = path.stat().st_size
            if size is not None and found != size:
                raise DataError(
                    f"{path} has {found:,} bytes; according to {META} it has {size:,}.",
                    next_step=again,
                )
            if verify and sha256_of(path) != sha256:
                raise DataError(
                    f"{path} has changed since it was prepared: its hash differs from {META}.",
                    next_step=again,
                )
        if verify:
            tokens = np.memmap(self.path / f"{shard.name}.bin", dtype=self.dtype, mode="r")
            highest = int(tokens.max())
            if highest >= self.tokenizer.vocab_size:
                raise DataError(
                    f"{self.path / shard.name}.bin contains token {highest:,}, outside the "
                    f"vocabulary of {self.tokenizer.vocab_size:,}.",
                    next_step=again,
                )


def find_prepared(root: Path = DATA) -> list[Path]:
    """The folders of prepared sets under `root`, by name."""
    return sorted(path.parent for path in root.glob(f"*/{META}"))


def _locate(path_or_name: str | Path) -> Path:
    if isinstance(path_or_name, str) and is_remote(path_or_name):
        return local_copy(path_or_name)
    path = existing(path_or_name)
    named = existing(DATA / Path(path_or_name))
    if (named / META).is_file() and not (path / META).is_file():
        return named  # also if the current folder has a folder of that name
    if path.is_dir():
        return path
    if not path.is_absolute() and named.is_dir():
        return named
    if path.is_file():
        raise DataError(
            f"{path_or_name} is a file, not a prepared set.",
            next_step=f"Prepare it with: holo prepare --source {quoted(path)}",
        )
    known = [folder.name for folder in find_prepared()]
    hint = nearest(path.name, known)
    if str(path_or_name) in source_names():
        raise DataError(
            f"There is no prepared set '{path_or_name}'.",
            next_step=f"Prepare it with: holo prepare {path_or_name}",
        )
    raise DataError(
        f"There is no prepared set '{path_or_name}'.",
        next_step=f"{hint} `holo prepare stories` prepares the embedded text, `holo prepare NAME "
        "--source FILE` your own.",
    )
