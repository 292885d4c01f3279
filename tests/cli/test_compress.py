"""`holo compress` and `holo decompress`: files in, files out, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.checkpoints import make_checkpoint
from tests.cli.conftest import Holo

TEXT = "abc 가나다 fed\n" * 4


@pytest.fixture
def text(tmp_path: Path) -> Path:
    make_checkpoint(tmp_path / "checkpoints" / "small_best.safetensors")
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode())
    return path


def test_a_file_comes_back_and_the_others_are_named(holo: Holo, text: Path) -> None:
    ran = holo("compress", "a.txt", "-c", "small", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    packed = text.with_name("a.txt.holoz")
    assert found["path"] == "a.txt.holoz"
    assert found["compressed_bytes"] == packed.stat().st_size
    assert found["bits_per_byte"] == pytest.approx(8 * packed.stat().st_size / len(TEXT.encode()))
    assert set(found["others"]) == {"gzip", "xz", "zstd"}
    text.unlink()
    assert holo("decompress", "a.txt.holoz").code == 0  # the file names its run
    assert text.read_bytes() == TEXT.encode()


def test_the_table_has_the_model_beside_the_others(holo: Holo, text: Path) -> None:
    ran = holo("compress", "a.txt", "--out", "b.holoz", "--context", "8")
    assert ran.code == 0, ran.err
    for name in ("small", "gzip -9", "xz -9e", "zstd -19"):
        assert name in ran.out
    assert "holo decompress b.holoz --out a.txt.restored" in ran.err


def test_nothing_is_replaced_without_force(holo: Holo, text: Path) -> None:
    packed = text.with_name("a.txt.holoz")
    packed.write_text("mine", encoding="utf-8")
    ran = holo("compress", "a.txt")
    assert ran.code == 2
    assert "exists already" in ran.err
    assert packed.read_text(encoding="utf-8") == "mine"
    assert holo("compress", "a.txt", "--force").code == 0
    assert holo("decompress", "a.txt.holoz").code == 2  # a.txt exists
    assert holo("decompress", "a.txt.holoz", "--force", "--chunk", "0").code == 0


def test_what_cannot_be_done_is_one_sentence(holo: Holo, text: Path) -> None:
    for arguments, code, message in (
        (("compress", "none.txt"), 1, "There is no file 'none.txt'"),
        (("compress", "a.txt", "--chunk-size", "0"), 2, "--chunk-size must be from 1"),
        (("decompress", "a.txt"), 2, "does not end in .holoz"),
        (("decompress", "a.txt", "--out", "b.txt"), 1, "was not made by"),
    ):
        ran = holo(*arguments)
        assert ran.code == code, ran.err
        assert message in ran.err
    text.write_bytes("결코".encode())
    ran = holo("compress", "a.txt")
    assert ran.code == 1
    assert "cannot encode: '결' '코'" in ran.err
    assert not text.with_name("a.txt.holoz").exists()


def test_a_run_that_is_not_here_and_damage_are_named(holo: Holo, text: Path) -> None:
    assert holo("compress", "a.txt").code == 0
    packed = text.with_name("a.txt.holoz")
    content = packed.read_bytes()
    packed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    ran = holo("decompress", "a.txt.holoz", "--out", "b.txt")
    assert ran.code == 1
    assert "a.txt.holoz is damaged: chunk 0 does not match its checksum." in ran.err
    assert not text.with_name("b.txt").exists()
    packed.write_bytes(content)
    (text.parent / "checkpoints" / "small_best.safetensors").unlink()
    ran = holo("decompress", "a.txt.holoz", "--out", "b.txt")
    assert ran.code == 1
    assert "was compressed with run 'small', which is not in this folder" in ran.err


def test_a_missing_package_is_named(
    holo: Holo, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    ran = holo("compress", "a.txt")
    assert ran.code == 2
    assert "holo-cli[compress]" in ran.err
