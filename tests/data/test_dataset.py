"""Opening a prepared set, and the errors for damaged sets."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holo_cli.data.dataset import PreparedData, find_prepared
from holo_cli.data.prepare.prepare import prepare
from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.errors import DataError, UsageError


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    text = "\n\n\n".join(f"document {i} of the harbour" for i in range(60))
    (folder / "a.txt").write_text(text, encoding="utf-8")
    return prepare(source=str(folder / "a.txt"), out=folder / "data" / "harbour").data


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "data" / "harbour"))


def change_meta(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    change(meta)
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def high_token(folder: Path) -> None:
    """A token outside the vocabulary with matching hashes: only reading the tokens finds it."""
    path = folder / "train_00000.bin"
    tokens = np.fromfile(path, dtype="<u2")
    tokens[7] = 60_000
    tokens.tofile(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    change_meta(folder, lambda meta: meta["shards"][0].update(sha256=digest))


def test_by_path_and_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    assert find_prepared() == [Path("data/harbour")]
    by_name = PreparedData.open("harbour")
    by_path = PreparedData.open(folder, verify=False)
    assert by_name.fingerprint == by_path.fingerprint
    assert by_name.name == "a"
    with pytest.raises(UsageError, match="no split 'test'"):
        by_name.split("test")
    with pytest.raises(ValueError, match="read-only"):
        by_name.split("train")[0][0] = 1


def test_a_missing_set_names_the_nearest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    with pytest.raises(DataError, match="Did you mean 'harbour'"):
        PreparedData.open("harbor")
    with pytest.raises(DataError, match=r"`holo prepare stories` prepares"):
        PreparedData.open("/nowhere/at/all")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "meta.json").unlink(), r"not a prepared set: it has no meta\.json"),
        (lambda f: (f / "meta.json").write_text("{", encoding="utf-8"), "cannot be read"),
        (lambda f: change_meta(f, lambda m: m.update(format=99)), "newer version of holo"),
        (lambda f: change_meta(f, lambda m: m.pop("shards")), "is damaged: shards"),
        (
            lambda f: cut_short(f / "train_00000.bin"),
            r"train_00000\.bin has [\d,]+ bytes; ",
        ),
        (
            lambda f: cut_short(f / "val_00000.idx"),
            r"val_00000\.idx has [\d,]+ bytes; ",
        ),
        (lambda f: (f / "val_00000.bin").unlink(), r"val_00000\.bin is missing"),
        (lambda f: flip(f / "train_00000.bin"), "has changed since"),
        (lambda f: flip(f / "train_00000.docs.npy"), "has changed since"),
        (high_token, "contains token 60,000, outside"),
        (
            lambda f: CharTokenizer("abc").save(f),
            "not the tokenizer that the set was",
        ),
        (lambda f: (f / "tokenizer.json").unlink(), "cannot be read"),
        (lambda f: (f / "tokenizer.json").write_text("{}", encoding="utf-8"), "damaged"),
    ],
)
def test_damage_is_refused_in_one_sentence(
    damage: Callable[[Path], object], says: str, folder: Path
) -> None:
    PreparedData.open(folder)
    damage(folder)
    with pytest.raises(DataError, match=says) as caught:
        PreparedData.open(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.next_step


def test_the_fingerprint_names_the_data(folder: Path) -> None:
    before = PreparedData.open(folder).fingerprint
    assert len(before) == 64
    path = folder / "train_00000.bin"
    tokens = np.fromfile(path, dtype="<u2")
    tokens[7] = 1 - tokens[7] if tokens[7] < 2 else 0
    tokens.tofile(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    change_meta(folder, lambda meta: meta["shards"][0].update(sha256=digest))
    assert PreparedData.open(folder).fingerprint != before
