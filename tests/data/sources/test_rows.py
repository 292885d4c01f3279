"""Files of rows: csv with quotes left open, JSON arrays, parquet types, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from holo_cli.data.sources import table_rows
from holo_cli.data.sources.json_rows import read_json_rows
from holo_cli.data.sources.parquet_rows import read_parquet
from holo_cli.data.sources.rows import TextRow, field_names, field_of, lines_of
from holo_cli.data.sources.table_rows import UNCLOSED, read_table
from holo_cli.errors import DataError, UsageError

Reader = Callable[[Path, str, str, "Counter[str]"], Iterator[TextRow]]
TALES = [f"Tale {i} of the mill." for i in range(50)]


def read(
    reader: Reader, path: Path, content: str | bytes, field: str = "text"
) -> tuple[list[str], Counter[str]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    counts: Counter[str] = Counter()
    return [text for text, _ in reader(path, "utf-8", field, counts)], counts


def parquet(path: Path, field: str = "text") -> tuple[list[str], Counter[str]]:
    counts: Counter[str] = Counter()
    return [text for text, _ in read_parquet(path, field, counts)], counts


def write_column(path: Path, column: pa.Array, name: str = "text") -> Path:
    pyarrow.parquet.write_table(pa.table({name: column}), path)
    return path


# -- tables ---------------------------------------------------------------------------------------


def test_a_quote_left_open_costs_its_own_row_alone(tmp_path: Path) -> None:
    lines = [f"{i},{tale}" for i, tale in enumerate(TALES)]
    lines[3] = '3,"A quote that nobody closed.'
    found, counts = read(read_table, tmp_path / "a.csv", "id,text\n" + "\n".join(lines) + "\n")
    assert found == [*TALES[:3], *TALES[4:]]
    assert counts == {UNCLOSED: 1}


def test_two_quotes_left_open_do_not_close_each_other(tmp_path: Path) -> None:
    lines = [f"{i},{tale}" for i, tale in enumerate(TALES)]
    lines[3], lines[30] = '3,"first', '30,"second'
    found, counts = read(read_table, tmp_path / "a.csv", "id,text\n" + "\n".join(lines))
    assert found == [*TALES[:3], *TALES[4:30], *TALES[31:]]
    assert counts == {UNCLOSED: 2}


def test_fields_of_several_lines_are_kept(tmp_path: Path) -> None:
    text = 'id,text\n1,"one\ntwo ""quoted""\n\nthree"\n2,plain\n3, "spaced\nout"\n'
    found, counts = read(read_table, tmp_path / "a.csv", text)
    assert found == ['one\ntwo "quoted"\n\nthree', "plain", "spaced\nout"]
    assert not counts


def test_a_row_without_an_end_is_refused_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_rows, "MAX_ROW", 1000)
    text = 'id,text\n1,fine\n2,"open\n' + "3,x\n" * 1000
    with pytest.raises(DataError, match="that begins in line 3 does not end: its quote"):
        read(read_table, tmp_path / "a.csv", text)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_lines_end_as_in_texts(end: str, tmp_path: Path) -> None:
    table = end.join(["id,text", *(f"{i},{tale}" for i, tale in enumerate(TALES))])
    assert read(read_table, tmp_path / "a.csv", table) == (TALES, Counter())
    assert read(read_table, tmp_path / "a.tsv", table.replace(",", "\t"))[0] == TALES
    lines = end.join(json.dumps({"text": tale}) for tale in TALES)
    assert read(read_json_rows, tmp_path / "a.jsonl", lines) == (TALES, Counter())


def test_a_carriage_return_within_a_row_ends_it(tmp_path: Path) -> None:
    found, counts = read(read_table, tmp_path / "a.csv", "id,text\n1,first\rsecond\n2,third\n")
    assert found == ["first", "third"]
    assert counts == {"bad lines": 1}


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", ",")])
def test_other_separators_are_named(name: str, mark: str, tmp_path: Path) -> None:
    says = "are not separated by" if mark in ";\t" else "no text column 'text'"
    with pytest.raises(UsageError, match=says):
        read(read_table, tmp_path / name, f"id{mark}text\n1{mark}a\n")


# -- JSON -----------------------------------------------------------------------------------------

ROWS = [{"id": i, "text": tale, "meta": {"deep": {"text": f"{i}"}}} for i, tale in enumerate(TALES)]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\n  \n" + json.dumps(ROWS, indent="\t") + "\n\n",
        "\n".join(map(json.dumps, ROWS)),
        ",\n".join(map(json.dumps, ROWS)),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
    ],
    ids=["array", "pretty", "spaced", "lines", "trailing commas", "objects over several lines"],
)
@pytest.mark.parametrize("block", [7, 1 << 20])
def test_lines_and_arrays(
    content: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holo_cli.data.sources.decoding.BLOCK", block)
    path = tmp_path / "a.json"
    assert read(read_json_rows, path, content) == (TALES, Counter())
    assert read(read_json_rows, path, content, "meta.deep.text")[0] == [str(i) for i in range(50)]


def test_bad_elements_of_an_array_are_counted(tmp_path: Path) -> None:
    content = '[{"text": "good"}, 3, null, [1], {"text": 5}, {"text": "\\ud83d half"}, 12345]'
    found, counts = read(read_json_rows, tmp_path / "a.json", content)
    assert found == ["good", "\ud83d half"]
    assert counts == {"bad lines": 5}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[{"text": "a"}, {"text": ', "is neither valid JSON nor JSON lines"),
        ('[{"text": "a"}, {text: 1}]', "is neither valid JSON nor JSON lines"),
        (
            '[{"text": "a"}]\n[{"text": "b"}]',
            "is neither valid JSON nor JSON lines: something follows its end",
        ),
        ("[" * 100_000, "nor JSON lines: nested more than 64 levels"),
        ('{\n  "text": "a"\n}\n{"te', "is neither valid JSON nor JSON lines"),
        ('{"data": [{"text": "a"}]}', "is one JSON object; its rows are in the field 'data'"),
        ('{\n"data": [{"text": "a"}]}', "is one JSON object; its rows are in the field 'data'"),
        ('"a"\n"b"\n', "has no rows"),
    ],
)
def test_what_is_no_file_of_rows(content: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read(read_json_rows, tmp_path / "a.json", content)
    assert "\n" not in str(caught.value)


def test_an_endless_element_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holo_cli.parsing.MAX_ELEMENT", 1000)
    monkeypatch.setattr("holo_cli.data.sources.decoding.BLOCK", 100)
    with pytest.raises(DataError, match="is neither valid JSON nor JSON lines"):
        read(read_json_rows, tmp_path / "a.json", '[{"text": "' + "x" * 5000 + '"}]')


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "user"}]}, "no text column 'text'; it has: messages"),
        ({"meta": {"text": "x"}, "id": 1}, r"no text column 'text'; it has: meta\.text, id"),
        ({"text": ["a"]}, "field 'text' of .* holds lists, not text"),
        ({"text": 4}, "field 'text' of .* holds numbers, not text"),
        ({"text": None}, "no text column 'text'; it has: text"),
    ],
)
def test_a_field_without_text_is_named(row: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        read(read_json_rows, tmp_path / "a.jsonl", "\n".join([json.dumps(row)] * 3))


def test_a_dotted_name_may_be_a_name_itself() -> None:
    assert field_of({"a.b": "flat", "a": {"b": "deep"}}, "a.b") == "flat"
    assert field_of({"a": {"b": "deep"}}, "a.b") == "deep"
    assert field_of({"a": "x"}, "a.b") is None
    assert field_names({"a": {"b": {"c": {"d": 1}}}, "e": {}}) == ["a.b.c", "e"]


def test_a_number_of_many_digits_costs_no_row(tmp_path: Path) -> None:
    row = '{"text": "good", "n": ' + "9" * 6000 + "}"
    assert read(read_json_rows, tmp_path / "a.jsonl", row) == (["good"], Counter())
    assert read(read_json_rows, tmp_path / "a.json", f"[{row}]") == (["good"], Counter())


@pytest.mark.parametrize("block", [5, 1 << 20])
def test_lines_are_bounded_and_complete(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holo_cli.data.sources.decoding.BLOCK", block)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\r\ntwo\rthree\n\nfour")
    assert [*lines_of(path, "utf-8")] == ["one\n", "two\n", "three\n", "\n", "four"]
    path.write_bytes(b"short\n" + b"x" * 5000)
    with pytest.raises(DataError, match=r"Line 2 of .* has more than 1,000 characters"):
        [*lines_of(path, "utf-8", 1000)]


def test_a_line_of_very_many_values_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holo_cli.parsing.MAX_PARTS", 1000)
    content = '{"text": "good"}\n{"text": "bad", "n": [' + "[]," * 1000 + "[]]}"
    assert read(read_json_rows, tmp_path / "a.jsonl", content) == (["good"], {"bad lines": 1})


# -- parquet --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TALES),
        pa.array(TALES, pa.large_string()),
        pa.array(TALES).dictionary_encode(),
        pa.array(TALES, pa.string_view()),
    ],
    ids=lambda column: str(column.type),
)
def test_every_type_of_text(column: pa.Array, tmp_path: Path) -> None:
    assert parquet(write_column(tmp_path / "a.parquet", column)) == (TALES, Counter())


def test_bytes_that_are_no_utf8_are_replaced(tmp_path: Path) -> None:
    raw = [b"good", b"R\xc9UNION"]
    column = pa.array(raw, pa.binary()).view(pa.string())
    found, _ = parquet(write_column(tmp_path / "a.parquet", column))
    assert found == ["good", "R\ufffdUNION"]


def test_fields_of_structs(tmp_path: Path) -> None:
    path = write_column(tmp_path / "a.parquet", pa.array([{"text": t} for t in TALES]), "meta")
    assert parquet(path, "meta.text")[0] == TALES
    with pytest.raises(UsageError, match=r"no text column 'text'; it has: meta\.text"):
        parquet(path)
    path = write_column(tmp_path / "b.parquet", pa.array(TALES), "meta.text")
    assert parquet(path, "meta.text")[0] == TALES


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([["a"]] * 3), "is of type list<.*>, not text"),
        (pa.array([b"a"] * 3, pa.binary()), "is of type binary, not text"),
        (pa.array([1, 2]), "is of type int64, not text"),
        (pa.array([None] * 3), "is of type null, not text"),
        (pa.array([{"a": 1}]), "is of type struct<a: int64>, not text"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_columns_that_hold_no_text_are_named_with_their_type(
    column: pa.Array, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"The column 'text' of .* {says}"):
        parquet(write_column(tmp_path / "a.parquet", column))


def test_a_column_without_any_text_is_named(tmp_path: Path) -> None:
    path = write_column(tmp_path / "a.parquet", pa.array([None] * 3, pa.string()))
    with pytest.raises(DataError, match=r"The column 'text' of .* is empty in every row"):
        parquet(path)


def test_columns_of_the_same_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="has 2 columns with the name 'text'"):
        parquet(tmp_path / "a.parquet")


def test_a_parquet_file_by_its_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"%PDF-1.7 ...")
    with pytest.raises(DataError, match="is a PDF file"):
        parquet(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is not a readable parquet file"):
        parquet(path)


# -- archives -------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [27, 31])
def test_zstd_with_a_large_window(log: int, tmp_path: Path) -> None:
    """Large dumps are packed with --long=31, which a reader has to allow."""
    settings = zstandard.ZstdCompressionParameters.from_level(
        1, window_log=log, enable_ldm=True, hash_log=12, chain_log=12, ldm_hash_log=12
    )
    packer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    lines = "".join(json.dumps({"text": tale}) + "\n" for tale in TALES).encode()
    found, _ = read(
        read_json_rows, tmp_path / "a.jsonl.zst", packer.compress(lines) + packer.flush()
    )
    assert found == TALES
