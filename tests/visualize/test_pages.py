"""`make_page` from a real checkpoint to a file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holo_cli.data.tokenizers import Tokenizer
from holo_cli.errors import CheckpointError, UsageError
from holo_cli.models.views import Picture
from holo_cli.visualize import browser, known_pages, make_page, pages
from holo_cli.visualize.attention import most_tokens
from tests.visualize.conftest import MIXED, make_checkpoint
from tests.visualize.test_training import log, rows


def data_of(path: str) -> dict[str, Any]:
    text = Path(path).read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json">(.*?)</script>', text)
    return json.loads(found)


def test_coords_page(lab: Path) -> None:
    done = make_page("coords", text=MIXED)
    assert set(done) == {"page", "bytes", "seconds"}
    assert done["page"] == "pages/두-runs-coords.html"
    assert done["bytes"] == Path(done["page"]).stat().st_size < 6_000_000
    text = unescape(Path(done["page"]).read_text(encoding="utf-8"))
    for fact in (
        "vanilla, modern recipe",
        "step 1,234",
        "2.7183 nats",
        "<stories>",
        "고양이",
        "holo ",
    ):
        assert fact in text
    data = data_of(done["page"])
    assert data["layers"] == ["Embedding", "Block 1", "Block 2", "Block 3"]
    assert len(data["points"]) == 4
    assert len(data["points"][0]) == len(data["tokens"]) == len(data["languages"])
    assert set(data["languages"]) == {"special", "en", "ko"}
    assert data["mass"] is None
    assert "no coordinates of its own" in text


@pytest.mark.parametrize("recipe", ["modern", "classic"])
def test_attention_page(lab: Path, tokenizer: Tokenizer, recipe: str) -> None:
    path = make_checkpoint(lab, tokenizer, run=recipe, recipe=recipe)  # type: ignore[arg-type]
    done = make_page("attention", path, text=MIXED, out="a/b.html")
    assert done["page"] == "a/b.html"
    data = data_of(done["page"])
    assert len(data["weights"]) == 3
    for layer in data["weights"]:
        assert len(layer) == 2
        for head in layer:
            assert [len(row) for row in head] == list(range(1, len(data["tokens"]) + 1))
            assert all(sum(row) == pytest.approx(1, abs=0.0006 * len(row)) for row in head)
    text = Path(done["page"]).read_text(encoding="utf-8")
    last = " ".join(f"{w:.10g}" for w in data["weights"][2][1][-1])
    assert last in text.rpartition("Block 3, head 2")[2]


def test_large_pages_stay_below_six_megabytes(lab: Path) -> None:
    long = "the cat gave the dog a fish " * 200
    for what in ("coords", "attention"):
        assert make_page(what, text=long)["bytes"] < 6_000_000
    assert most_tokens(16) == 79
    assert most_tokens(24 * 32) == 16


def test_training_page_of_the_checkpoints_run_or_of_named_runs(lab: Path) -> None:
    log(lab / "runs", "두-runs", rows(5))
    log(lab / "runs", "other", rows(3))
    assert make_page("training")["page"] == "pages/두-runs-training.html"
    both = make_page("training", runs=["other", "두-runs", "other"])
    assert both["page"] == "pages/other-두-runs-training.html"
    assert "옛날 옛적" in Path(both["page"]).read_text(encoding="utf-8")


def test_a_page_that_no_model_has(lab: Path) -> None:
    with pytest.raises(UsageError, match="no page 'cords'") as error:
        make_page("cords")
    assert error.value.next_step == "Did you mean 'coords'?"


def test_a_page_that_only_another_model_has(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = known_pages() | {"gravity": "who pulls whom"}
    monkeypatch.setattr(pages, "known_pages", lambda: known)
    with pytest.raises(UsageError, match=r"'vanilla' of .* has no page 'gravity'") as error:
        make_page("gravity")
    assert error.value.next_step == "It has: coords, suffix, training, attention."


def test_a_models_own_page_of_pictures(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gravity(model: Any, tokens: Any) -> list[Picture]:
        trace = {"type": "bar", "x": list(range(len(tokens))), "y": tokens.tolist()}
        return [Picture("Pull", "Who pulls.", {"all": [trace]})]

    views = SimpleNamespace(PAGES={"gravity": "who pulls whom"}, gravity=gravity)
    monkeypatch.setattr(pages, "views_of", lambda model: views)
    done = make_page("gravity", text="the cat")
    assert len(data_of(done["page"])["variants"]["all"][0]["y"]) > 2


def test_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for what in ("coords", "training"):
        with pytest.raises(CheckpointError, match="no checkpoint"):
            make_page(what)


def test_a_run_name_cannot_lead_out_of_the_folder(lab: Path, tokenizer: Tokenizer) -> None:
    path = make_checkpoint(lab, tokenizer, run="x")  # type: ignore[arg-type]
    assert make_page("coords", path)["page"] == "pages/x-coords.html"
    assert pages._file_name("../../etc/passwd") == "_.._etc_passwd"


def test_a_picture_without_a_browser_is_refused_before_anything_is_written(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "find_browser", lambda: None)
    with pytest.raises(UsageError, match="Chromium"):
        make_page("coords", png=True)
    assert not (lab / "pages").exists()


def test_listing_pages_loads_no_torch() -> None:
    code = (
        "import sys\nfrom holo_cli.visualize import known_pages\n"
        "assert 'attention' in known_pages()\n"
        "print([m for m in ('torch', 'numpy', 'plotly') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
