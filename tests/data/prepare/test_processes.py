"""A set is the same to the byte whatever the number of processes that clean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holo_cli.data.cleaning import judging
from holo_cli.data.prepare import build, pipeline
from holo_cli.data.prepare.prepare import prepare
from holo_cli.errors import UsageError
from tests.data.cleaning.test_screen import documents
from tests.data.prepare.test_killed import facts
from tests.data.prepared import content


def test_the_set_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "START_CHARACTERS", 2000)
    monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", 40)
    monkeypatch.setattr(build, "CHECKPOINT_SECONDS", 0.0)
    sources = []
    for seed in (1, 2):
        path = tmp_path / f"{seed}.jsonl"
        lines = [json.dumps({"text": one.text}) for one in documents(seed, 90)]
        lines[7:7] = ['{"text": "\\ud800 alone"}', "{bad", '{"text": "\\u0000"}', lines[3]]
        path.write_text("\n".join(lines), encoding="utf-8")
        sources.append(str(path))
    for processes in (1, 3):
        prepare(
            source=sources, out=tmp_path / f"out {processes}", tokenizer="bpe", vocab_size=400,
            filter="default", mix="proportional", max_bytes=60_000, processes=processes,
        )  # fmt: skip
    assert content(tmp_path / "out 3") == content(tmp_path / "out 1")
    found = facts(tmp_path / "out 3")
    assert found == facts(tmp_path / "out 1")
    assert sum(found["dropped"].values()) > 20


@pytest.mark.parametrize("number", [0, -1, 257])
def test_an_impossible_number_is_refused(number: int) -> None:
    with pytest.raises(UsageError, match="--processes must be 1 to 256"):
        prepare(["stories"], processes=number)
