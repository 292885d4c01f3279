"""Decodes files to text: decompression, detection of the encoding, rejection of binary files.

The first 64 kB decide. Valid UTF-8 is read as UTF-8 whatever `--encoding` says, so that one flag
suffices for a folder of old and new files. Other files are read in the given encoding; without one,
the error names the encoding that fits. Invalid bytes become U+FFFD, which cleaning removes and
counts.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from holo_cli.data.remote import SourcePath
from holo_cli.data.sources.formats import NotText, refuse_other_formats
from holo_cli.data.sources.unpacking import open_bytes, readable
from holo_cli.errors import DataError, UsageError

SNIFF = 65_536
BLOCK = 1 << 20
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_MAX_INVALID = 0.02  # share of invalid bytes up to which a file is read as UTF-8
_ESCAPES = ("unicode-escape", "raw-unicode-escape", "punycode", "idna")  # ASCII for other letters
_GUESSES = ("cp949", "shift_jis", "gb18030", "cp1252")


def check_encoding(encoding: str | None) -> None:
    """Raise UsageError for an encoding that Python does not know."""
    if encoding is None:
        return
    try:
        codec = codecs.lookup(encoding)
    except (LookupError, ValueError) as error:
        raise UsageError(
            f"There is no encoding '{encoding}'.", next_step="Korean files are often cp949."
        ) from error
    if not _of_texts(codec.name):
        raise UsageError(
            f"'{encoding}' is not an encoding of texts.", next_step="Korean files are often cp949."
        )


def _of_texts(codec: str) -> bool:
    """Whether a codec of Python decodes bytes to texts, unlike those of bytes (hex) or names."""
    if codec.replace("_", "-") in _ESCAPES:
        return False
    try:
        "text".encode(codec)
        codecs.getincrementaldecoder(codec)(errors="replace")
    except (LookupError, TypeError, ValueError):
        return False
    return True


def text_blocks(path: SourcePath, encoding: str) -> Iterator[str]:
    """The text of a file in blocks of about a megabyte; invalid bytes become U+FFFD."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    with open_bytes(path) as file, readable(path):
        while block := file.read(BLOCK):
            yield decoder.decode(block)
        yield decoder.decode(b"", final=True)


def encoding_of(path: SourcePath, given: str | None) -> str:
    """The codec of a file. Raises NotText, or DataError with the `--encoding` to use."""
    with open_bytes(path) as file, readable(path):
        head = file.read(SNIFF)
    return _codec(head, str(path), given, truncated=len(head) == SNIFF)


def whole_text(data: bytes, name: str, given: str | None) -> str:
    """Decode bytes strictly, with `\\n` line ends. DataError, with `name`, for any invalid byte."""
    codec = _codec(data, name, given, truncated=False)
    try:
        text = data.decode(codec)
    except UnicodeError as error:
        raise DataError(
            f"{name} is not valid {codec.upper()}: {error}.",
            next_step="Fix these bytes, or name the file's encoding with --encoding.",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _codec(head: bytes, name: str, given: str | None, truncated: bool) -> str:
    """The codec of a text by its first bytes; `truncated`: more bytes may follow."""
    for bom, codec in _BOMS.items():
        if head.startswith(bom):
            return codec
    refuse_other_formats(head, name)
    if b"\0" in head and not (given or "").lower().replace("_", "-").startswith(
        ("utf-16", "utf-32")
    ):
        wide = _wide(head)
        raise NotText(
            f"{name} is UTF-16 without a byte order mark."
            if wide
            else f"{name} is a binary file, not text.",
            next_step=f"Add --encoding {wide}."
            if wide
            else "Use a text file: txt, md, json, jsonl, csv, tsv or parquet (also .gz or .zst).",
        )
    if _valid(head, "utf-8", truncated) and not (given and head.isascii()):
        return "utf-8"
    guess = next((codec for codec in _GUESSES if _valid(head, codec, truncated)), None)
    if given:
        if not _valid(head, given, truncated) and _invalid_share(head, given) > _MAX_INVALID:
            advice = (
                f"It is valid {guess}: add --encoding {guess}."
                if guess
                else "Remove --encoding if the file is UTF-8."
            )
            raise DataError(f"{name} is not in the encoding {given}.", next_step=advice)
        return given
    if _invalid_share(head, "utf-8") <= _MAX_INVALID:
        return "utf-8"
    if guess is None:
        raise NotText(
            f"{name} is not text, or its encoding is unknown.",
            next_step="If it is text, name its encoding with --encoding.",
        )
    raise DataError(
        f"{name} is not UTF-8.", next_step=f"It is valid {guess}: add --encoding {guess}."
    )


def _wide(head: bytes) -> str | None:
    """The form of UTF-16 that a text with null bytes is in, if it is one.

    In the other form spaces and line ends become rare characters (U+2000, U+0A00).
    """
    forms = [c for c in ("utf-16-le", "utf-16-be") if _valid(head, c, truncated=True)]
    texts = {form: head.decode(form, errors="ignore") for form in forms}
    forms = [form for form in forms if _usual(texts[form])]
    return max(forms, key=lambda form: sum(map(texts[form].count, " \n,.")), default=None)


def _usual(text: str) -> bool:
    """Whether a text looks like one: letters and few other characters."""
    letters = sum(c.isalpha() for c in text)
    strange = sum(not (c.isprintable() or c in "\r\n\t") for c in text)
    spaces = sum(map(text.count, " \n"))
    return letters > 0.4 * len(text) and strange <= 0.02 * len(text) and spaces > 0.02 * len(text)


def _valid(data: bytes, encoding: str, truncated: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)(errors="strict").decode(data, final=not truncated)
    except UnicodeError:
        return False
    return True


def _invalid_share(data: bytes, encoding: str) -> float:
    text = data.decode(encoding, errors="replace")
    return text.count("\ufffd") / max(len(data), 1)
