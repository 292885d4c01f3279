"""Damage: what happens to bytes on bad disks and in bad copies, and what a forger writes into JSON.

Every function takes a `random.Random` and returns what it did, in words, with the new content,
which is never the old one. The same state of the generator gives the same damage.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

from holo_cli.parsing import parse_json

Damage = tuple[str, bytes]

# -- bytes ----------------------------------------------------------------------------------------


def _span(rng: random.Random, size: int, most: int) -> tuple[int, int]:
    """A random place, and a length of at most `most`, usually short."""
    at = rng.randrange(size)
    return at, min(size - at, max(1, int(most ** rng.random())))


def flip(rng: random.Random, data: bytes) -> Damage:
    out = bytearray(data)
    count = rng.choice((1, 1, 1, 2, 8))
    places = sorted(rng.sample(range(len(data)), min(count, len(data))))
    for at in places:
        out[at] ^= 1 << rng.randrange(8)
    return f"{len(places)} bits flipped, first in byte {places[0]}", bytes(out)


def overwrite(rng: random.Random, data: bytes) -> Damage:
    at, length = _span(rng, len(data), 4096)
    filling = rng.choice((b"\x00" * length, b"\xff" * length, rng.randbytes(length)))
    return f"{length} bytes overwritten from {at}", data[:at] + filling + data[at + length :]


def remove(rng: random.Random, data: bytes) -> Damage:
    at, length = _span(rng, len(data), 4096)
    return f"{length} bytes removed from {at}", data[:at] + data[at + length :]


def duplicate(rng: random.Random, data: bytes) -> Damage:
    at, length = _span(rng, len(data), 4096)
    return f"{length} bytes repeated from {at}", data[: at + length] + data[at:]


def insert(rng: random.Random, data: bytes) -> Damage:
    at, length = rng.randrange(len(data) + 1), int(256 ** rng.random())
    return f"{length} bytes inserted at {at}", data[:at] + rng.randbytes(length) + data[at:]


def cut(rng: random.Random, data: bytes) -> Damage:
    at = rng.choice((0, 1, rng.randrange(len(data)), rng.randrange(len(data)), len(data) - 1))
    return f"cut after {at} of {len(data)} bytes", data[:at]


def cut_head(rng: random.Random, data: bytes) -> Damage:
    at = rng.randrange(1, len(data) + 1)
    return f"first {at} bytes missing", data[at:]


BYTES = (flip, flip, overwrite, remove, duplicate, insert, cut, cut_head)
SAME_LENGTH = (flip, flip, overwrite)


def damage_bytes(
    rng: random.Random, data: bytes, kinds: tuple[Callable[..., Damage], ...] = BYTES
) -> Damage:
    """One kind of damage to the bytes."""
    while True:
        what, out = rng.choice(kinds)(rng, data)
        if out != data:
            return what, out


# -- JSON -----------------------------------------------------------------------------------------

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e-320, 1e308, "", "x", "0", "1e9", "None",
    [], {}, [[]], [None], {"a": 1}, [1, "2"], 2**31, 2**53 + 1, 10**9, 2**63 - 1, 2**63,
    2**64, -(2**31), -(2**63), -(2**64),
)  # fmt: skip
TEXTS = (
    "\x1b]52;c;ZWNobw==\x07", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\u202egnp.exe", "\u2066x\u2069",
    "\x9b31m", "\x00", "a\nError: b", "\r", "\x7f", "\u2028", "\ufeff", "../../etc/passwd",
    "/dev/full", "~", "C:\\x", "a" * 100_000, "가" * 1000, "{}", "%s%n", "\U0001f600" * 50,
    "${HOME}", "nan",
)  # fmt: skip
# what Python's json module writes or reads beyond JSON, and what it cannot write
RAW = (
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 400, "1" + "0" * 5000,
    "[" * 200 + "]" * 200, "[" * 100_000 + "]" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000,
    '"\\ud800"', '"\\udfff x"', '{"\\ud800": 1}', '{"a": 1, "a": 2}', '"\\u0000"', "01", "'x'", "",
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside, containers included; of very many alike the first ones."""
    found = [path] if path else []
    if isinstance(value, dict):
        items: Any = list(value.items())[: None if len(value) < MANY else FEW]
    elif isinstance(value, list):
        items = enumerate(value[:FEW])
    else:
        return found
    return found + [deeper for key, item in items for deeper in places(item, (*path, key))]


MANY, FEW = 100, 6  # a vocabulary is one place among others, not nine of ten
KINDS = ("value", "value", "text", "raw", "missing", "extra", "renamed", "near", "many")


def damage_json(rng: random.Random, text: str, under: tuple[Any, ...] = ()) -> tuple[str, str]:
    """One change of a JSON document's values, below the path `under` if that is there."""
    value = parse_json(text)
    inside = [path for path in places(value) if path[: len(under)] == under]
    path = rng.choice(inside or places(value))
    node = value
    for key in path[:-1]:
        node = node[key]
    key, old = path[-1], node[path[-1]]
    raw: str | None = None
    what = rng.choice(KINDS)
    if what == "value":
        node[key] = rng.choice([v for v in VALUES if v != old or type(v) is not type(old)])
        what = f"becomes {str(node[key])[:30]}"
    elif what == "text":
        chosen = rng.choice(TEXTS)
        node[key] = old + chosen if isinstance(old, str) and rng.random() < 0.5 else chosen
        what = f"becomes the text {chosen[:20]!a}"
    elif what == "raw":
        raw, node[key] = rng.choice(RAW), "@raw@"
        what = f"becomes the JSON {raw[:20]!r} of {len(raw)} characters"
    elif what == "missing":
        del node[key]
    elif what == "extra":
        target = node[key] if isinstance(node[key], dict) else node
        name = rng.choice(("extra", "", "__class__", "format", rng.choice(TEXTS)[:200]))
        if isinstance(target, dict):
            target[name] = rng.choice((1, "x", [1], {}))
        else:
            target.append(rng.choice((None, 1, "x", [], {})))
        what = f"beside or inside it something extra {name[:20]!a}"
    elif what == "renamed" and isinstance(node, dict):
        node[f"{key}_" if rng.random() < 0.5 else str(key).upper()] = node.pop(key)
    elif what == "near" and isinstance(old, int | float) and not isinstance(old, bool):
        near = (old + 1, old - 1, -old - 1, old * 2 + 1, float(old) + 0.5, str(old))
        node[key] = rng.choice(near)
        what = f"becomes {node[key]!r} from {old!r}"
    elif isinstance(node, list) and node:
        node.extend([old] * rng.choice((1, 10, 1000)))
        what = "repeated in its list"
    else:
        node[key] = [old]
        what = "put into a list"
    new = json.dumps(value, ensure_ascii=rng.random() < 0.3)
    if raw is not None:
        new = new.replace('"@raw@"', raw)
    return f"{'.'.join(map(str, path))[:80]}: {what}", new


def damage_json_bytes(rng: random.Random, data: bytes) -> Damage:
    """A JSON file: mostly its values, sometimes its bytes."""
    if rng.random() < 0.25:
        return damage_bytes(rng, data)
    while True:
        what, text = damage_json(rng, data.decode("utf-8"))
        new = text.encode("utf-8", "surrogatepass")
        if new != data:
            return what, new


def damage_lines(rng: random.Random, data: bytes) -> Damage:
    """A file of one JSON object a line: one line's values, the order of lines, or bytes."""
    kind = rng.random()
    lines = data.split(b"\n")
    full = [number for number, line in enumerate(lines) if line.strip()]
    if kind < 0.25 or not full:
        return damage_bytes(rng, data)
    at = rng.choice(full)
    if kind < 0.35:
        lines.insert(rng.choice(full), lines[at])
        what = f"line {at + 1} repeated elsewhere"
    elif kind < 0.4:
        lines[at] = rng.choice((b"", b"null", b"[]", b"1", b'"x"', b"{}", b"\xff\xfe", b"\x00" * 9))
        what = f"line {at + 1} becomes {lines[at]!r}"
    else:
        what, text = damage_json(rng, lines[at].decode("utf-8"))
        lines[at], what = text.encode("utf-8", "surrogatepass"), f"line {at + 1}, {what}"
    new = b"\n".join(lines)
    return (what, new) if new != data else damage_bytes(rng, data)


# -- TOML -----------------------------------------------------------------------------------------

TOML_VALUES = (
    "", "nan", "inf", "-inf", "1e400", "-1", "0", "1", "10_000_000_000", "9" * 30, "9" * 5000,
    '"x"', '""', "true", "[]", "[1, 2]", "{}", "[" * 5000 + "]" * 5000, "1979-05-27",
    '"\\u001b]0;t\\u0007"', '"\\u202e"', "0x10", "-9223372036854775808", "9223372036854775807",
    "'''\n'''", "{ a = 1 }",
)  # fmt: skip


def damage_toml(rng: random.Random, data: bytes) -> Damage:
    """A TOML file: a value, a key, a line, or bytes."""
    kind = rng.random()
    lines = data.decode("utf-8").split("\n")
    settings = [n for n, line in enumerate(lines) if re.match(r"\s*[\w.]+ = ", line)]
    if kind < 0.2 or not settings:
        return damage_bytes(rng, data)
    at = rng.choice(settings)
    name, _, _ = lines[at].partition(" = ")
    if kind < 0.75:
        lines[at] = f"{name} = {rng.choice(TOML_VALUES)}"
    elif kind < 0.8:
        lines[at] = rng.choice(("x", name + "_", "model", '""', '"\\u001b[2J"')) + " = 1"
    elif kind < 0.85:
        name = rng.choice(("x", "model", "training", "entry", "[a]", "", "model.x"))
        lines[at] = f"[{name}]"
    elif kind < 0.9:
        lines.insert(at, lines[at])
    elif kind < 0.95:
        del lines[at]
    else:
        lines.insert(at, f"{rng.choice(('model', 'training', 'data', 'seed', 'base'))} = 3")
    new = "\n".join(lines).encode("utf-8", "surrogatepass")
    if new == data:
        return damage_bytes(rng, data)
    return f"line {at + 1} becomes {lines[min(at, len(lines) - 1)][:60]!r}", new
