"""The script that measures the sparse MLP against its twin, at a toy size: no times asserted."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import columns


def test_rows_are_json_and_compare_with_the_twin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "CALIBRATION", 0.0)
    monkeypatch.setattr(columns, "DECODED", 2)
    monkeypatch.setattr(columns, "describe_machine", lambda: {"cpu": "some"})
    columns.main(["--width", "32", "--tokens", "16", "--repeats", "1"])
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert rows[-1] == {"what": "machine", "cpu": "some"}
    assert [(r["what"], r["form"]) for r in rows[:-1]] == [
        (what, form) for what in ("train", "decode") for form in columns.FORMS
    ]
    for row in rows[:-1]:
        assert row["microseconds_per_token"] > 0
        assert row["activity"] == (1.0 if row["form"] == "dense" else 0.05)  # 8 of 160 units
        if row["form"] == "dense":
            assert row["times_faster"] == row["times_faster_cpu"] == 1
    assert "| decode | columns-masked | 5.0% |" in printed.err


@pytest.mark.parametrize("form", columns.FORMS)
def test_training_reaches_every_weight(form: str) -> None:
    part = columns.make(form, 32, 0.05)
    seen: set[str] = set()
    for name, p in part.named_parameters():
        p.register_hook(lambda _, name=name: seen.add(name))
    columns.training(part, 8, torch.float32)()
    assert seen == {name for name, _ in part.named_parameters()}


def test_unknown_forms_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        columns.main(["--forms", "kwta,spikes"])
    assert "no form spikes" in capsys.readouterr().err
