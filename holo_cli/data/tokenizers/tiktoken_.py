"""OpenAI's encodings through `tiktoken`: gpt2, cl100k_base, o200k_base.

The library downloads its rank file on first use and caches it in `TIKTOKEN_CACHE_DIR`, or else in
a temporary folder. The cache is checked before the library is called, which without a network would
block or raise a traceback. A checkpoint stores the name and the sha256 of the ranks, not the ranks
themselves. (The module's name ends in _ because the library has the same name.)
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holo_cli.data.files import sha256_of
from holo_cli.data.network import hub_offline, reachable
from holo_cli.data.tokenizers.base import Tokenizer, append_specials
from holo_cli.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    import tiktoken

_SERVER = "https://openaipublic.blob.core.windows.net/"
RANK_FILES = {  # encoding -> the files it needs
    "gpt2": (
        _SERVER + "gpt-2/encodings/main/vocab.bpe",
        _SERVER + "gpt-2/encodings/main/encoder.json",
    ),
    "cl100k_base": (_SERVER + "encodings/cl100k_base.tiktoken",),
    "o200k_base": (_SERVER + "encodings/o200k_base.tiktoken",),
}
# sha256 of each file, as in tiktoken_ext/openai_public.py of tiktoken 0.12: the library downloads a
# file of another content again, also when it should not use the network
SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "cl100k_base.tiktoken": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base.tiktoken": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}


class TiktokenTokenizer(Tokenizer):
    """The ids of the encoding; special tokens follow its `n_vocab`."""

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
        """Rebuild from `to_dict`; DataError if the ranks differ."""
        name = str(data["kind"]).partition(":")[2]
        tokenizer = cls(name, data["specials"])
        if ranks_sha256(name) != data["ranks_sha256"]:
            raise DataError(
                f"The ranks of tiktoken's '{name}' on this machine differ from those in use "
                "when the tokenizer was stored.",
                next_step=f"Delete the files in {cache_folder()} to download them again.",
            )
        return tokenizer


def cache_folder() -> Path | None:
    """The folder in which `tiktoken` caches rank files; None if caching is switched off."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return Path(os.environ[variable]) if os.environ[variable] else None
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def missing_files(name: str) -> list[str]:
    """The URLs of the rank files of an encoding that are not in the cache."""
    folder = cache_folder()
    if folder is None:
        return list(RANK_FILES[name])
    return [url for url in RANK_FILES[name] if not (folder / _cached_name(url)).is_file()]


def damaged_files(name: str) -> list[Path]:
    """The rank files of an encoding in the cache whose content is not the published one."""
    folder = cache_folder()
    paths = {url: folder / _cached_name(url) for url in RANK_FILES[name]} if folder else {}
    return [
        path
        for url, path in paths.items()
        if path.is_file() and sha256_of(path) != SHA256[url.rpartition("/")[2]]
    ]


def _cached_name(url: str) -> str:
    """tiktoken names a cached file by the SHA-1 of its URL."""
    return hashlib.sha1(url.encode()).hexdigest()


def load_encoding(name: str, *, offline: bool = False) -> tiktoken.Encoding:
    """Load an encoding. UsageError for an unknown name, DataError if its files are unavailable."""
    if name not in RANK_FILES:
        raise UsageError(
            f"There is no tiktoken encoding '{name}'.", next_step=nearest(name, RANK_FILES)
        )
    offline = offline or hub_offline()
    damaged = damaged_files(name)
    if damaged and (offline or not reachable(_SERVER)):
        raise DataError(
            f"The rank file of tiktoken's '{name}' in {cache_folder()} is damaged.",
            next_step=f"Delete {damaged[0]} and run the command again with a network, or use "
            "--tokenizer bpe.",
        )
    if missing_files(name):
        next_step = "Set TIKTOKEN_CACHE_DIR to a folder that has it, or use --tokenizer bpe."
        if offline:
            raise DataError(
                f"The rank file of tiktoken's '{name}' is not in {cache_folder()}, and offline "
                "mode is on.",
                next_step=next_step,
            )
        if not reachable(_SERVER):
            raise DataError(
                f"The rank file of tiktoken's '{name}' is not in {cache_folder()}, and "
                f"{_SERVER} does not respond.",
                next_step=next_step,
            )
    return _load(name, str(cache_folder()))


@cache
def _load(name: str, folder: str) -> tiktoken.Encoding:
    import requests
    import tiktoken

    try:
        return tiktoken.get_encoding(name)
    except requests.RequestException as error:
        raise DataError(
            f"The rank file of tiktoken's '{name}' could not be downloaded: {_SERVER} failed.",
            next_step="Run the command again later, or use --tokenizer bpe.",
        ) from error
    except (ValueError, OSError) as error:
        raise DataError(
            f"The rank file of tiktoken's '{name}' in {folder} cannot be used: {error}.",
            next_step="Delete it and try again with a network, or use --tokenizer bpe.",
        ) from error


@cache
def ranks_sha256(name: str) -> str:
    """sha256 of the bytes and ids of all tokens, in the order of the ids."""
    digest = hashlib.sha256()
    encoding = load_encoding(name)
    for piece, rank in sorted(encoding._mergeable_ranks.items(), key=lambda item: item[1]):
        digest.update(rank.to_bytes(4, "little") + len(piece).to_bytes(4, "little") + piece)
    return digest.hexdigest()
