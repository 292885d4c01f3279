"""Damaged, foreign and hostile files: each is one sentence, and none costs memory."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from holo_cli import registry
from holo_cli.checkpoint import (
    CheckpointError,
    TensorFile,
    find_checkpoint,
    load_model,
    load_training,
    read_header,
)
from holo_cli.config.model_schema import ModelConfig, RemovedKey
from tests.checkpoint.old_format import rewrite_head

if TYPE_CHECKING:
    from conftest import Run


@pytest.fixture
def good(tmp_path: Path, run: Run) -> Path:
    return run.save(tmp_path / "small_best.safetensors")


def raw(path: Path, head: bytes, data: bytes = b"") -> Path:
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)
    return path


def refused(path: Path, match: str, load: Callable[[Path], object] = load_model) -> CheckpointError:
    with pytest.raises(CheckpointError, match=match) as caught:
        load(path)
    assert str(path.name) in caught.value.message
    assert "\n" not in str(caught.value)
    assert caught.value.next_step
    return caught.value


# -- not a checkpoint at all ----------------------------------------------------------------------


def test_a_missing_file_names_the_nearest_run(good: Path) -> None:
    error = refused(good.with_name("smal_best.safetensors"), "no checkpoint at", read_header)
    assert error.next_step == "Did you mean 'small'?"


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    refused(tmp_path / "a.safetensors", r"is empty \(0 bytes\)", read_header)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_unread(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    refused(path, "holo reads no pickles", read_header)


@pytest.mark.parametrize("content", [b"x", b"Once upon a time", b"GGUF\x03\0\0\0\0\0", bytes(50)])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    refused(path, "is not a safetensors file", read_header)


def test_a_folder_that_is_no_export(tmp_path: Path) -> None:
    refused(tmp_path, "holds no exported model", read_header)


def test_safetensors_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.ones(2)}, path, {"format": "pt"})
    refused(path, "not one of holo's", read_header)


# -- damaged and hostile containers ---------------------------------------------------------------


def test_a_huge_header_length_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}" + bytes(1000))
    tracemalloc.start()
    refused(path, "is not a safetensors file", read_header)
    path.write_bytes((99_000_000).to_bytes(8, "little") + b"{}" + bytes(1000))
    refused(path, "ends before that", read_header)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (b"[1, 2]", "invalid JSON"),
        (b'"text"', "invalid JSON"),
        (b"{broken", "invalid JSON"),
        (b'{"a": "\xff\xfe"}', "invalid UTF-8"),
        (b"[" * 100_000, "invalid JSON"),
        (b"9" * 10_000, "invalid JSON"),
        (b'{"__metadata__": 3}', "expected a map"),
        (b'{"__metadata__": {"holo": 3}}', "expected a string"),
        (b'{"a": 3}', "expected struct TensorInfo"),
    ],
)
def test_heads_that_are_no_heads(tmp_path: Path, head: bytes, match: str) -> None:
    refused(raw(tmp_path / "a.safetensors", head), match, read_header)


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"a": entry(dtype="Q4_K")}, "unknown variant `Q4_K`"),
        ({"a": entry(dtype=["F32"])}, "expected string or map"),
        ({"a": entry(dtype="F4", shape=[8])}, "unknown dtype F4"),
        ({"a": entry(shape=None)}, "expected a sequence"),
        ({"a": entry(shape=[-1, -1])}, "expected usize"),
        ({"a": entry(shape=[True])}, "expected usize"),
        ({"a": entry(shape=[1.0])}, "expected usize"),
        ({"a": entry(shape=[1] * 1000)}, "1000 dimensions"),
        ({"a": entry(shape=[2**64])}, "expected usize"),
        ({"a": entry(offsets=[0])}, "tuple of size 2"),
        ({"a": entry(offsets=[-4, 0])}, "expected usize"),
        ({"a": entry(offsets=[0, 2**70])}, "expected usize"),
        ({"a": entry(offsets=[4, 0])}, "invalid offset for tensor `a`"),
        ({"a": entry(shape=[2**31, 2**31])}, "overflow"),
        ({"a": entry(), "b": entry()}, "invalid offset for tensor `[ab]`"),
        ({"a": entry(), "b": entry(offsets=[8, 12])}, "invalid offset for tensor `[ab]`"),
        ({"a": entry(shape=[2**40], offsets=[0, 2**42])}, "cut off"),
        ({}, "longer than its tensors"),
    ],
)
def test_tensors_that_cannot_be(tmp_path: Path, entries: dict[str, Any], match: str) -> None:
    head = json.dumps(entries).encode()
    refused(raw(tmp_path / "a.safetensors", head, bytes(4)), match, read_header)


# -- headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 3}, "format 3 does not fit where its tensors are"),
        ({"format": 4}, r"written by a newer holo \(format 4"),
        ({"format": 0}, "there is no format 0"),
        ({"format": "1"}, "names no format version"),
        ({"model": None}, "'model'"),
        ({"config": {}}, "there is no section 'model'"),
        ({"config": {"model": []}}, "there is no section 'model'"),
        ({"step": -1}, "'step'"),
        ({"kind": "worst"}, "'kind'"),
        ({"shared": {"x": "nowhere"}}, "its tensor 'x' should be 'nowhere'"),
        ({"tokenizer": []}, "'tokenizer'"),
    ],
)
def test_headers_that_do_not_fit(good: Path, changes: dict[str, Any], match: str) -> None:
    refused(rewrite_head(good, lambda entries, header: header.update(changes)), match, read_header)


@pytest.mark.parametrize("text", ["[]", "null", "{", "[" * 100_000])
def test_headers_that_are_no_objects(good: Path, text: str) -> None:
    refused(
        rewrite_head(good, lambda entries, header: (header.clear(), entries.update(_holo(text)))),
        "is damaged",
        read_header,
    )


def _holo(text: str) -> dict[str, Any]:
    return {"__metadata__": {"holo": text}}


def test_a_missing_key_is_named(good: Path) -> None:
    refused(
        rewrite_head(good, lambda e, header: header.pop("tokenizer")),
        "the key 'tokenizer' is missing",
    )


def test_keys_of_a_later_minor_version_do_no_harm(good: Path) -> None:
    rewrite_head(good, lambda entries, header: header.update({"mood": "good"}))
    assert read_header(good).step == 7
    load_model(good)


def test_a_newer_format_says_how_to_update(good: Path) -> None:
    error = refused(rewrite_head(good, lambda e, header: header.update(format=9)), "newer holo")
    assert "pip install --upgrade" in error.next_step


# -- config against tensors -----------------------------------------------------------------------


def config(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    return lambda entries, header: header["config"]["model"].update(changes)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda e, h: h.update(model="vanila"), "holds a model 'vanila'"),
        (lambda e, h: h.update(model="../../etc"), "which this holo does not have"),
        (config(gravity=3), "the key 'gravity' is unknown to this version"),
        (config(layers="many"), "'layers': Input should be a valid integer"),
        (config(heads=3), "must be a multiple of model.heads"),
        (config(vocab_size=0), "no model fits its config"),
        (config(layers=1), r"no place for the tensor 'model/blocks\.1\."),
        (config(layers=3), r"lacks the tensor 'model/blocks\.2\."),
        (config(width=32), r"has shape \[\d+, 16\] and its config asks for \[\d+, 32\]"),
        (config(vocab_size=10**9), "its config asks for"),
        (config(vocab_size=2**62, width=2**62), "must be at most|less than or equal to"),
        (config(width=10**9, heads=1), "more weights than the file has"),
        (lambda e, h: e.update({"model/extra": entry("F32", [0], [0, 0])}), "'model/extra'"),
        (lambda e, h: e["model/embedding.token.weight"].update(dtype="I32"), "of dtype I32"),
    ],
)
@pytest.mark.parametrize("load", [load_model, load_training])
def test_a_config_that_is_not_the_tensors(
    good: Path, change: Any, match: str, load: Callable[[Path], object]
) -> None:
    refused(rewrite_head(good, change), match, load)


def test_a_config_key_of_a_newer_holo_names_that_version(good: Path) -> None:
    def change(entries: object, header: dict[str, Any]) -> None:
        header["config"]["model"]["gravity"] = 1
        header["versions"]["holo"] = "7.1.0"

    error = refused(rewrite_head(good, change), "'gravity'")
    assert "holo 7.1.0" in error.next_step


def test_a_removed_key_is_read_where_it_was_off_and_refused_with_the_reason_where_not(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = registry.config_class("vanilla")
    gone = {key: RemovedKey(0, f"since no {key} fell") for key in ("anvil", "gravity", "piano")}
    monkeypatch.setattr(kind, "removed", gone)
    load_model(rewrite_head(good, config(anvil=0, gravity=0, piano=0)))
    used = config(anvil=0, gravity=3, piano=0)
    error = refused(rewrite_head(good, used), "model.gravity, which was removed, since no gravity")
    assert "older version" in error.next_step


def test_an_absurd_config_is_refused_before_any_allocation(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run.save(tmp_path / "a.safetensors")
    build = registry.build_model
    devices: list[str] = []

    def spy(name: str, config: ModelConfig) -> nn.Module:
        devices.append(str(torch.empty(0).device))
        return build(name, config)

    monkeypatch.setattr(registry, "build_model", spy)
    refused(rewrite_head(path, config(width=2**20, heads=1)), "its config asks for")
    assert devices in ([], ["meta"])


@pytest.mark.parametrize(
    ("tokenizer", "match"),
    [
        ({"kind": "morse"}, "does not support tokenizers of kind 'morse'"),
        ({"kind": "char"}, "tokenizer"),
        ({"kind": "char", "characters": 3, "specials": {}}, "tokenizer"),
        ({"kind": "char", "characters": "aa", "specials": {}}, "tokenizer"),
        ({"kind": "char", "characters": ["ab"], "specials": {}}, "tokenizer"),
        ({"kind": "char", "characters": "ab", "specials": "x"}, "tokenizer"),
        ({"kind": "char", "characters": "ab", "specials": {"<|end|>": "x"}}, "tokenizer"),
        ({"kind": "char", "characters": "ab", "specials": {"<|end|>": 10**15}}, "1000000000000001"),
        ({"kind": "bpe", "json": {"model": {"type": "BPE"}}}, "tokenizer"),
        ({"kind": "sentencepiece", "model": "AAAA"}, "tokenizer"),
    ],
)
def test_tokenizers_that_cannot_be(good: Path, tokenizer: dict[str, Any], match: str) -> None:
    refused(rewrite_head(good, lambda e, header: header.update(tokenizer=tokenizer)), match)


def test_what_a_hostile_file_says_cannot_move_the_cursor(good: Path) -> None:
    error = refused(
        rewrite_head(good, lambda e, header: header.update(model="\x1b[2J\nvanilla")), "\\\\x1b"
    )
    assert str(error).isprintable()
    name = "\x1b]0;title\x07" + "long" * 1000
    bad = entry(offsets=[8, 4])  # the library quotes the name
    error = refused(rewrite_head(good, lambda entries, h: entries.update({name: bad})), "title")
    assert str(error).isprintable()
    assert len(str(error)) < 700


def test_a_header_never_reaches_other_packages(good: Path) -> None:
    refused(
        rewrite_head(good, lambda e, header: header.update(model="os")), "which this holo does not"
    )


# -- at random ------------------------------------------------------------------------------------


def test_truncation_anywhere_is_one_sentence(good: Path) -> None:
    content = good.read_bytes()
    points = {
        *np.linspace(0, len(content) - 1, 50, dtype=int).tolist(),
        1,
        7,
        8,
        9,
        len(content) - 1,
    }
    for point in sorted(points):
        good.write_bytes(content[:point])
        for load in (read_header, load_model):
            with pytest.raises(CheckpointError):
                load(good)


def test_flipped_bytes_are_one_sentence_or_still_a_model(good: Path) -> None:
    """Of a file without digests: nothing else stands between damage and the parsers."""
    content = rewrite_head(good, lambda entries, header: None).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    draw = random.Random(5)
    outcomes = {"refused": 0, "loaded": 0}
    for _ in range(400):
        changed = bytearray(content)
        for _ in range(draw.choice([1, 1, 1, 3, 20])):
            changed[draw.randrange(8 if draw.random() < 0.1 else start)] = draw.randrange(256)
        good.write_bytes(changed)
        try:
            with TensorFile(good) as file:
                stored = sum(info.nbytes for info in file.container.tensors.values())
            assert stored <= len(content)
            model, _, _ = load_model(good)
            assert sum(p.numel() for p in model.parameters()) * 4 <= len(content)
            outcomes["loaded"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 100
    assert outcomes["loaded"] > 5


def test_a_damaged_file_is_not_found_by_another_name(good: Path, tmp_path: Path) -> None:
    good.write_bytes(b"")
    assert find_checkpoint("small", tmp_path) == good
    refused(good, "is empty")
