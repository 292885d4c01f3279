"""Invalid input and failures with local files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from holo_cli.data import encode as encoding
from holo_cli.data.dataset import PreparedData
from holo_cli.data.prepare.prepare import prepare
from holo_cli.data.tokenizers import make_tokenizer
from holo_cli.errors import DataError, UsageError
from tests.data.sources import hub_layouts as layouts


def some(path: Path, count: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n\n".join(map(layouts.korean, range(count))), encoding="utf-8")
    return path


def test_a_line_of_fifty_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for n in range(30):
            file.write(json.dumps({"text": layouts.english(n)}) + "\n")
        file.write('{"text": "' + "the lamp burns on and on " * 2_000_000 + '"}\n')
        file.write('{"text": "' + "cut off in the middle " * 100_000 + "\n")
        for n in range(30, 60):
            file.write(json.dumps({"text": layouts.english(n)}) + "\n")
    assert path.stat().st_size > 50_000_000
    result = prepare(
        source=str(path), out=tmp_path / "set", tokenizer="char", max_bytes=200_000, seed=1
    )
    assert result.dropped == {"bad lines": 1}
    assert sum(result.bytes.values()) == 200_000
    data = PreparedData.open(result.data)
    long = max(max(record["bytes"].tolist()) for record in data.records("train"))
    assert long > 150_000  # what the limit left of it


@pytest.mark.parametrize("words", ["두 개의 등불이 켜졌다. ", "no space for a while\n", "긴글"])
def test_a_long_text_is_encoded_in_pieces(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "LONGEST", 100)
    monkeypatch.setattr(encoding, "AT_ONCE", 250)
    text = words * 80
    tokenizer = make_tokenizer("bpe", texts=lambda: [text], vocab_size=300)
    short, long, empty = encoding.encode(tokenizer, ["a b", text, ""])
    assert tokenizer.decode(long.tolist()) == text
    assert tokenizer.decode(short.tolist()) == "a b"
    if "등불" in text:  # cut where words end, each piece has the tokens of the whole
        assert long.tolist() == tokenizer.encode(text)
    assert len(empty) == 0
    pieces = list(encoding.pieces(text))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 100
    assert len(pieces) >= len(text) / 100


def test_a_hundred_thousand_empty_documents(tmp_path: Path) -> None:
    path, tokenizer = tmp_path / "a.jsonl", tmp_path / "tokenizer"
    lines = [json.dumps({"text": f"{n}: the lamp"}) + "\n" for n in range(1010)]
    path.write_text("".join(lines), encoding="utf-8")
    prepare(source=str(path), out=tokenizer, tokenizer="char", tokenizer_only=True)
    empty = '{"text": ""}\n{"text": " \\n "}\n'
    with path.open("w", encoding="utf-8") as file:
        file.write(empty * 1000)  # some before the beginning that the division is decided from
        file.writelines(lines)
        file.write(empty * 49_000)
    result = prepare(source=str(path), out=tmp_path / "set", tokenizer=str(tokenizer))
    assert result.dropped == {"empty documents": 100_000}
    assert sum(result.docs.values()) == 1010


def test_parquet_without_the_text_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"content": ["x"], "id": [1]}), path)
    with pytest.raises(UsageError, match=r"has no text column 'text'; it has: content, id") as e:
        prepare(source=str(path), out=tmp_path / "set")
    assert "--text-field" in e.value.next_step
    assert not (tmp_path / "set").exists()


def test_mixed_encodings_in_a_folder_with_spaces_and_hangul(tmp_path: Path) -> None:
    folder = tmp_path / "나의 글 모음 2"
    some(folder / "새 글.txt", 20)
    old = folder / "옛날 폴더" / "옛 글.txt"
    old.parent.mkdir()
    old.write_bytes("\n\n\n".join(map(layouts.korean, range(20, 40))).encode("cp949"))
    (folder / "wide.txt").write_text(
        "\n\n\n".join(map(layouts.english, range(20))), encoding="utf-16"
    )
    with pytest.raises(DataError, match=r"옛 글\.txt is not UTF-8") as caught:
        prepare(source=str(folder), out=tmp_path / "set")
    assert "--encoding cp949" in caught.value.next_step
    result = prepare(source=str(folder), out=tmp_path / "set", encoding="cp949", tokenizer="char")
    data = PreparedData.open(result.data)
    assert sum(result.docs.values()) == 60
    assert sorted(data.meta.source_names) == ["wide.txt", "새 글.txt", "옛날 폴더/옛 글.txt"]


@pytest.mark.parametrize("kind", [errno.EROFS, errno.EACCES])
def test_a_folder_that_may_not_be_written(
    kind: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = some(tmp_path / "a.txt")
    opened = Path.open

    def refuse(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if "set" in self.parts and mode != "r" and mode != "rb":
            raise OSError(kind, os.strerror(kind), str(self))
        return opened(self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"could not be written") as caught:
        prepare(source=str(source), out=tmp_path / "set", tokenizer="char")
    assert "--out" in caught.value.next_step
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    source = some(tmp_path / "a.txt")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(DataError, match=r"could not be written"):
        prepare(source=str(source), out=tmp_path / "locked" / "set", tokenizer="char")


def test_a_shard_that_is_edited_afterwards(tmp_path: Path) -> None:
    result = prepare(source=str(some(tmp_path / "a.txt")), out=tmp_path / "set", tokenizer="char")
    PreparedData.open(result.data)
    shard = result.data / "train_00000.bin"
    tokens = np.fromfile(shard, dtype="<u2")
    tokens[[3, 4]] = tokens[[4, 3]]
    tokens[5] ^= 1
    tokens.tofile(shard)
    with pytest.raises(DataError, match=r"train_00000\.bin has changed since it was prepared"):
        PreparedData.open(result.data)


def test_one_source_named_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'stories' is named twice") as caught:
        prepare(["stories", "shakespeare", "stories"], out=tmp_path / "set")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


# -- tokenizers by name, and alone -----------------------------------------------------------------


def test_the_tokenizer_of_a_set_serves_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = prepare(["one"], source=str(some(tmp_path / "a.txt")), vocab_size=400)
    other = str(some(tmp_path / "b.txt", 40))
    by_name = prepare(["two"], source=other, tokenizer="one")
    by_path = prepare(["three"], source=other, tokenizer="data/one")
    names = [PreparedData.open(r.data).tokenizer.fingerprint for r in (first, by_name, by_path)]
    assert len(set(names)) == 1
    assert prepare(["two"], source=other, tokenizer="one").already
    with pytest.raises(UsageError, match="There is no tokenizer 'four'"):
        prepare(["five"], source=other, tokenizer="four")


def test_a_tokenizer_alone(tmp_path: Path) -> None:
    source, out = str(some(tmp_path / "a.txt")), tmp_path / "words"
    made = prepare(source=source, out=out, vocab_size=350, tokenizer_only=True)
    assert [path.name for path in out.iterdir()] == ["tokenizer.json"]
    assert made.vocab_size == 350
    assert set(made.to_dict()["tokens"].values()) == {0}
    with pytest.raises(DataError, match=r"no meta\.json"):
        PreparedData.open(out)
    with pytest.raises(DataError, match="exists already"):
        prepare(source=source, out=out, tokenizer_only=True)
    result = prepare(source=source, out=tmp_path / "set", tokenizer=str(out))
    assert result.vocab_size == 350
    whole = prepare(source=source, out=tmp_path / "whole", vocab_size=350)
    same = [PreparedData.open(r.data).tokenizer.fingerprint for r in (result, whole)]
    assert same[0] == same[1]
    with pytest.raises(DataError, match="its tokenizer cannot be replaced"):
        prepare(source=source, out=tmp_path / "set", tokenizer_only=True, force=True)


# -- mixtures through a whole preparation ----------------------------------------------------------


def test_a_mixture_of_languages(tmp_path: Path) -> None:
    result = prepare(
        ["stories"], out=tmp_path / "set", tokenizer="char", max_bytes=60_000, mix="ko=0.7,en=0.3"
    )
    data = PreparedData.open(result.data)
    sizes = {
        code: sum(split[code].bytes for split in data.meta.languages.values() if code in split)
        for code in ("ko", "en")
    }
    assert sizes["ko"] / sum(sizes.values()) == pytest.approx(0.7, abs=0.03)
    assert data.has_markers
    assert set(data.meta.mixture) == {"stories ko", "stories en"}


def test_languages_of_ones_own_text_in_balance(tmp_path: Path) -> None:
    path = tmp_path / "both.jsonl"
    rows = [{"text": layouts.korean(n)} for n in range(20)]
    rows += [{"text": layouts.english(n)} for n in range(80)]
    rows += [{"text": "Zeile", "lang": "de"}]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows] + ["{bad"]
    path.write_text("\n".join(lines), encoding="utf-8")
    common = {"source": str(path), "tokenizer": "char", "mix": "balanced"}
    result = prepare(out=tmp_path / "set", lang=["ko", "en"], **common)
    data = PreparedData.open(result.data)
    assert data.languages["ko"] == 20
    assert data.meta.mixture["both ko"] == pytest.approx(data.meta.mixture["both en"], rel=0.1)
    assert result.dropped == {"bad lines": 1, "other languages": 1}
    weighed = {**common, "mix": "ko=0.2,en=0.8"}
    shares = PreparedData.open(
        prepare(out=tmp_path / "b", lang=["ko", "en"], **weighed).data
    ).meta.mixture
    assert shares["both ko"] / sum(shares.values()) == pytest.approx(0.2, abs=0.05)
    with pytest.raises(UsageError, match="weights languages") as caught:
        prepare(out=tmp_path / "c", **common)
    assert "--lang" in caught.value.next_step


def test_a_limit_holds_for_each_name(tmp_path: Path) -> None:
    text = tmp_path / "shakespeare.txt"
    text.write_text("KEEPER:\nWho comes so late to the light?\n\n" * 500, encoding="utf-8")
    both = {"out": tmp_path / "set", "tokenizer": "char", "max_docs": 40}
    result = prepare(["stories"], **both)
    assert sum(result.docs.values()) == 40
    wider = prepare(["stories"], out=tmp_path / "b", tokenizer="char", max_bytes=30_000)
    assert 29_000 < sum(wider.bytes.values()) <= 30_000
