"""Preparing sets: what comes out, what is refused, and what a kill at any moment leaves."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holo_cli.data import flow, pack, workshop
from holo_cli.data.dataset import PreparedData
from holo_cli.data.files import locked
from holo_cli.data.job import Progress
from holo_cli.data.prepare import PrepareResult, prepare
from holo_cli.errors import DataError, HoloError, UsageError
from holo_cli.files import try_lock


def corpus(count: int = 120) -> str:
    english = "The keeper lit lamp number {0} and {0} boats came home. "
    korean = "등대지기가 {0}번 등불을 켜자 배 {0}척이 돌아왔다. "
    return "\n\n\n".join((english, korean)[i % 2].format(i) * 5 for i in range(count))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "나의 글.txt"
    path.write_text(corpus(), encoding="utf-8")
    return path


def content(folder: Path) -> dict[str, str]:
    """Hashes of everything but meta.json, which holds the time."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and path.name not in ("meta.json", ".lock")
    }


def texts(data: PreparedData, split: str) -> list[str]:
    found = []
    for tokens, ends in zip(data.split(split), data.document_ends(split), strict=True):
        starts = [0, *ends[:-1]]
        for start, end in zip(starts, ends, strict=True):
            ids = tokens[int(start) : int(end)].tolist()
            assert ids[-1] == data.tokenizer.end
            found.append(data.tokenizer.decode(ids))
    return found


# -- what comes out -------------------------------------------------------------------------------


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
    assert not data.has_markers
    assert not workshop.building(result.data).exists()


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


def test_languages_are_detected_where_they_are_asked_for(source: Path, tmp_path: Path) -> None:
    result = prepare(source=str(source), out=tmp_path / "set", lang=["ko", "en"], tokenizer="char")
    data = PreparedData.open(result.data)
    assert data.has_markers
    assert data.languages == {"en": 60, "ko": 60}
    shares = data.meta.languages
    assert sum(s.tokens for split in shares.values() for s in split.values()) == sum(
        result.tokens.values()
    )


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
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


def test_progress_is_told(source: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    result = prepare(source=str(source), out=tmp_path / "s", tokenizer="char", progress=told.append)
    assert told[-1].stage == "packing"
    assert told[-1].documents == sum(result.docs.values())
    assert told[-1].bytes == sum(result.bytes.values())
    assert told[-1].total_bytes is not None


def test_a_tokenizer_of_another_text(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("the keeper\n\n\nthe lamp", encoding="utf-8")
    one = prepare(source=str(other), out=tmp_path / "one", tokenizer="char")
    with pytest.raises(DataError, match=r"cannot write '.' \(U\+[0-9A-F]{4,}\)"):
        prepare(source=str(source), out=tmp_path / "two", tokenizer=str(one.data))
    assert not (tmp_path / "two").exists()


# -- again ----------------------------------------------------------------------------------------


def test_the_same_again_is_there_already(source: Path, tmp_path: Path) -> None:
    def again(**settings: Any) -> PrepareResult:
        given = {"source": str(source), "out": tmp_path / "set", "tokenizer": "char", **settings}
        return prepare(**given)

    again()
    before = content(tmp_path / "set")
    assert again().already
    with pytest.raises(DataError, match=r"val-fraction was 0\.05 and is 0.2 now"):
        again(val_fraction=0.2)
    with pytest.raises(DataError, match="tokenizer was char and is bpe now"):
        again(tokenizer="bpe")
    source.write_text(corpus(50), encoding="utf-8")
    with pytest.raises(DataError, match="the source has changed"):
        again()
    assert content(tmp_path / "set") == before
    result = again(force=True)
    assert not result.already
    assert content(tmp_path / "set") != before
    PreparedData.open(tmp_path / "set")


def test_force_removes_shards_that_are_no_more(source: Path, tmp_path: Path) -> None:
    prepare(source=str(source), out=tmp_path / "s", tokenizer="char", shard_bytes=3000)
    prepare(source=str(source), out=tmp_path / "s", tokenizer="char", force=True)
    names = {p.name for p in (tmp_path / "s").iterdir()}
    assert {n for n in names if n.endswith(".bin")} == {"train_00000.bin", "val_00000.bin"}


def test_a_failing_force_keeps_the_old_set(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    before = content(tmp_path / "s")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pack._OpenShard, "finish", full)
    with pytest.raises(DataError, match="disk is full"):
        prepare(source=str(source), out=tmp_path / "s", tokenizer="bpe", force=True)
    assert content(tmp_path / "s") == before
    PreparedData.open(tmp_path / "s")


# -- a kill at any moment -------------------------------------------------------------------------

CHILD = """
import os, sys
from pathlib import Path
from holo_cli.data import build, flow
from holo_cli.data.prepare import prepare
build.CHECKPOINT_SECONDS, flow.BATCH_DOCUMENTS = -1, 20
source, out, die_at, force = sys.argv[1:]
calls = 0
def count(function):
    def counted(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(die_at):
            os._exit(9)  # nothing is flushed, nothing is cleaned up
        return function(*args, **kwargs)
    return counted
os.fsync = count(os.fsync)
Path.replace = count(Path.replace)
Path.unlink = count(Path.unlink)
settings = {"tokenizer": "bpe", "vocab_size": 300, "shard_bytes": 6000}
prepare(source=source, out=out, force=force == "force", **settings)
print(calls)
"""


def child(source: Path, out: Path, die_at: int, force: bool = False) -> subprocess.CompletedProcess:
    arguments = [str(source), str(out), str(die_at), "force" if force else "-"]
    return subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False
    )


def finish(source: Path, out: Path) -> PrepareResult:
    return prepare(source=str(source), out=out, tokenizer="bpe", vocab_size=300, shard_bytes=6000)


def test_a_killed_preparation_goes_on_to_the_same_bytes(source: Path, tmp_path: Path) -> None:
    whole = child(source, tmp_path / "whole", 0)
    assert whole.returncode == 0, whole.stderr
    steps = int(whole.stdout)
    expected = content(tmp_path / "whole")
    resumed = 0
    for die_at in [*range(steps // 9, steps - 9, steps // 5), steps - 9, steps - 1]:
        out = tmp_path / f"killed at {die_at}"
        assert child(source, out, die_at).returncode == 9
        if not (out / "meta.json").exists():
            with pytest.raises(DataError, match=r"no meta\.json"):
                PreparedData.open(out)
        resumed += finish(source, out).resumed
        assert content(out) == expected, die_at
        PreparedData.open(out)
    assert resumed >= 4


def test_a_kill_while_replacing_never_mixes_two_sets(source: Path, tmp_path: Path) -> None:
    whole = child(source, tmp_path / "new", 0)
    steps, new = int(whole.stdout), content(tmp_path / "new")
    other = tmp_path / "other.txt"
    other.write_text(corpus(40), encoding="utf-8")
    for die_at in (steps // 2, steps - 8, steps - 2):
        out = tmp_path / f"replaced {die_at}"
        prepare(source=str(other), out=out, tokenizer="char")
        old = content(out)
        assert child(source, out, die_at, force=True).returncode == 9
        if (out / "meta.json").exists():
            PreparedData.open(out)
            assert content(out) == old
        else:
            assert finish(source, out).already
            assert content(out) == new
    assert not (out / workshop.BUILDING).exists()


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Fail as Ctrl-C does, after some documents, everything so far noted."""
    add = pack.Packer.add

    def failing(self: pack.Packer, *args: Any, **known: Any) -> None:
        if self.position == after:
            self.checkpoint()
            raise KeyboardInterrupt
        add(self, *args, **known)

    monkeypatch.setattr(pack.Packer, "add", failing)


def test_only_the_same_settings_go_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(source=str(source), out=tmp_path / "whole", tokenizer="char")
    with monkeypatch.context() as patch:
        interrupt(patch, 30)
        with pytest.raises(KeyboardInterrupt):
            prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    with pytest.raises(DataError, match="tokenizer was char and is bpe now"):
        prepare(source=str(source), out=tmp_path / "s", tokenizer="bpe")
    result = prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    assert result.resumed
    assert content(tmp_path / "s") == content(whole.data)


def test_going_on_tokenizes_only_what_is_missing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holo_cli.data.tokenizers.char import CharTokenizer

    with monkeypatch.context() as patch:
        interrupt(patch, 100)
        with pytest.raises(KeyboardInterrupt):
            prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    seen: list[str] = []
    encode = CharTokenizer._encode
    monkeypatch.setattr(
        CharTokenizer, "_encode", lambda self, text: seen.append(text) or encode(self, text)
    )
    prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    assert len(seen) == 20


def test_an_interrupted_preparation_can_be_begun_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, 30)
        with pytest.raises(KeyboardInterrupt):
            prepare(source=str(source), out=tmp_path / "s", tokenizer="char")
    assert not prepare(source=str(source), out=tmp_path / "s", force=True, vocab_size=300).resumed


# -- other faults ---------------------------------------------------------------------------------


def test_a_full_disk_is_one_sentence_and_goes_on_later(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "BATCH_DOCUMENTS", 5)
    sync, calls = pack.sync, 0

    def full(file: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    out = tmp_path / "s"
    with monkeypatch.context() as patch:
        patch.setattr(pack, "sync", full)
        with pytest.raises(DataError, match="disk is full") as caught:
            prepare(source=str(source), out=out, tokenizer="char", shard_bytes=3000)
    assert "same command" in caught.value.next_step
    assert [p.name for p in out.iterdir() if p.suffix in (".bin", ".idx", ".npy")] == []
    result = prepare(source=str(source), out=out, tokenizer="char", shard_bytes=3000)
    assert result.resumed
    whole = prepare(source=str(source), out=tmp_path / "w", tokenizer="char", shard_bytes=3000)
    assert content(out) == content(whole.data)


def test_two_preparations_of_one_folder(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    with locked(out), pytest.raises(DataError, match="Another process is preparing"):
        prepare(source=str(source), out=out, tokenizer="char")
    with (out / ".lock").open("a+b") as file:
        assert try_lock(file)
    prepare(source=str(source), out=out, tokenizer="char")


def test_a_folder_that_cannot_be_made(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="could not be written"):
        prepare(source=str(source), out=tmp_path / "file" / "set", tokenizer="char")


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ({"names": []}, UsageError, "Nothing to prepare"),
        ({"names": ["storys"]}, UsageError, "Did you mean 'stories'"),
        ({"names": ["../x"], "source": "x"}, UsageError, "cannot be the name"),
        ({"names": ["a", "b"], "source": "x"}, UsageError, "one name"),
        ({"names": ["stories"], "val_fraction": 0}, UsageError, "not between 0 and 1"),
        ({"names": ["stories"], "lang": ["korean"]}, UsageError, "not a language code"),
        ({"names": ["stories"], "lang": ["fr"]}, UsageError, "no stories in 'fr'"),
        ({"names": ["stories"], "max_docs": 0}, UsageError, "--max-docs"),
        ({"names": ["stories"], "tokenizer": "bqe"}, UsageError, "Did you mean 'bpe'"),
        ({"names": ["stories"], "workers": 0}, UsageError, "--workers"),
        ({"source": "missing.txt"}, DataError, "no file or folder"),
        ({"names": ["stories"], "vocab_size": 99, "max_docs": 9}, UsageError, "--vocab-size"),
    ],
)
def test_wrong_requests_leave_nothing_behind(
    settings: dict[str, Any],
    kind: type[HoloError],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=says) as caught:
        prepare(**settings)
    assert "\n" not in str(caught.value)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", "\n\n  \n", "There is no text in"),
        ("a.jsonl", "{\n{\n", "left out were 2 bad lines"),
        ("a.txt", "x", "too short"),
    ],
)
def test_sources_without_text(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        prepare(source=str(tmp_path / name), out=tmp_path / "set")
    assert not (tmp_path / "set").exists()
