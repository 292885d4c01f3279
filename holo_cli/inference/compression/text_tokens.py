"""A file's bytes as tokens that decode to exactly these bytes, or an error that says why not."""

from __future__ import annotations

import re
from collections.abc import Iterator

from holo_cli.data.tokenizers import Tokenizer
from holo_cli.errors import DataError
from holo_cli.wording import counted

_SHOWN = 8  # characters named in a message
_ESCAPED = re.compile("[\udc80-\udcff]+|[^\udc80-\udcff]+")  # invalid bytes, or text


def encode_exactly(tokenizer: Tokenizer, content: bytes, name: str) -> list[int]:
    """Ids whose bytes are `content`; `name` is for messages.

    Bytes that are not UTF-8 become tokens of one byte where the tokenizer has them. Raises
    DataError for a file that the tokenizer cannot represent exactly: characters outside its
    alphabet, or text that it changes (letter case, spaces, composed letters).
    """
    pieces = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    single = {piece: i for i, piece in enumerate(pieces) if len(piece) == 1}
    ids: list[int] = []
    for part, is_text in _parts(content):
        if is_text:
            text = part.decode("utf-8")
            encoded = tokenizer.encode(text)
            if b"".join(pieces[i] for i in encoded) != part:
                raise _not_exact(tokenizer, text, name)
            ids += [i for i in encoded if pieces[i]]
        else:
            missing = next((b for b in part if bytes([b]) not in single), None)
            if missing is not None:
                raise DataError(
                    f"{name} is not UTF-8 text, and the checkpoint's tokenizer has no token for "
                    f"the byte 0x{missing:02X}.",
                    next_step="Use a checkpoint with a bpe tokenizer, which has all bytes.",
                )
            ids += [single[bytes([b])] for b in part]
    return ids


def _parts(content: bytes) -> Iterator[tuple[bytes, bool]]:
    """Stretches of valid UTF-8 (True) and of other bytes (False), in order."""
    text = content.decode("utf-8", errors="surrogateescape")
    for match in _ESCAPED.finditer(text):
        part = match[0].encode("utf-8", errors="surrogateescape")
        yield part, not "\udc80" <= match[0][0] <= "\udcff"


def _not_exact(tokenizer: Tokenizer, text: str, name: str) -> DataError:
    if unknown := tokenizer.unknown(text):
        shown = " ".join(repr(c) for c in unknown[:_SHOWN])
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        return DataError(
            f"{name} has {counted(len(unknown), 'character')} that the checkpoint's tokenizer "
            f"cannot encode: {shown}{more}.",
            next_step="Use a checkpoint with a bpe tokenizer, which can encode every text.",
        )
    return DataError(
        f"The checkpoint's tokenizer changes the text of {name}, so that it could not be restored "
        "exactly.",
        next_step="Use a checkpoint with a bpe tokenizer made by `holo prepare`.",
    )
