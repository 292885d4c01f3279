"""Tokenizers of several kinds behind one interface.

`make_tokenizer` takes the value of `--tokenizer`; `tokenizer_from_dict` and `load_tokenizer`
restore the tokenizer of a checkpoint or a prepared set. Libraries are imported on first use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holo_cli.data.tokenizers.base import END, FILE, Tokenizer, marker_name, special_names
from holo_cli.data.tokenizers.streaming import StreamDecoder
from holo_cli.errors import DataError, UsageError, nearest
from holo_cli.names import existing
from holo_cli.parsing import parse_json

__all__ = [
    "DEFAULT_VOCAB_SIZE",
    "END",
    "FILE",
    "StreamDecoder",
    "Tokenizer",
    "check_spec",
    "load_tokenizer",
    "make_tokenizer",
    "marker_name",
    "needs_text",
    "spec_identity",
    "tokenizer_from_dict",
]

DEFAULT_VOCAB_SIZE = 8192
KINDS = ("char", "bpe", "tiktoken", "llama", "sentencepiece")


def needs_text(spec: str) -> bool:
    """Whether a tokenizer of this kind is trained on the text."""
    return spec in ("char", "bpe")


def check_spec(spec: str) -> None:
    """Raise UsageError for an invalid `--tokenizer`, without reading files."""
    kind, _, rest = spec.partition(":")
    if spec in ("char", "bpe") or _as_path(spec) is not None:
        return
    if kind == "tiktoken":
        from holo_cli.data.tokenizers.tiktoken_ import RANK_FILES

        if rest not in RANK_FILES:
            raise UsageError(
                f"There is no tiktoken encoding '{rest}'.",
                next_step=f"Use tiktoken:NAME. {nearest(rest, RANK_FILES)}",
            )
        return
    if kind in ("llama", "sentencepiece"):
        raise UsageError(
            f"--tokenizer {spec} needs the path of a model file.",
            next_step=f"Use {kind}:PATH, for example {kind}:tokenizer.model.",
        )
    raise UsageError(
        f"There is no tokenizer '{spec}'.",
        next_step=f"{nearest(spec, KINDS)} It can also be the path of a tokenizer.json or .model.",
    )


def spec_identity(spec: str) -> str:
    """The spec itself, or for a path the sha256 of the file."""
    path = _as_path(spec)
    if path is None:
        return spec
    return "sha256:" + hashlib.sha256(_read(_file_in(path))).hexdigest()


def make_tokenizer(
    spec: str,
    *,
    texts: Callable[[], Iterable[str]] | None = None,
    vocab_size: int = DEFAULT_VOCAB_SIZE,
    languages: Sequence[str] = (),
    chat: bool = False,
    offline: bool = False,
) -> Tokenizer:
    """The tokenizer of `spec`, with the end token, markers for `languages`, and with `chat` the
    marks of the chat format.

    `spec`: `char`, `bpe` (both are trained on `texts()`, which is called once; `vocab_size` is for
    bpe and includes the special tokens), `tiktoken:gpt2|cl100k_base|o200k_base`, `llama:PATH` (a
    SentencePiece model), `bpe:PATH`, or the path of a tokenizer.json, of a .model, or of a folder
    with one of them.
    """
    check_spec(spec)
    names = special_names(languages, chat)
    if needs_text(spec):
        if texts is None:
            raise UsageError(
                f"The tokenizer '{spec}' has to be trained on text, but there is none."
            )
        if spec == "char":
            from holo_cli.data.tokenizers.char import CharTokenizer

            return CharTokenizer.train(texts(), names)
        from holo_cli.data.tokenizers.bpe import JsonTokenizer

        return JsonTokenizer.train(texts(), vocab_size, names)
    path = _as_path(spec)
    if path is not None:
        return _from_path(path).with_specials(names)
    from holo_cli.data.tokenizers.tiktoken_ import TiktokenTokenizer

    return TiktokenTokenizer(spec.partition(":")[2], offline=offline).with_specials(names)


def tokenizer_from_dict(data: Mapping[str, Any], folder: Path | None = None) -> Tokenizer:
    """The inverse of `to_dict`; `folder` contains the files that `data` refers to."""
    kind = str(data.get("kind", ""))
    try:
        if kind == "char":
            from holo_cli.data.tokenizers.char import CharTokenizer

            return CharTokenizer(data["characters"], data["specials"])
        if kind in ("bpe", "tokenizer.json"):
            from holo_cli.data.tokenizers.bpe import JsonTokenizer

            return JsonTokenizer(json.dumps(data["json"], ensure_ascii=False))
        if kind == "sentencepiece":
            from holo_cli.data.tokenizers.sentencepiece_ import SentencePieceTokenizer

            return SentencePieceTokenizer.from_dict(data, folder)
        if kind.startswith("tiktoken:"):
            from holo_cli.data.tokenizers.tiktoken_ import TiktokenTokenizer

            return TiktokenTokenizer.from_dict(data)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"The stored {kind} tokenizer is damaged: {error}.") from error
    raise DataError(
        f"This version of holo does not support tokenizers of kind '{kind}'.",
        next_step="A newer version may: pip install --upgrade holo-cli.",
    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer that `save` wrote to a folder."""
    return _from_path(folder)


def _as_path(spec: str) -> Path | None:
    """The path in a spec, or None."""
    kind, colon, rest = spec.partition(":")
    if colon and rest and kind in ("bpe", "llama", "sentencepiece"):
        return existing(rest)
    if spec.endswith((".json", ".model")) or (kind not in KINDS and existing(spec).exists()):
        return existing(spec)
    return None


def _file_in(path: Path) -> Path:
    if not path.is_dir():
        return path
    return path / FILE if (path / FILE).is_file() else path / "tokenizer.model"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"The tokenizer file {path} cannot be read: {error.strerror}.",
            next_step="Use a tokenizer.json or a SentencePiece .model file.",
        ) from error


def _from_path(path: Path) -> Tokenizer:
    path = _file_in(path)
    content = _read(path)
    try:
        if path.suffix != ".json":
            from holo_cli.data.tokenizers.sentencepiece_ import SentencePieceTokenizer

            return SentencePieceTokenizer(content)
        data = parse_json(content)
        if isinstance(data, dict) and "holo" in data:
            return tokenizer_from_dict(data, path.parent)
        from holo_cli.data.tokenizers.bpe import JsonTokenizer

        return JsonTokenizer(content.decode("utf-8"))
    except (ValueError, DataError) as error:
        raise DataError(
            f"The tokenizer file {path} is damaged or of another kind: {error}",
            next_step="Use a tokenizer.json or a SentencePiece .model file.",
        ) from error
