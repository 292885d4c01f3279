"""The one parser: what it refuses, and that nothing in the project goes round it."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import holo_cli
from holo_cli.parsing import (
    MAX_DEPTH,
    ParseError,
    parse_json,
    parse_object,
    parse_toml,
    read_bytes,
    read_json,
    read_toml,
)

ROOT = Path(holo_cli.__file__).parents[1]


def test_what_is_written_is_read() -> None:
    value = {"a": [1, -2.5, None, True, "한글 😀"], "b": {"c": 2**64 - 1, "d": -(2**63)}}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert parse_json(text) == parse_json(text.encode()) == value
    assert parse_json(b"\xef\xbb\xbf[1]") == [1]  # a byte order mark of an editor


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON at line 1, column 1"),
        ('{"a": 1,\n "b" 2}', "not JSON at line 2, column 6"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        ("[" * 65 + "]" * 65, "nested more than 64"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested more than 64"),
        ("[" * 200_000, "nested more than 64"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' is given twice"),
        ("[NaN]", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("1e999", "too large"),
        (str(2**64), "more than 64 bits"),
        (str(-(2**63) - 1), "more than 64 bits"),
        ("1" * 21, "21 digits"),
        ("1" * 100_000, "100,000 digits"),
        (r'{"a": ["\ud800"]}', "half of a surrogate pair"),
        (r'{"\udfff": 1}', "half of a surrogate pair"),
        ('["\ud800"]', "half of a surrogate pair"),
    ],
)
def test_what_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ParseError, match=reason) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 120
    assert str(caught.value).isascii()


def test_depth_is_exact() -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(deepest)
    assert parse_json('["[[[["' + ',"[[[["' * 50 + "]")  # brackets in texts are no levels


def test_a_pair_of_surrogates_is_one_letter() -> None:
    assert parse_json(r'["\ud83d\ude00", "\ud55c"]') == ["😀", "한"]


def test_options() -> None:
    assert parse_json("[1e999, -Infinity]", nan=True) == [float("inf"), float("-inf")]
    assert parse_json("1" * 30, any_integer=True) == int("1" * 30)
    row = r'{"text": "\ud800", "x": NaN, "x": ' + "1" * 30 + "}"
    assert parse_json(row, lenient=True)["text"] == "\ud800"
    for lenient in (True, False):
        with pytest.raises(ParseError, match="nested"):
            parse_json("[" * 5_000, lenient=lenient)
        with pytest.raises(ParseError, match="larger than 10 bytes"):
            parse_json("[" + " " * 10 + "]", limit=10, lenient=lenient)
    with pytest.raises(ParseError, match="not a JSON object"):
        parse_object("[]")


def test_of_a_file_no_more_than_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1, 2, 3]", encoding="utf-8")
    assert read_json(path, limit=9) == [1, 2, 3]
    with pytest.raises(ParseError, match="larger than 8 bytes"):
        read_json(path, limit=8)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")
    endless = Path("/dev/zero")
    if endless.exists():
        with pytest.raises(ParseError, match="larger than"):
            read_bytes(endless, 1000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = ", "Invalid value"),
        ("a = " + "[" * 5_000, "nested more than 64"),
        (".".join("a" * 100) + " = 1", "nested more than 64"),
        ("a = " + "9" * 5_000, "a number or a date that cannot be"),
        ("# " + "a" * 1_000_000, "larger than"),
    ],
)
def test_toml(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ParseError, match=reason):
        parse_toml(text)
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert read_toml(path) == {"a": 1}
    path.write_bytes(b"a = '\xff'\n")
    with pytest.raises(ParseError, match="not UTF-8 at byte 5"):
        read_toml(path)


PARSERS = {
    ("json", "load"), ("json", "loads"), ("json", "JSONDecoder"), ("tomllib", "load"),
    ("tomllib", "loads"), ("ast", "literal_eval"),
}  # fmt: skip
METHODS = {"model_validate_json", "parse_raw", "raw_decode", "read_json_auto"}


def parsers_used(path: Path) -> list[str]:
    """Places where a file parses JSON or TOML by itself, as "line: name"."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            name = node.value.id if isinstance(node.value, ast.Name) else ""
            if (name, node.attr) in PARSERS or node.attr in METHODS:
                found.append(f"{node.lineno}: {name}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module in ("json", "tomllib"):
            found.append(f"{node.lineno}: from {node.module}")
    return found


def test_nothing_goes_round_the_parser(tmp_path: Path) -> None:
    example = tmp_path / "a.py"
    example.write_text("import json\nfrom tomllib import loads\njson.loads('1')\n")
    assert parsers_used(example) == ["2: from tomllib", "3: json.loads"]
    files = [p for folder in ("holo_cli", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    wrong = [
        f"{path.relative_to(ROOT)}:{place}"
        for path in files
        if path.relative_to(ROOT).as_posix() != "holo_cli/parsing.py"
        for place in parsers_used(path)
    ]
    assert len(files) > 100
    assert not wrong
