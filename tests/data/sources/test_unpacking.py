"""Packed files: nothing of them is lost in silence, and their size does not decide the memory."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
import zstandard

from holo_cli.data import segment
from holo_cli.data.sources.base import Request
from holo_cli.data.sources.decoding import encoding_of, text_blocks
from holo_cli.data.sources.local import open_local
from holo_cli.errors import DataError

TEXT = "".join(f"Line {i * 7919 % 100_003} of a log.\n" for i in range(9000))
PACKED = zstandard.ZstdCompressor(write_checksum=True).compress(TEXT.encode())
FRAME = b"\x5a\x2a\x4d\x18" + struct.pack("<I", 4) + b"abcd"  # skippable: holds no text


def text_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return "".join(text_blocks(path, encoding_of(path, None)))


@pytest.mark.parametrize(
    "content",
    [
        PACKED,
        FRAME + PACKED,
        PACKED + FRAME,
        zstandard.ZstdCompressor().compress(TEXT[:900].encode())
        + FRAME
        + zstandard.ZstdCompressor(write_content_size=False).compress(TEXT[900:].encode()),
        gzip.compress(TEXT.encode()),
        gzip.compress(TEXT[:900].encode()) + gzip.compress(TEXT[900:].encode()),
        gzip.compress(TEXT.encode()) + b"\0" * 512,
    ],
    ids=["zstd", "skippable", "skippable end", "zstd frames", "gzip", "gzip members", "gzip zeros"],
)
def test_packed_files_are_read_to_their_end(content: bytes, tmp_path: Path) -> None:
    assert text_of(tmp_path / "a.txt.packed", content) == TEXT


@pytest.mark.parametrize("at", [-1, -4, -5, -300, -3000, 12, 6, 5])
def test_a_zstd_file_that_is_cut_short_is_refused(at: int, tmp_path: Path) -> None:
    """The library itself takes the end of the file for the end of the text."""
    with pytest.raises(DataError, match="damaged or truncated"):
        text_of(tmp_path / "a.txt.zst", PACKED[:at])


def test_every_form_of_block_is_followed(tmp_path: Path) -> None:
    blank, noise = " " * 700_000, "".join(chr(0x4E00 + i * 7919 % 20_000) for i in range(90_000))
    for level in (1, 19):
        packer = zstandard.ZstdCompressor(level=level)
        for text in (blank, noise, "x", "한" * 300_000):
            packed = packer.compress(text.encode())
            assert text_of(tmp_path / "a.txt.zst", packed) == text
            with pytest.raises(DataError, match="damaged or truncated"):
                text_of(tmp_path / "a.txt.zst", packed[:-1])


@pytest.mark.parametrize("packed", [PACKED, gzip.compress(TEXT.encode())], ids=["zstd", "gzip"])
def test_other_bytes_after_the_end_are_an_error(packed: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"damaged or truncated|other bytes after its packed text"):
        text_of(tmp_path / "a.txt.packed", packed + b"garbage")


def test_a_document_without_an_end_is_cut_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "MOST", 100_000)
    blocks = ["First.\n\n\n", *["many words " * 1000] * 20]
    found = [*segment.documents(blocks, whole=True)]
    assert "".join(found) == "First." + "many words " * 20_000
    assert max(map(len, found)) < 150_000


def test_endless_blanks_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "BLANKS", 1000)
    found = "".join(segment.documents(["Begin.", *[" " * 400] * 50, "End."], whole=True))
    assert found == "Begin." + " " * 20_000 + "End."


def test_json_under_the_name_of_a_text_is_noted(tmp_path: Path) -> None:
    path, notes = tmp_path / "a.txt", list[str]()
    for content in ('[\n {"text": "a"}]', '{"text": "a"}\n', "{a} plain text", "[1] A note."):
        path.write_text(content, encoding="utf-8")
        open_local(Request(name="a", source=str(path), notice=notes.append))
    assert len(notes) == 2
    assert "looks like JSON, and is read as plain text" in notes[0]
