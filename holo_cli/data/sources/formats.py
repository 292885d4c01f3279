"""Files that hold a text in a form that holo does not read: recognised, and told what to do.

Recognised by their first bytes, which no text has; HTML and XML, which are texts, also by their
names.
"""

from __future__ import annotations

import re
from pathlib import PurePath

from holo_cli.errors import DataError

_ARROW = (b"ARROW1", b"\xff\xff\xff\xff")  # as a file, and as a stream
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")
_HTML = re.compile(rb"<!doctype html\b|<html\b[^>]*>.*<(head|body)\b", re.IGNORECASE | re.DOTALL)
_OLE = b"\xd0\xcf\x11\xe0"


class NotText(DataError):
    """A binary file, or one in an unknown encoding."""


def refuse_other_formats(head: bytes, name: str) -> None:
    """Raise NotText for a file that begins with `head` and holds no plain text."""
    _refuse_markup(head, name)
    _refuse_archives(head, name)
    if head.startswith(b"%PDF-"):
        raise NotText(
            f"{name} is a PDF file, not text.",
            next_step="Save its text first, for example with: pdftotext FILE.pdf FILE.txt",
        )
    if head.startswith(b"{\\rtf"):
        raise NotText(
            f"{name} is an RTF document, not text.",
            next_step="Save its text first, for example with: pandoc FILE.rtf -t plain -o FILE.txt",
        )
    if head.startswith((_OLE, b"HWP Document File")):
        raise NotText(
            f"{name} is a document of an office program (hwp, doc, xls), not text.",
            next_step="Save it as a .txt file in that program first.",
        )
    if head.startswith(b"SQLite format 3"):
        raise NotText(
            f"{name} is an SQLite database, not text.", next_step="Export a table as csv first."
        )
    if head.startswith(b"PAR1"):
        raise NotText(
            f"{name} is a parquet file by its content.",
            next_step="Rename it so that it ends in .parquet.",
        )
    if head.startswith(_ARROW):
        raise NotText(
            f"{name} is an Arrow file, as the datasets library stores them, not text.",
            next_step="Save it as parquet first, for example with: "
            "Dataset.from_file('FILE.arrow').to_parquet('FILE.parquet')",
        )
    if head.startswith(_PICTURES):
        raise NotText(f"{name} is a picture, not text.", next_step="Use a file of text.")


def _refuse_markup(head: bytes, name: str) -> None:
    suffix = PurePath(name).suffix.lower()
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:4096]
    if suffix in (".html", ".htm", ".xhtml") or _HTML.match(start):
        raise NotText(
            f"{name} is HTML, whose tags are not text to learn from.",
            next_step="Save its text first, for example with: "
            "pandoc FILE.html -t plain -o FILE.txt",
        )
    if suffix == ".xml" or start.startswith(b"<?xml "):
        raise NotText(
            f"{name} is XML, whose tags are not text to learn from.",
            next_step="Extract its text to a .txt or .jsonl file first.",
        )


def _refuse_archives(head: bytes, name: str) -> None:
    if head.startswith(b"PK\x03\x04"):
        _refuse_zip(head, name)
    if head[257:262] == b"ustar":
        raise NotText(
            f"{name} is a tar archive, not text.", next_step="Unpack it first: tar -xf FILE"
        )
    if head.startswith(b"BZh"):
        raise NotText(f"{name} is packed with bzip2.", next_step="Unpack it first: bzip2 -d FILE")
    if head.startswith(b"\xfd7zXZ"):
        raise NotText(f"{name} is packed with xz.", next_step="Unpack it first: xz -d FILE")
    if head.startswith((b"7z\xbc\xaf", b"Rar!")):
        raise NotText(f"{name} is an archive (7z or rar), not text.", next_step="Unpack it first.")


def _refuse_zip(head: bytes, name: str) -> None:
    """By names of files within the archive, and the type that it may begin with."""
    if b"word/" in head:
        raise NotText(
            f"{name} is a Word document, not text.",
            next_step="Save its text first, for example with: "
            "pandoc FILE.docx -t plain -o FILE.txt",
        )
    if b"ppt/" in head:
        raise NotText(
            f"{name} is a PowerPoint presentation, not text.",
            next_step="Save its outline as a .txt file first.",
        )
    if b"xl/" in head:
        raise NotText(
            f"{name} is an Excel workbook, not text.", next_step="Save its sheet as csv first."
        )
    if b"application/epub" in head:
        raise NotText(
            f"{name} is an e-book (epub), not text.",
            next_step="Save its text first, for example with: "
            "pandoc FILE.epub -t plain -o FILE.txt",
        )
    if b"application/hwp" in head:
        raise NotText(
            f"{name} is a Hangul document (hwpx), not text.",
            next_step="Save it as a .txt file in Hangul first.",
        )
    if b"opendocument" in head:
        raise NotText(
            f"{name} is an OpenDocument file, not text.",
            next_step="Save its text first, for example with: pandoc FILE.odt -t plain -o FILE.txt",
        )
    raise NotText(f"{name} is a zip archive, not text.", next_step="Unpack it first.")
