"""The sets that preparing texts gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from holo_cli.data.dataset import PreparedData
from holo_cli.data.prepare import staging
from holo_cli.data.prepare.options import PrepareProgress
from holo_cli.data.prepare.prepare import prepare
from holo_cli.errors import DataError
from tests.data.prepared import corpus, texts


@pytest.mark.parametrize(("tokenizer", "size"), [("char", 0), ("bpe", 400)])
def test_the_text_is_all_there(tokenizer: str, size: int, source: Path, tmp_path: Path) -> None:
    result = prepare(
        ["mine"], source=str(source), out=tmp_path / "set", tokenizer=tokenizer, vocab_size=size
    )
    data = PreparedData.open(result.data)
    documents = corpus().split("\n\n\n")
    train, val = texts(data, "train"), texts(data, "val")
    assert sorted(train + val) == sorted(documents)
    assert train == [text for text in documents if text in set(train)]  # in order
    assert result.docs == {"train": len(train), "val": len(val)}
    for split, found in (("train", train), ("val", val)):
        assert data.byte_count(split) == sum(len(text.encode()) for text in found)
        sizes = np.concatenate([record["bytes"] for record in data.records(split)])
        assert sizes.tolist() == [len(text.encode()) for text in found]
        assert data.token_count(split) == result.tokens[split] == sum(map(len, data.split(split)))
    assert data.dtype == np.dtype("<u2")
    assert data.has_markers  # English and Korean, detected
    assert not staging.staging_folder(result.data).exists()


def test_the_result_has_the_keys_of_the_command(source: Path, tmp_path: Path) -> None:
    result = prepare([], source=str(source), out=tmp_path / "set", tokenizer="char")
    assert json.loads(json.dumps(result.to_dict())) == {
        "data": str(tmp_path / "set"),
        "tokens": result.tokens,
        "bytes": result.bytes,
        "docs": result.docs,
        "vocab_size": result.vocab_size,
        "tokenizer": "char",
        "dropped": {},
        "passed_over": {},
        "seconds": pytest.approx(result.seconds, abs=0.001),
    }


def test_the_default_place_and_name(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prepare(source=str(source), tokenizer="char").data == Path("data/나의 글")
    assert PreparedData.open("나의 글").name == "나의 글"


def test_stories_carry_markers_of_both_languages(tmp_path: Path) -> None:
    result = prepare(["stories"], out=tmp_path / "set", max_bytes=60_000, vocab_size=600)
    data = PreparedData.open(result.data)
    assert data.has_markers
    assert set(data.languages) == {"en", "ko"}
    assert sum(result.bytes.values()) <= 60_000
    for tokens, ends, records in zip(
        data.split("train"), data.document_ends("train"), data.records("train"), strict=True
    ):
        for start, record in zip([0, *ends[:-1]], records, strict=True):
            assert tokens[int(start)] == data.tokenizer.marker(record["language"].decode())
    one = prepare(["stories"], out=tmp_path / "ko", max_docs=30, lang=["ko"], tokenizer="char")
    korean = PreparedData.open(one.data)
    assert sum(one.docs.values()) == 30
    assert korean.languages == {"ko": 30}
    assert not korean.has_markers


def test_languages_are_detected_if_requested(source: Path, tmp_path: Path) -> None:
    result = prepare(source=str(source), out=tmp_path / "set", lang=["ko", "en"], tokenizer="char")
    data = PreparedData.open(result.data)
    assert data.has_markers
    assert data.languages == {"en": 60, "ko": 60}
    shares = data.meta.languages
    assert sum(s.tokens for split in shares.values() for s in split.values()) == sum(
        result.tokens.values()
    )


def test_dropped_documents_are_counted(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"line {i}\0", "lang": "en"}) for i in range(20)]
    lines += ["{bad", '{"text": "  "}', '{"text": "Zeile", "lang": "de"}']
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    result = prepare(source=str(path), out=tmp_path / "set", lang=["en"], tokenizer="char")
    assert result.dropped == {
        "bad lines": 1,
        "control characters": 20,
        "empty documents": 1,
        "other languages": 1,
    }


@pytest.mark.parametrize("text", ["just one line", "두\n줄", "x" * 100_000, "ab"])
def test_a_single_text_has_both_sides(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    result = prepare(source=str(path), out=tmp_path / "set", tokenizer="char")
    data = PreparedData.open(result.data)
    assert len("".join(texts(data, "train") + texts(data, "val"))) == len(text)
    assert min(result.docs.values()) >= 1


def test_limits(source: Path, tmp_path: Path) -> None:
    result = prepare(source=str(source), out=tmp_path / "a", max_docs=7, tokenizer="char")
    assert sum(result.docs.values()) == 7
    result = prepare(source=str(source), out=tmp_path / "b", max_bytes=5001, tokenizer="char")
    assert 4990 <= sum(result.bytes.values()) <= 5001


def test_shards_are_bounded_and_hold_whole_documents(source: Path, tmp_path: Path) -> None:
    result = prepare(source=str(source), out=tmp_path / "set", tokenizer="char", shard_bytes=3000)
    data = PreparedData.open(result.data)
    assert len(data.split("train")) > 5
    assert all(len(shard) * 2 <= 3000 for shard in data.split("train"))
    assert len(texts(data, "train")) == result.docs["train"]


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    codes = [*range(0x20, 0xD800), *range(0xE000, 0x1A000)]
    path.write_text("".join(map(chr, codes)).replace("\x7f", ""), encoding="utf-8")
    result = prepare(source=str(path), out=tmp_path / "set", tokenizer="char")
    assert result.vocab_size > 65_536
    data = PreparedData.open(result.data)
    assert data.dtype == np.dtype("<u4")
    assert max(int(shard.max()) for shard in data.split("train")) > 65_536


def test_progress_is_reported(source: Path, tmp_path: Path) -> None:
    told: list[PrepareProgress] = []
    result = prepare(source=str(source), out=tmp_path / "s", tokenizer="char", progress=told.append)
    assert told[-1].stage == "packing"
    assert told[-1].documents == sum(result.docs.values())
    assert told[-1].bytes == sum(result.bytes.values())
    assert told[-1].total_bytes is not None


def test_a_tokenizer_of_another_text(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("the keeper\n\n\nthe lamp", encoding="utf-8")
    one = prepare(source=str(other), out=tmp_path / "one", tokenizer="char")
    with pytest.raises(DataError, match=r"cannot encode '.' \(U\+[0-9A-F]{4,}\)"):
        prepare(source=str(source), out=tmp_path / "two", tokenizer=str(one.data))
    assert not (tmp_path / "two").exists()
