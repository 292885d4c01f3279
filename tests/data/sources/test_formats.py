"""Files that are no plain text are told what they are, by their content, and what to do."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from holo_cli.data.sources.decoding import check_encoding, encoding_of
from holo_cli.data.sources.formats import NotText
from holo_cli.errors import UsageError


def zipped(name: str, content: str = "x") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says", "do"),
    [
        ("a.pdf", b"%PDF-1.7\n...", "is a PDF file", "pdftotext"),
        ("a.txt", b"%PDF-1.7\n...", "is a PDF file", "pdftotext"),
        ("a.bz2", b"BZh91AY", "packed with bzip2", "bzip2 -d"),
        ("a.7z", b"7z\xbc\xaf\x27", "archive", "Unpack it"),
        ("a.png", b"\x89PNG\r\n", "is a picture", "file of text"),
        ("a.rtf", b"{\\rtf1\\ansi hello}", "is an RTF document", "pandoc"),
        ("a.hwp", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office program", "in that program"),
        ("a.docx", zipped("word/document.xml"), "is a Word document", "pandoc"),
        ("a.hwpx", zipped("mimetype", "application/hwp+zip"), "is a Hangul document", "in Hangul"),
        ("a.xlsx", zipped("xl/workbook.xml"), "is an Excel workbook", "as csv"),
        ("a.epub", zipped("mimetype", "application/epub+zip"), "is an e-book", "pandoc"),
        ("a.odt", zipped("mimetype", "application/vnd.oasis.opendocument.text"), "OpenDocument",
         "pandoc"),
        ("a.zip", zipped("a.txt"), "is a zip archive", "Unpack it"),
        ("a.tar", tarred(), "is a tar archive", "tar -xf"),
        ("a.html", b"<p>hello", "is HTML", "pandoc"),
        ("page", b"\n<!DOCTYPE html><html>", "is HTML", "pandoc"),
        ("a.xml", b"<?xml version='1.0'?>", "is XML", "Extract its text"),
        ("a.txt", "안녕 여러분.".encode("utf-16-le"), "UTF-16 without a byte order", "utf-16-le"),
        ("a.txt", "plain text".encode("utf-16-be"), "UTF-16 without a byte order", "utf-16-be"),
        ("a.txt", "1번째 이야기 가나.\n".encode("utf-16-le"), "UTF-16 without", "utf-16-le"),
        ("a.txt", "1번째 이야기 가나.\n".encode("utf-16-be"), "UTF-16 without", "utf-16-be"),
        ("a.txt", b"<!DOCTYPE html><html>", "is HTML", "pandoc"),
        ("data.jsonl", b"<html lang='en'><head>", "is HTML", "pandoc"),
        ("a.txt", b"<?xml version='1.0'?>", "is XML", "Extract its text"),
        ("a.hwp", b"HWP Document File V3.00", "office program", "in that program"),
        ("a.txt", b"PAR1\x15\0", "is a parquet file", ".parquet"),
        ("a.arrow", b"ARROW1\0\0", "is an Arrow file", "to_parquet"),
        ("a.pptx", zipped("ppt/presentation.xml"), "PowerPoint", "as a .txt"),
        ("a.txt", b"a\0\0\0\x01\x02\0b\xff", "is a binary file", "Use a text file"),
    ],
)  # fmt: skip
def test_other_formats(name: str, content: bytes, says: str, do: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(NotText, match=says) as caught:
        encoding_of(path, None)
    assert do in (caught.value.next_step or "")
    assert "\n" not in str(caught.value)


def test_a_text_about_tags_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("<html> is a tag.\n", encoding="utf-8")
    assert encoding_of(path, None) == "utf-8"


@pytest.mark.parametrize(
    "name",
    ["rot13", "hex", "base64", "zlib", "bz2", "idna", "punycode", "unicode_escape",
     "raw_unicode_escape", "undefined"],
)  # fmt: skip
def test_codecs_of_python_that_are_no_encodings_of_texts(name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is not an encoding of texts"):
        check_encoding(name)


@pytest.mark.parametrize("name", ["", " ", "cp_949", "a\0b", "no-such"])
def test_unknown_encodings(name: str) -> None:
    with pytest.raises(UsageError, match="There is no encoding"):
        check_encoding(name)


@pytest.mark.parametrize("name", ["utf-8", "cp949", "UHC", "ms949", "euc_kr", "johab", "utf-16-le"])
def test_encodings_of_texts(name: str) -> None:
    check_encoding(name)
