"""The one place where JSON and TOML are parsed: with bounds, and with one kind of error.

Whatever holo reads may come from anybody: a checkpoint's header, a tokenizer, a conversation, a
log. The standard parsers accept what later code stumbles over: a number of a million digits, NaN
where none is meant, a key given twice, half of a surrogate pair, nesting that ends in a
RecursionError wherever the value is next copied or printed. Here each of them is a `ParseError`
whose message is the reason alone ("nested more than 64 levels deep"); the caller says which file.

A test holds that nothing else in the project calls `json.loads` or `tomllib`. Nothing heavy is
imported.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

MAX_BYTES = 100_000_000  # of a document; the most that a safetensors header may have
MAX_LOG_BYTES = 1 << 30  # of a whole file of JSON lines, and of one document of text in a line
MAX_ELEMENT = 1 << 28  # characters of a line, or of an element of an array that is read in parts
MAX_PARTS = 1 << 24  # values in it, each of which takes up to 70 bytes of memory
MAX_TOML_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_DIGITS = 20  # of a whole number: those of 2^64
MAX_BITS = 64


class ParseError(ValueError):
    """A text is not what it should be. The message is the reason, as part of a sentence."""


class EncodingError(ParseError):
    """A text is not UTF-8."""


# -- JSON -----------------------------------------------------------------------------------------


def parse_json(
    content: str | bytes,
    *,
    limit: int = MAX_BYTES,
    nan: bool = False,
    any_integer: bool = False,
    lenient: bool = False,
) -> Any:
    """The value of a JSON text in UTF-8 of at most `limit` bytes.

    `nan` allows NaN and infinity, for logs of training that diverged; `any_integer` whole numbers
    of more than 64 bits. `lenient` is for rows of a text collection, of which only the text is
    used and made well-formed: nothing but size and depth is bounded, and whole numbers may lose
    digits. Raises ParseError.
    """
    if len(content) > limit:
        raise ParseError(f"larger than {limit:,} bytes")
    text = _decoded(content)
    hooks: dict[str, Any] = {"parse_int": float} if lenient else {"object_pairs_hook": _object}
    if lenient:
        _check_parts(text)
    if not (nan or lenient):
        hooks |= {"parse_constant": _constant, "parse_float": _float}
    if not (any_integer or lenient):
        hooks["parse_int"] = _integer
    try:
        value = json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        raise ParseError(
            f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except RecursionError:
        raise ParseError(f"nested more than {MAX_DEPTH} levels deep") from None
    except ParseError:
        raise
    except ValueError:  # Python's own limit on digits
        raise ParseError("a whole number with too many digits") from None
    # most texts cannot be too deep, or hold an escaped surrogate: they need no second look
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    if not lenient and ("\\ud" in text or "\\uD" in text or not _well_formed(text)):
        _check_surrogates(value)
    return value


def parse_object(content: str | bytes, **options: Any) -> dict[str, Any]:
    """`parse_json` of a text that must be an object. Raises ParseError."""
    value = parse_json(content, **options)
    if not isinstance(value, dict):
        raise ParseError("not a JSON object")
    return value


def iterate_values(blocks: Iterable[str]) -> Iterator[Any]:
    """The elements of a JSON array, or JSON values one after another, parsed one by one. They come
    in blocks of text, the first one not blank: the whole may be larger than the memory.

    As lenient as `parse_json` can be; an element may have MAX_ELEMENT characters. Raises
    ParseError, perhaps after some elements.
    """
    more = iter(blocks)
    decoder = json.JSONDecoder(parse_int=float)
    text, at = next(more).lstrip(), 0
    array = text.startswith("[")
    at += array
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at == len(text) and not array:
            block = next(more, "")
            if not block:
                return
            text, at = block, 0
            continue
        if array and at < len(text) and text[at] == "]":
            if text[at + 1 :].strip() or any(block.strip() for block in more):
                raise ParseError("something follows its end")
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            # perhaps the element continues in the next block; each try doubles what is read
            wanted, added = max(len(text) - at, 1), []
            while wanted > 0 and (block := next(more, "")):
                added.append(block)
                wanted -= len(block)
            text, at = text[at:] + "".join(added), 0
            if not added or len(text) > MAX_ELEMENT:
                raise ParseError(_why(error)) from None
            _check_parts(text)
            continue
        if end == len(text) and (
            block := next(more, "")
        ):  # a number may continue in the next block
            text, at = text[at:] + block, 0
            continue
        _check_depth(value)
        yield value
        text, at = (text[end:], 0) if end > 1 << 20 else (text, end)


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"nested more than {MAX_DEPTH} levels deep"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def read_json(path: Path, *, limit: int = MAX_BYTES, **options: Any) -> Any:
    """`parse_json` of a file, of which no more than `limit` bytes are read. Raises also OSError."""
    return parse_json(read_bytes(path, limit), limit=limit, **options)


def read_object(path: Path, *, limit: int = MAX_BYTES, **options: Any) -> dict[str, Any]:
    """`parse_object` of a file. Raises ParseError and OSError."""
    return parse_object(read_bytes(path, limit), limit=limit, **options)


def read_bytes(path: Path, limit: int = MAX_LOG_BYTES) -> bytes:
    """A file's content. Raises ParseError for one of more than `limit` bytes, and OSError."""
    with path.open("rb") as file:
        return _bounded(file, limit)


def _bounded(file: BinaryIO, limit: int) -> bytes:
    content = file.read(limit + 1)
    if len(content) > limit:
        raise ParseError(f"larger than {limit:,} bytes")
    return content


def _decoded(content: str | bytes) -> str:
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EncodingError(f"not UTF-8 at byte {error.start}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ParseError(f"the key {_short(twice)} is given twice")
    return found


def _constant(name: str) -> float:
    raise ParseError(f"the number {name}, which JSON does not have")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ParseError(f"the number {_short(text)}, which is too large")
    return value


def _integer(text: str) -> int:
    digits = len(text) - text.startswith("-")
    if digits > MAX_DIGITS:
        raise ParseError(f"a whole number of {digits:,} digits")
    value = int(text)
    if not -(2 ** (MAX_BITS - 1)) <= value < 2**MAX_BITS:
        raise ParseError(f"the number {text}, which has more than {MAX_BITS} bits")
    return value


def _children(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, dict) else value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in _children(parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise ParseError(f"nested more than {MAX_DEPTH} levels deep")


def _check_parts(text: str) -> None:
    """Refuse a text of very many small values, which are far larger in memory than as text."""
    if len(text) > MAX_PARTS and sum(text.count(mark) for mark in ",[{") > MAX_PARTS:
        raise ParseError(f"more than {MAX_PARTS:,} values")


def _check_surrogates(value: Any) -> None:
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, dict):
            stack += found.keys()
            stack += found.values()
        elif isinstance(found, list):
            stack += found
        elif isinstance(found, str) and not _well_formed(found):
            raise ParseError("a text with half of a surrogate pair")


def _well_formed(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _short(text: str) -> str:
    """A key or a number as it may stand in a message."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")


# -- TOML -----------------------------------------------------------------------------------------


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ParseError; TOML itself has no lone surrogates and no keys
    given twice, and infinity and NaN are for the config to judge."""
    if len(text) > MAX_TOML_BYTES:
        raise ParseError(f"larger than {MAX_TOML_BYTES:,} bytes")
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParseError(str(error)) from None
    except RecursionError:
        raise ParseError(f"nested more than {MAX_DEPTH} levels deep") from None
    except ValueError:  # Python's own limit on digits, or a date that does not exist
        raise ParseError("a number or a date that cannot be") from None
    _check_depth(value)
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """`parse_toml` of a file in UTF-8, with or without a byte order mark. Raises also OSError."""
    return parse_toml(_decoded(read_bytes(path, MAX_TOML_BYTES)))
