"""Local files of every kind: documents, counts of invalid rows, errors."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from holo_cli.data.document import Document
from holo_cli.data.sources import datasets_table, open_source
from holo_cli.data.sources.base import Request
from holo_cli.errors import DataError, HoloError, UsageError

KOREAN = "등대지기는 밤마다 바다를 보며 배가 돌아오기를 기다렸다.\n" * 5


def read(source: Path | str, **options: object) -> tuple[list[Document], Counter[str]]:
    counts: Counter[str] = Counter()
    request = Request(name="mine", source=str(source), **options)  # type: ignore[arg-type]
    opened = open_source(request)
    documents = list(opened.documents(counts))
    again: Counter[str] = Counter()
    assert list(opened.documents(again)) == documents
    assert again == counts
    return documents, counts


def texts(source: Path | str, **options: object) -> list[str]:
    return [document.text for document in read(source, **options)[0]]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


JSONL = '{"text": "one", "lang": "en"}\n{"text": "둘", "language": "ko"}\n'
CSV = 'id,text\n1,"one, and\na second line"\n2,둘\n'
TSV = 'id\ttext\n1\tone "quoted\n2\t둘\n'


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "one\n\n\n둘", ["one\n", "둘"]),
        ("a.md", "# one\n\n\n둘", ["# one\n", "둘"]),
        ("a.jsonl", JSONL, ["one", "둘"]),
        ("a.csv", CSV, ["one, and\na second line", "둘"]),
        ("a.tsv", TSV, ['one "quoted', "둘"]),
    ],
)
@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_every_kind(
    name: str, content: str, expected: list[str], compression: str, tmp_path: Path
) -> None:
    data = content.encode("utf-8")
    if compression == ".gz":
        data = gzip.compress(data)
    elif compression == ".zst":
        data = zstandard.compress(data)
    path = tmp_path / (name + compression)
    path.write_bytes(data)
    assert texts(path) == expected


@pytest.mark.parametrize("compressed", [False, True])
def test_parquet(compressed: bool, tmp_path: Path) -> None:
    rows = {"text": ["one", None, "둘"], "lang": ["en", "en", "ko"], "n": [1, 2, 3]}
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    if compressed:
        data = path.read_bytes()
        path = tmp_path / "a.parquet.gz"
        path.write_bytes(gzip.compress(data))
    documents, counts = read(path)
    assert [(d.text, d.language) for d in documents] == [("one", "en"), ("둘", "ko")]
    assert counts == {"bad lines": 1}
    with pytest.raises(UsageError, match="no text column 'body'; it has: text, lang, n"):
        read(path, text_field="body")


def test_bad_lines_are_counted_and_passed_over(tmp_path: Path) -> None:
    lines = ['{"text": "good"}', "{broken", '{"text": 3}', "[1]", "", '{"text": "too"}', "[" * 9999]
    documents, counts = read(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert [d.text for d in documents] == ["good", "too"]
    assert counts == {"bad lines": 4}
    documents, counts = read(write(tmp_path / "a.csv", "a,text\n1,good\n2\n3,x,y\n4,too\n"))
    assert [d.text for d in documents] == ["good", "too"]
    assert counts == {"bad lines": 2}


def test_columns_by_name_and_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "en\thello\nko\t안녕\n")
    assert texts(path, text_field="2") == ["hello", "안녕"]
    with pytest.raises(UsageError, match="no text column 'text'; it has: en, hello"):
        read(path)
    with pytest.raises(UsageError, match="no text column '3'"):
        read(path, text_field="3")
    path = write(tmp_path / "a.jsonl", '{"body": "hello"}\n')
    assert texts(path, text_field="body") == ["hello"]
    with pytest.raises(UsageError, match="it has: body"):
        read(path)


def test_folders_and_globs_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "내 글 모음"
    write(folder / "b.txt", "second")
    write(folder / "a 글.md", "first")
    write(folder / "sub" / "c.jsonl", '{"text": "third"}')
    write(folder / ".hidden" / "d.txt", "never")
    write(folder / "picture.png", "never")
    documents, _ = read(folder)
    assert [(d.text, d.source) for d in documents] == [
        ("first", "a 글.md"),
        ("second", "b.txt"),
        ("third", "sub/c.jsonl"),
    ]
    assert texts(folder / "*.txt") == ["second"]
    assert texts(folder / "**" / "*.jsonl") == ["third"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for content, expected in [
        (b"one\n\n\ntwo", ["one\n", "two"]),
        (JSONL.encode(), ["one", "둘"]),
        (zstandard.compress(b"packed"), ["packed"]),
    ]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert texts("-", scratch=tmp_path / "scratch") == expected


def test_identity_changes_with_the_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one")
    request = Request(name="mine", source=str(path))
    before = open_source(request).identity
    assert open_source(request).identity == before
    write(path, "other")
    assert open_source(request).identity != before


# -- encodings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp949", "euc-kr", "utf-16", "utf-8-sig"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", KOREAN, encoding)
    assert "".join(texts(path, encoding="cp949")) == KOREAN


def test_a_wrong_encoding_names_the_right_flag(tmp_path: Path) -> None:
    path = write(tmp_path / "옛 글.txt", KOREAN, "cp949")
    with pytest.raises(DataError, match=r"옛 글\.txt is not UTF-8") as caught:
        read(path)
    assert "--encoding cp949" in caught.value.next_step
    with pytest.raises(DataError, match="not in the encoding utf-8"):
        read(path, encoding="utf-8")
    with pytest.raises(UsageError, match="no encoding 'hangul'"):
        read(path, encoding="hangul")


def test_old_and_new_files_side_by_side(tmp_path: Path) -> None:
    write(tmp_path / "new.txt", KOREAN)
    write(tmp_path / "old.txt", KOREAN, "cp949")
    with pytest.raises(DataError, match=r"old\.txt is not UTF-8"):
        read(tmp_path)
    assert texts(tmp_path, encoding="cp949") == [KOREAN, KOREAN]


def test_a_few_stray_bytes_do_not_stop_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(KOREAN.encode() * 10 + "등대".encode("cp949") + b"\nend")
    assert "".join(texts(path)).count("\ufffd") >= 2


# -- what is refused, each in one sentence --------------------------------------------------------


def noise() -> bytes:
    return bytes((i * 7919 + i // 251 * 31) % 256 for i in range(5000))


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda p: p / "missing.txt", DataError, "no file or folder"),
        (lambda p: write(p / "a.txt", ""), DataError, "is empty"),
        (lambda p: write(p / "a.txt", "text\0with\0nuls"), DataError, "is a binary file"),
        (lambda p: p / "*.txt", DataError, "No file matches"),
        (lambda p: write(p / "x" / "a.png", "x").parent, DataError, "no text files"),
        (lambda p: write(p / "a.parquet", "x"), DataError, "not a readable parquet"),
    ],
)
def test_bad_sources(make: object, kind: type[HoloError], says: str, tmp_path: Path) -> None:
    source = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(kind, match=says) as caught:
        read(source)
    assert "\n" not in str(caught.value)


def test_random_bytes_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(noise().replace(b"\0", b"\x81"))
    with pytest.raises(DataError, match=r"is not text, or its encoding|not UTF-8"):
        read(path)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "stories.txt", "x")
    with pytest.raises(DataError, match=r"Did you mean 'stories\.txt'"):
        read(tmp_path / "storie.txt")


def test_binary_files_in_a_folder_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "text")
    write(tmp_path / "b.txt", "\0\0")
    documents, counts = read(tmp_path)
    assert [d.text for d in documents] == ["text"]
    assert counts == {"files that are not text": 1}
    write(tmp_path / "a.txt", "\0")
    with pytest.raises(DataError, match="None of the 2 files"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", [".txt.gz", ".txt.zst", ".jsonl.gz", ".csv.zst"])
def test_a_damaged_archive(suffix: str, tmp_path: Path) -> None:
    data = json.dumps({"text": "x" * 1000}).encode() + bytes(range(32, 127)) * 3000
    packed = gzip.compress(data) if suffix.endswith("gz") else zstandard.compress(data)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(packed[: len(packed) // 2])
    if suffix.endswith("gz"):
        with pytest.raises(DataError, match="damaged or truncated"):
            read(path)


# -- names ----------------------------------------------------------------------------------------


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="Did you mean 'shakespeare'"):
        open_source(Request(name="shakespear"))
    with pytest.raises(UsageError, match="does not support --source"):
        open_source(Request(name="stories", source="x.txt"))
    with pytest.raises(UsageError, match="Did you mean 'stories'"):
        datasets_table("storys")


def test_the_table_is_complete() -> None:
    rows = datasets_table()
    assert {"stories", "shakespeare"} <= {row["name"] for row in rows}
    for row in rows:
        assert all(row[key] for key in ("description", "size", "licence", "languages", "example"))
        assert row["prepare"].startswith(f"holo prepare {row['name']}")
        assert row["row"], "an example row"
    assert datasets_table("stories") == [row for row in rows if row["name"] == "stories"]
