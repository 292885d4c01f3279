"""What is damaged and which commands then read it: the plan of the mutations.

A target is one file of the world (`world.py`) or a part of it. Damage that a digest covers must be
refused; other damage may be refused or lead to a result, since a changed loss or name in a file is
as good as another.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.faults import mutate
from benchmarks.faults.mutate import Damage
from holo_cli.checkpoint.digest import DIGEST_KEY, METADATA_KEY, digest
from holo_cli.parsing import parse_json

Damaging = Callable[[random.Random, bytes], Damage]

LENGTH = 8  # bytes of a safetensors file that hold the length of its JSON


@dataclass(frozen=True)
class Use:
    """A command that reads the damaged file. `rewrites`: files that it may change when it succeeds.

    `must_refuse`: the damage is covered by a digest that this command has to check. `labelled`:
    its errors begin with "Error: "; those inside a chat do not.
    """

    arguments: tuple[str, ...]
    stdin: str = ""
    rewrites: tuple[str, ...] = ()
    must_refuse: bool = False
    labelled: bool = True


@dataclass(frozen=True)
class DamageTarget:
    """A file, how it is damaged, and the commands that read it; `share` is out of 1,000."""

    name: str
    share: int
    file: str
    needs: tuple[str, ...]
    damage: Damaging
    uses: tuple[Use, ...]


# -- checkpoints ----------------------------------------------------------------------------------


def _split(data: bytes) -> tuple[str, bytes]:
    """The JSON of a safetensors file, and its data section."""
    end = LENGTH + int.from_bytes(data[:LENGTH], "little")
    return data[LENGTH:end].decode("utf-8"), data[end:]


def _join(head: str, tensors: bytes) -> bytes:
    raw = head.encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(LENGTH, "little") + raw + tensors


def _sign(container: dict[str, Any], header: str) -> None:
    """Put a header's JSON into the container, with the digest that a forger would compute."""
    crc = zlib.crc32(header.encode("utf-8", "surrogatepass"))
    container["__metadata__"] |= {METADATA_KEY: header, DIGEST_KEY: f"{crc:08x}"}


def _strip(container: dict[str, Any], header: str) -> None:
    """Put it there as in files of before there were digests."""
    try:
        found = parse_json(header)
        found.pop("digests", None)
        header = json.dumps(found)
    except (ValueError, AttributeError, RecursionError):  # damaged beyond that
        pass
    container["__metadata__"][METADATA_KEY] = header
    container["__metadata__"].pop(DIGEST_KEY, None)


def header_value(*under: str) -> Damaging:
    """Damage to holo's own header, or to a part of it; mostly with the right digest of it."""

    def damage(rng: random.Random, data: bytes) -> Damage:
        head, tensors = _split(data)
        container = parse_json(head)
        what, inner = mutate.damage_json(rng, container["__metadata__"][METADATA_KEY], under)
        kind = rng.random()
        if kind < 0.65:
            _sign(container, inner)
            what += ", signed"
        elif kind < 0.9:
            _strip(container, inner)
            what += ", without digests"
        else:
            container["__metadata__"][METADATA_KEY] = inner
        return what, _join(json.dumps(container), tensors)

    return damage


def header_rewritten(data: bytes, changes: Mapping[str, Any]) -> bytes:
    """A checkpoint with these values in its header, and the right digest of it."""
    head, tensors = _split(data)
    container = parse_json(head)
    header = parse_json(container["__metadata__"][METADATA_KEY])
    _sign(container, json.dumps({**header, **changes}))
    return _join(json.dumps(container), tensors)


def container_head(rng: random.Random, data: bytes) -> Damage:
    """Damage to the container's head: its length, its JSON, names, dtypes, shapes and offsets."""
    kind = rng.random()
    head, tensors = _split(data)
    if kind < 0.2:
        near = (len(head) - 1, len(head) + 1, len(data))
        length = rng.choice((0, 1, 7, 8, *near, 10**8, 2**31, 2**63, 2**64 - 1))
        forged = length.to_bytes(LENGTH, "little") + data[LENGTH:]
        return f"the header's length becomes {length}", forged
    if kind < 0.45:
        what, raw = mutate.damage_bytes(rng, data[: LENGTH + len(head.encode())])
        return f"head: {what}", raw + tensors
    what, text = mutate.damage_json(rng, head)
    return f"head: {what}", _join(text, tensors)


def tensor_data(prefix: str) -> Damaging:
    """Damage to the bytes of tensors whose names begin so; the file keeps its length.

    Weights that become NaN or infinite get the right digest in half of the cases: they are named
    on loading all the same.
    """

    def damage(rng: random.Random, data: bytes) -> Damage:
        head, tensors = _split(data)
        container = parse_json(head)
        name = rng.choice(sorted(name for name in container if name.startswith(prefix)))
        entry = container[name]
        begin, end = entry["data_offsets"]
        part = tensors[begin:end]
        if rng.random() > 0.15 or entry["dtype"] != "F32":
            what, new = mutate.damage_bytes(rng, part, mutate.SAME_LENGTH)
            whole = tensors[:begin] + new + tensors[end:]
            return f"{name}: {what}", data[: len(data) - len(tensors)] + whole
        at = rng.randrange(len(part) // 4) * 4
        value = rng.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff"))
        new = part[:at] + value + part[at + 4 :]
        what = f"{name}: one number becomes NaN or infinite"
        if prefix == "model/" and rng.random() < 0.5:
            header = parse_json(container["__metadata__"][METADATA_KEY])
            header["digests"][name] = digest(entry["dtype"], entry["shape"], new)
            _sign(container, json.dumps(header))
            what += ", signed"
        return what, _join(json.dumps(container), tensors[:begin] + new + tensors[end:])

    return damage


def whole_file(rng: random.Random, data: bytes) -> Damage:
    """Damage that changes the length of a file: a bad copy, a download that stopped."""
    kinds = (mutate.cut, mutate.cut_head, mutate.remove, mutate.duplicate, mutate.insert)
    return mutate.damage_bytes(rng, data, kinds)


BASE = ("checkpoints/base_last.safetensors", "data/tiny")
LAST = BASE[0]
OUT = ("checkpoints/base_*", "runs/*", "checkpoints/.base.lock", "data/tiny/.lock")
RESUME = Use(("resume", "base", "--stop-at", "6"), rewrites=OUT)
INSPECT = Use(("inspect", "base", "-v"))
GENERATE = Use(("generate", "-c", "base", "-p", "The fox", "--max-new-tokens", "3", "--seed", "1"))
EVAL = Use(("eval", "-c", "base", "--max-docs", "1"))
EXPORT = Use(("export", "base", "--to", "weights", "--out", "out.safetensors"))
CHECKPOINT_USES = (
    INSPECT, Use(("inspect", "base", "--json")), GENERATE, RESUME, RESUME, EVAL, EXPORT,
    Use(("export", "base", "--to", "dir", "--out", "out")),
    Use(("chat", "-c", "base"), "/show\n", labelled=False),
    Use(("resume", "--stop-at", "6"), rewrites=OUT),
    Use(("visualize", "attention", "base", "--text", "The fox", "--out", "page.html")),
    Use(("inspect",)),
)  # fmt: skip


def refusing(*uses: Use) -> tuple[Use, ...]:
    """The uses, where each must notice the damage."""
    return tuple(Use(u.arguments, u.stdin, u.rewrites, True, u.labelled) for u in uses)


# -- prepared sets, tokenizers, texts -------------------------------------------------------------

LOCK = "data/tiny/.lock"
TRAIN = Use(
    ("train", "--model", "vanilla", "--data", "tiny", "--steps", "2", "--batch-size", "2",
     "--context", "16", "--set", "model.layers=1", "--set", "model.width=16",
     "--set", "model.heads=2", "--set", "training.sample_tokens=0", "--device", "cpu"),
    rewrites=(LOCK,),
)  # fmt: skip
EVAL_SET = Use(("eval", "-c", "base", "--data", "tiny", "--max-docs", "1"))
AGAIN = Use(
    ("prepare", "stories", "--max-bytes", "40000", "--tokenizer", "bpe", "--vocab-size", "300",
     "--out", "data/tiny"),
    rewrites=("data/tiny/*",),
)  # fmt: skip
SET_USES = (TRAIN, EVAL_SET, RESUME)
TALK = "/load talk.json\n/show\nAnd?\n/save again.json\n"
RECALL = "/memory load memory.json\n/memory on\nAnd?\n"
SHORT = ("-c", "base", "--max-new-tokens", "2")
BY_CONFIG = (
    "train", "--model", "vanilla", "--config", "config.toml", "--stop-at", "1", "--data", "tiny",
)  # fmt: skip
PLAN = ("bench", "compare", "--plan", "plan.toml", "--out", "bench/page.html")
ROWS = ("bench/page.jsonl", "plan.toml", "data/tiny")
LOG = "runs/base/metrics.jsonl"
PAGE = ("--out", "page.html")


def _prepare(*arguments: str) -> tuple[Use, ...]:
    return (Use(("prepare", "new", *arguments)),)


def _source(name: str, share: int) -> DamageTarget:
    uses = _prepare("--source", f"sources/{name}", "--tokenizer", "char")
    kind = mutate.damage_lines if name.endswith(".jsonl") else mutate.damage_bytes
    kind = mutate.damage_json_bytes if name.endswith(".json") else kind
    return DamageTarget(f"text {name}", share, f"sources/{name}", (f"sources/{name}",), kind, uses)


def _tokenizer(name: str, share: int, damage: Damaging) -> DamageTarget:
    uses = _prepare("--source", "story.txt", "--tokenizer", name, "--max-bytes", "5000")
    return DamageTarget(f"tokenizer {name}", share, name, (name, "story.txt"), damage, uses)


def _set(name: str, share: int, file: str, damage: Damaging, *uses: Use) -> DamageTarget:
    return DamageTarget(f"set {name}", share, f"data/tiny/{file}", BASE, damage, uses)


def _header(
    name: str, share: int, *under: str, uses: tuple[Use, ...] = CHECKPOINT_USES
) -> DamageTarget:
    return DamageTarget(name, share, LAST, BASE, header_value(*under), uses)


def _tensors(name: str, share: int, prefix: str, *uses: Use) -> DamageTarget:
    return DamageTarget(name, share, LAST, BASE, tensor_data(prefix), refusing(*uses))


TARGETS = (
    _header("checkpoint header", 120),
    _header("training state", 95, "state", uses=(RESUME, RESUME, RESUME, INSPECT)),
    _header("config in a checkpoint", 60, "config"),
    _header("tokenizer in a checkpoint", 50, "tokenizer"),
    DamageTarget("container head", 70, LAST, BASE, container_head, CHECKPOINT_USES),
    DamageTarget("checkpoint length", 35, LAST, BASE, whole_file, refusing(*CHECKPOINT_USES)),
    _tensors("weights", 70, "model/", GENERATE, RESUME, EVAL, EXPORT),
    _tensors("optimizer state", 40, "optimizer/", RESUME),
    _tensors("random state", 10, "rng/", RESUME),
    DamageTarget(
        "exported config", 20, "exported/config.json", ("exported",), mutate.damage_json_bytes,
        (Use(("inspect", "exported")),
         Use(("generate", "-c", "exported", "-p", "The fox", "--max-new-tokens", "3"))),
    ),
    _set("meta.json", 50, "meta.json", mutate.damage_json_bytes, *SET_USES, AGAIN),
    _set("tokenizer", 30, "tokenizer.json", mutate.damage_json_bytes, *SET_USES),
    _set("tokens", 25, "train_00000.bin", mutate.damage_bytes, *refusing(*SET_USES)),
    _set("ends", 15, "val_00000.idx", mutate.damage_bytes, *refusing(*SET_USES)),
    _set("records", 15, "val_00000.docs.npy", mutate.damage_bytes, *refusing(*SET_USES)),
    _tokenizer("tokenizer.json", 35, mutate.damage_json_bytes),
    _tokenizer("letters.model", 25, mutate.damage_bytes),
    DamageTarget(
        "conversation", 35, "talk.json", (*BASE, "talk.json"), mutate.damage_json_bytes,
        (Use(("chat", *SHORT), TALK, labelled=False),),
    ),
    DamageTarget(
        "memory", 25, "memory.json", (*BASE, "memory.json"), mutate.damage_json_bytes,
        (Use(("generate", *SHORT, "-p", "The fox", "--memory", "memory.json")),
         Use(("chat", *SHORT), RECALL, labelled=False)),
    ),
    DamageTarget(
        "bench rows", 30, "bench/page.jsonl", ROWS, mutate.damage_lines,
        (Use((*PLAN, "--report-only")), Use((*PLAN, "--report-only", "--json")),
         Use((*PLAN, "--power", "0.01"))),
    ),
    DamageTarget(
        "training log", 20, LOG, (LOG, *BASE), mutate.damage_lines,
        (Use(("visualize", "training", "base", *PAGE)), RESUME),
    ),
    DamageTarget(
        "config file", 30, "config.toml", ("config.toml", "data/tiny"), mutate.damage_toml,
        (Use((*BY_CONFIG, "--dry-run"), "", (LOCK,)), Use(BY_CONFIG, "", (LOCK,))),
    ),
    DamageTarget(
        "bench plan", 20, "plan.toml", ("plan.toml", "data/tiny"), mutate.damage_toml,
        (Use((*PLAN, "--dry-run")), Use((*PLAN, "--dry-run", "--json"))),
    ),
    _source("rows.jsonl", 15), _source("list.json", 10), _source("table.csv", 10),
    _source("rows.parquet", 15), _source("rows.jsonl.gz", 10), _source("plain.txt.zst", 10),
    _source("plain.txt", 5),
)  # fmt: skip


def by_number(number: int) -> DamageTarget:
    """The target of a case: any thousand cases in a row have each target `share` times."""
    scattered = number * 619 % 1000  # 619 and 1000 have no common factor: a permutation
    for target in TARGETS:
        if scattered < target.share:
            return target
        scattered -= target.share
    raise AssertionError("the shares are less than 1,000")
