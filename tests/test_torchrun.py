"""Exit codes through torchrun."""

from __future__ import annotations

from pathlib import Path

import pytest

from holo_cli import torchrun


def test_codes_are_told_to_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert torchrun.reported(3) == 3
    monkeypatch.setenv("RANK", "1")
    assert torchrun.reported(3) == 3
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    assert [torchrun.reported(code) for code in (0, 1, 2, 3)] == [0, 1, 2, 0]
    monkeypatch.setenv(torchrun.FOLDER, str(tmp_path))
    assert [torchrun.reported(code) for code in (0, 1, 2, 3)] == [0, 1, 0, 0]
    assert (tmp_path / "1").read_text(encoding="utf-8") == "3"
    (tmp_path / "0").write_text("3", encoding="utf-8")
    assert torchrun._common(tmp_path, 0) == 3
    (tmp_path / "0").write_text("1", encoding="utf-8")  # one failed: torchrun's own end counts
    assert torchrun._common(tmp_path, 0) == 0


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert torchrun.main(["--nproc-per-node", "2"]) == 2
    assert "There is no command of holo after `--`." in capsys.readouterr().err
