"""OpenAI's encodings through `tiktoken`: gpt2, cl100k_base, o200k_base.

The library fetches its rank file on first use and keeps it in `TIKTOKEN_CACHE_DIR`, or else in a
temporary folder. That is decided before the library is asked, because without a network it would
wait or end in a traceback. A checkpoint stores a reference and the sha256 of the ranks, not the
ranks themselves. (The file's name ends in _ to keep it apart from the library's.)
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holo_cli.data.network import reachable
from holo_cli.data.tokenizers.base import Tokenizer, append_specials
from holo_cli.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    import tiktoken

_PLACE = "https://openaipublic.blob.core.windows.net/"
RANK_FILES = {  # encoding -> the files its first use fetches
    "gpt2": (
        _PLACE + "gpt-2/encodings/main/vocab.bpe",
        _PLACE + "gpt-2/encodings/main/encoder.json",
    ),
    "cl100k_base": (_PLACE + "encodings/cl100k_base.tiktoken",),
    "o200k_base": (_PLACE + "encodings/o200k_base.tiktoken",),
}


class TiktokenTokenizer(Tokenizer):
    """Ids of the encoding unchanged; specials follow after its own `n_vocab`."""

    def __init__(
        self, name: str, specials: Mapping[str, int] | None = None, *, offline: bool = False
    ) -> None:
        self._encoding = load_encoding(name, offline=offline)
        self._name = name
        self.kind = f"tiktoken:{name}"
        self.ordinary = self._encoding.n_vocab
        self.specials = append_specials(self.ordinary, (), specials)
        self._own_specials = set(self._encoding._special_tokens.values())

    def with_specials(self, names: Iterable[str]) -> TiktokenTokenizer:
        specials = append_specials(self.ordinary, names, self.specials)
        return TiktokenTokenizer(self._name, specials)

    def _encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        threads = int(os.environ.get("RAYON_NUM_THREADS") or os.cpu_count() or 1)
        return self._encoding.encode_ordinary_batch(list(texts), num_threads=threads)

    def _bytes(self, token: int) -> bytes:
        if token in self._own_specials:
            return b""
        try:
            return self._encoding.decode_single_token_bytes(token)
        except KeyError:  # cl100k_base and o200k_base leave a few ids unused
            return b""

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "ranks_sha256": ranks_sha256(self._name),
            "specials": self.specials,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TiktokenTokenizer:
        """Rebuild from `to_dict`; other ranks than those of then are refused."""
        name = str(data["kind"]).partition(":")[2]
        tokenizer = cls(name, data["specials"])
        if ranks_sha256(name) != data["ranks_sha256"]:
            raise DataError(
                f"The ranks of tiktoken's '{name}' on this machine are not those that were used.",
                next_step=f"Remove the files in {cache_folder()} to have them fetched again.",
            )
        return tokenizer


def cache_folder() -> Path | None:
    """Where `tiktoken` keeps rank files; None where caching is switched off."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return Path(os.environ[variable]) if os.environ[variable] else None
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def missing_files(name: str) -> list[str]:
    """The addresses of the rank files of an encoding that are not in the cache."""
    folder = cache_folder()
    if folder is None:
        return list(RANK_FILES[name])
    # tiktoken names a cached file by the SHA-1 of its address
    names = {url: hashlib.sha1(url.encode()).hexdigest() for url in RANK_FILES[name]}
    return [url for url, file in names.items() if not (folder / file).is_file()]


def load_encoding(name: str, *, offline: bool = False) -> tiktoken.Encoding:
    """The library's encoding; UsageError for other names, DataError where it cannot be had."""
    if name not in RANK_FILES:
        raise UsageError(
            f"There is no tiktoken encoding '{name}' here.", next_step=nearest(name, RANK_FILES)
        )
    if missing_files(name) and (offline or not reachable(_PLACE)):
        why = "this is an offline run" if offline else "it cannot be fetched from here"
        raise DataError(
            f"The rank file of tiktoken's '{name}' is not in {cache_folder()}, and {why}.",
            next_step="Set TIKTOKEN_CACHE_DIR to a folder that has it, or use --tokenizer bpe.",
        )
    return _load(name, str(cache_folder()))


@cache
def _load(name: str, folder: str) -> tiktoken.Encoding:
    import requests
    import tiktoken

    try:
        return tiktoken.get_encoding(name)
    except (requests.RequestException, ValueError, OSError) as error:
        raise DataError(
            f"The rank file of tiktoken's '{name}' in {folder} cannot be used: {error}.",
            next_step="Remove it and try again with a network, or use --tokenizer bpe.",
        ) from error


@cache
def ranks_sha256(name: str) -> str:
    """sha256 over every token's bytes and id, in order of id: the same on every machine."""
    digest = hashlib.sha256()
    encoding = load_encoding(name)
    for piece, rank in sorted(encoding._mergeable_ranks.items(), key=lambda item: item[1]):
        digest.update(rank.to_bytes(4, "little") + len(piece).to_bytes(4, "little") + piece)
    return digest.hexdigest()
