"""A bad network: transient and permanent errors, truncated and altered files, no response."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holo_cli.data.prepare.prepare import prepare
from holo_cli.data.sources import open_source
from holo_cli.data.sources.base import Request
from holo_cli.data.sources.hub import errors
from holo_cli.data.sources.hub.files import DataFile
from holo_cli.data.sources.hub.rows import row_chunks
from holo_cli.errors import DataError
from tests.data.sources import hub_layouts as layouts
from tests.data.sources.hub_server import Hub

REPOSITORY = "wikimedia/wikipedia"
PATH = "20231101.ko/train-00000-of-00001.parquet"


@pytest.fixture
def folder(hub: Hub, tmp_path: Path) -> Path:
    """200 articles in five row groups, and the same in a json.gz."""
    folder = tmp_path / "served"
    layouts.wikipedia(folder, {"ko": (1, 200)})
    layouts.json_gz(folder / "all.json.gz", [{"text": layouts.korean(n)} for n in range(200)])
    hub.add(REPOSITORY, folder)
    return folder


def read(path: str, row: int = 0) -> list[str]:
    file = DataFile(path, f"hf://datasets/{REPOSITORY}@main/{path}")
    chunks = row_chunks(file, ["text"], REPOSITORY, row)
    return [str(row["text"]) for rows, _ in chunks for row in rows]


EXPECTED = [layouts.korean(n) for n in range(200)]


@pytest.mark.parametrize("path", [PATH, "all.json.gz"])
@pytest.mark.parametrize("fault", ["cut", "drop", 429, 500, 503])
def test_transient_errors_are_retried(path: str, fault: str | int, hub: Hub, folder: Path) -> None:
    hub.faults = [fault] * 3
    assert read(path) == EXPECTED
    assert hub.faults == []


@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.parametrize("path", [PATH, "all.json.gz"])
def test_more_failures_than_the_client_retries_resume_at_the_position(
    path: str, status: int, hub: Hub, folder: Path
) -> None:
    """The client stops after six failures in a row; reading then resumes at the same row."""
    hub.faults = [status] * 14
    assert read(path) == EXPECTED
    assert hub.faults == []


def test_a_slow_hub_is_only_slow(hub: Hub, folder: Path) -> None:
    hub.slow = 0.05
    assert read(PATH) == EXPECTED


def test_a_hub_that_stays_away_is_one_sentence(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "ATTEMPTS", 2)
    monkeypatch.setattr("holo_cli.data.sources.hub.rows.ATTEMPTS", 2)
    hub.faults = [500] * 1000
    with pytest.raises(DataError, match=r"could not be read any further: HTTP status 500") as e:
        read(PATH)
    assert "same command" in e.value.next_step
    assert "\n" not in str(e.value)


def test_going_on_in_the_middle_reads_no_row_group_before_it(hub: Hub, folder: Path) -> None:
    """Positions are rows; of a file with long row groups only the footer and the rest are read."""
    import pyarrow
    import pyarrow.parquet

    rows = [f"{n}: " + " ".join(str(hash((n, i))) for i in range(900)) for n in range(700)]
    path = folder / "long.parquet"
    table = pyarrow.table({"text": rows})
    pyarrow.parquet.write_table(table, path, row_group_size=100, compression="none")
    total = path.stat().st_size
    assert total > 11_000_000  # twice the block that the client reads ahead

    def fetched() -> int:
        ranges = [re.search(r"bytes=(\d+)-(\d+)", line) for line in hub.contents()]
        return min(int(found[1]) for found in ranges if found)

    hub.asked.clear()
    assert read("long.parquet", 650) == rows[650:]
    assert fetched() > total // 2


def test_a_dataset_that_is_not_there_or_not_open(hub: Hub, folder: Path) -> None:
    with pytest.raises(DataError, match="was not found at"):
        open_source(Request("wikipedia", languages=("xx",)))
    hub.repositories.clear()
    with pytest.raises(
        DataError,
        match=r"wikimedia/wikipedia was (not found|denied)",
    ):
        open_source(Request("wikipedia", languages=("ko",)))


def test_content_with_a_wrong_hash_is_downloaded_again(hub: Hub, tmp_path: Path) -> None:
    layouts.wikitext(tmp_path / "wt", {"train": 60, "validation": 3})
    hub.add("Salesforce/wikitext", tmp_path / "wt")
    hub.faults = ["wrong"]
    assert open_source(Request("wikitext2")).streams
    again = [line for line in hub.contents() if "train-00000" in line]
    assert len(again) >= 2


def test_a_content_that_stays_wrong_is_refused_and_not_kept(hub: Hub, tmp_path: Path) -> None:
    layouts.wikitext(tmp_path / "wt", {"train": 60, "validation": 3})
    hub.add("Salesforce/wikitext", tmp_path / "wt")
    hub.wrong_always = True
    with pytest.raises(DataError, match=r"did not match the hash") as caught:
        prepare(["wikitext2"], out=tmp_path / "set", workers=1)
    assert "train-00000-of-00002.parquet" in caught.value.message
    hub.wrong_always = False
    assert prepare(["wikitext2"], out=tmp_path / "set", vocab_size=300).docs["train"] == 60


def test_a_stream_with_altered_bytes_is_reported_as_damaged(hub: Hub, folder: Path) -> None:
    hub.wrong_always = True
    with pytest.raises(DataError, match=r"is damaged, or was altered in transit") as caught:
        read("all.json.gz")
    assert "all.json.gz" in caught.value.message


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_a_file_without_the_text_column(kind: str, hub: Hub, tmp_path: Path) -> None:
    name = {"parquet": "fineweb", "json": "c4"}[kind]
    if kind == "parquet":
        layouts.parquet(tmp_path / "x" / "sample" / "10BT" / "000.parquet", {"content": ["a"] * 9})
        hub.add("HuggingFaceFW/fineweb", tmp_path / "x")
    else:
        path = tmp_path / "x" / "en" / "c4-train.00000-of-00001.json.gz"
        layouts.json_gz(path, [{"content": "a"}] * 9)
        hub.add("allenai/c4", tmp_path / "x")
    with pytest.raises(DataError, match=r"has no column 'text'; it has: content\."):
        prepare([name], out=tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_dataset_that_changes_meanwhile_is_gone_on_with_as_it_was(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holo_cli.data.prepare import shards

    whole = prepare(["wikipedia"], out=tmp_path / "whole", lang=["ko"], vocab_size=300)
    add = shards.ShardWriter.add

    def stop(self: shards.ShardWriter, *args: object, **known: object) -> None:
        if self.position == 100:
            self.checkpoint()
            raise KeyboardInterrupt
        add(self, *args, **known)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(shards.ShardWriter, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(["wikipedia"], out=tmp_path / "s", lang=["ko"], vocab_size=300)
    before = hub.commits[REPOSITORY]
    hub.commits[REPOSITORY] = "f" * 40  # somebody pushed; the pinned commit is asked for
    hub.asked.clear()
    result = prepare(["wikipedia"], out=tmp_path / "s", lang=["ko"], vocab_size=300)
    assert result.resumed
    assert any(f"/revision/{before}" in line for line in hub.asked)
    assert not any("f" * 40 in line for line in hub.asked)
    assert (result.data / "train_00000.bin").read_bytes() == (
        whole.data / "train_00000.bin"
    ).read_bytes()
