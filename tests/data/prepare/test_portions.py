"""Shards merged are the set of one process, to the byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holo_cli.data.prepare import build, pipeline
from holo_cli.data.prepare.portions import Portion, units
from holo_cli.data.prepare.prepare import merge, prepare
from holo_cli.data.sources.base import Source, Stream
from holo_cli.errors import DataError, UsageError
from tests.data.cleaning.test_screen import documents
from tests.data.prepare.test_killed import facts
from tests.data.prepared import content, corpus


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """Two folders of rows and texts in two languages, with duplicates across files, bad lines, and
    a text that is cut into pieces."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for seed in (1, 2):
            rows = [{"text": one.text} for one in documents(seed, 40)]
            rows += [{"text": f"밤마다 등대지기는 등불을 {n}번 켰다. " * 9} for n in range(20)]
            rows += [
                {"text": f"{folder}{seed} The keeper lit the lamp {n}. " * 9} for n in range(9)
            ]
            lines = [json.dumps(row) for row in rows]
            lines[7:7] = ['{"text": "\\ud800 alone"}', "{bad", '{"text": "\\u0000"}', lines[3]]
            (tmp_path / folder / f"{seed}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "a" / "one.txt").write_text("A sentence of one long text. " * 900, encoding="utf-8")
    (tmp_path / "b" / "binary.txt").write_bytes(bytes(range(256)) * 40)
    return [str(tmp_path / "a"), str(tmp_path / "b")]


CASES: dict[str, dict[str, Any]] = {
    "filtered": {"filter": "default"},
    "mixed, with a limit": {"filter": "default", "mix": "a=0.3,b=0.7", "max_bytes": 30_000},
    "by language": {"lang": ["ko", "en"], "mix": "ko=0.5,en=0.5", "filter": "near=0.8,rules=off"},
    "one language": {"lang": ["ko"], "tokenizer": "char"},
    "proportional": {"mix": "proportional", "max_docs": 70},
}


@pytest.mark.parametrize("case", CASES)
def test_the_set_is_that_of_one_process(
    case: str, places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", 40)
    settings = {"tokenizer": "bpe", "vocab_size": 400, "source": places, **CASES[case]}
    prepare(["mine"], out=tmp_path / "whole", **settings)
    for number in (3, 1, 2):  # in any order
        made = prepare(["mine"], out=tmp_path / "set", shard=f"{number}/3", **settings)
        assert made.shard is not None
    merge(out=tmp_path / "set")
    assert content(tmp_path / "set") == content(tmp_path / "whole")
    assert facts(tmp_path / "set") == facts(tmp_path / "whole")
    assert not (tmp_path / "set" / ".shards").exists()
    assert prepare(["mine"], out=tmp_path / "set", **settings).already


def test_a_merge_does_not_read_or_judge_again(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"tokenizer": "char", "source": places, "filter": "default"}
    for number in (1, 2):
        prepare(["mine"], out=tmp_path / "set", shard=f"{number}/2", **settings)
    for name in ("a", "b"):  # the machine that merges need not have the texts
        (tmp_path / name).rename(tmp_path / f"moved {name}")

    def fails(*_: object) -> None:
        raise AssertionError("judged again")

    monkeypatch.setattr("holo_cli.data.cleaning.judging.Judge.judge", fails)
    assert merge(out=tmp_path / "set").dropped["exact duplicates"] > 0


def test_interrupted_shards_and_merges_resume(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", 15)
    settings = {"tokenizer": "char", "source": places, "filter": "default"}
    prepare(["mine"], out=tmp_path / "whole", **settings)

    def dies_at(module: object, name: str, call: int) -> None:
        whole: Callable[..., Any] = getattr(module, name)
        calls = 0

        def dies(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise KeyboardInterrupt
            return whole(*arguments, **options)

        monkeypatch.setattr(module, name, dies)

    from holo_cli.data.prepare import portion_files

    dies_at(portion_files, "_columns", 3)
    with pytest.raises(KeyboardInterrupt):
        prepare(["mine"], out=tmp_path / "s", shard="1/2", **settings)
    kept = sorted((tmp_path / "s" / ".shards" / "1-of-2").glob("*.arrow"))
    assert kept
    times = [path.stat().st_mtime_ns for path in kept]
    for number in (1, 2):
        prepare(["mine"], out=tmp_path / "s", shard=f"{number}/2", **settings)
    assert [path.stat().st_mtime_ns for path in kept] == times
    dies_at(build, "_write", 7)
    with pytest.raises(KeyboardInterrupt):
        merge(out=tmp_path / "s")
    assert merge(out=tmp_path / "s").resumed
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    assert facts(tmp_path / "s") == facts(tmp_path / "whole")


def test_what_does_not_fit_together(places: list[str], tmp_path: Path) -> None:
    out = tmp_path / "set"
    settings: dict[str, Any] = {"source": places, "tokenizer": "char", "out": out}
    with pytest.raises(DataError, match="no shards to merge"):
        merge(out=out)
    prepare(["mine"], shard="1/3", **settings)
    with pytest.raises(DataError, match=r"not all of its 3 shards: .*: 2, 3\.") as caught:
        merge(out=out)
    assert "--shard 2/3" in str(caught.value.next_step)
    prepare(["mine"], shard="2/3", **settings)
    prepare(["mine"], shard="3/3", **settings, seed=5)
    with pytest.raises(DataError, match=r"Shard 3/3 .* other settings .*: seed is 5, and 0"):
        merge(out=out)
    with pytest.raises(DataError, match="other settings: seed was 5"):
        prepare(["mine"], shard="3/3", **settings)
    prepare(["mine"], shard="1/2", **settings)
    with pytest.raises(DataError, match="shards of 2 and shards of 3"):
        merge(out=out)
    Path(places[0], "one.txt").write_text(corpus(), encoding="utf-8")
    prepare(["mine"], shard="3/3", **settings, force=True)
    for folder in out.glob(".shards/*-of-2/*"):
        folder.unlink()
    (out / ".shards" / "1-of-2").rmdir()
    with pytest.raises(DataError, match=r"source of shard 3/3 .* had changed"):
        merge(out=out)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_numbers_that_are_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match=f"--shard {text} is not a shard"):
        prepare(["stories"], shard=text)


def test_what_cannot_be_divided() -> None:
    with pytest.raises(UsageError, match="Standard input"):
        prepare(["mine"], source="-", shard="1/2")
    with pytest.raises(UsageError, match="exclude each other"):
        prepare(["stories"], shard="1/2", tokenizer_only=True)
    with pytest.raises(UsageError, match="needs the name"):
        merge()


def test_files_are_spread_by_size() -> None:
    def stream(name: str) -> Stream:
        return Stream(lambda position: iter(()), name, part_bytes=(50, 10, 30, 20))

    source = Source("a", (stream("ko"), stream("en")), {})
    first, second = units([source], 2)
    # 50 | 30 + 20, then 10; both streams of a file stay together
    assert first == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    assert second == [(0, 0, 2), (0, 0, 3), (0, 1, 2), (0, 1, 3)]
    assert units([source], 9)[8] == []
    assert str(Portion.parse("8/9")) == "8/9"
