"""holographic's own pages, from a checkpoint to what a browser shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch

from holo_cli.checkpoint import DataInfo, Header, Losses, model_tensors, save
from holo_cli.data.tokenizers.bpe import JsonTokenizer
from holo_cli.models.holographic.views import interference
from holo_cli.models.views import Picture
from holo_cli.registry import build_model, config_class
from holo_cli.visualize import make_page
from holo_cli.visualize.browser import Visit
from tests.visualize.conftest import MIXED
from tests.visualize.test_browser import complaints, drawn, needs_browser, words


@pytest.fixture
def holographic(tmp_path: Path, tokenizer: JsonTokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = config_class("holographic")(
        vocab_size=tokenizer.vocab_size, layers=2, heads=2, width=16, context=64, experts=3
    )
    torch.manual_seed(0)
    model = build_model("holographic", config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    header = Header(
        model="holographic",
        config={"model": model.config.model_dump(mode="json"), "training": {}, "data": {}},
        tokenizer=tokenizer.to_dict(),
        step=10,
        losses=Losses(val=2.0, bpb=1.5),
        data=DataInfo(name="two", languages={"en": 5, "ko": 5}, markers=True, documents=10),
        run="waves",
        kind="best",
    )
    path = tmp_path / "checkpoints" / "waves_best.safetensors"
    path.parent.mkdir()
    save(path, header, model_tensors(model))
    monkeypatch.chdir(tmp_path)
    return path


def test_positions_are_named_by_their_tokens(holographic: Path) -> None:
    text = unescape(Path(make_page("experts", text=MIXED)["page"]).read_text(encoding="utf-8"))
    assert re.search(r"<td>[^<]*[가-힣][^<]*</td>", text)
    assert '"ticktext"' in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "rotates the first 2 of the 8 plates"),
        ({"plates": 6}, "rotates 25% of the phases"),
        ({"rope_fraction": 0.0}, "rotates none of them"),
        ({"phases": "learned"}, "rotates all of them"),
    ],
)
def test_it_is_said_which_plates_position_rotates(given: dict[str, Any], said: str) -> None:
    sizes = {"vocab_size": 9, "layers": 1, "heads": 2, "width": 16, "context": 8}
    model = build_model("holographic", config_class("holographic")(**sizes, **given))
    with torch.inference_mode():
        _, retained, *_ = interference(model, torch.arange(8))
    assert isinstance(retained, Picture)
    assert said in retained.note


class TestInBrowser:
    pytestmark = needs_browser

    @pytest.mark.parametrize(("what", "figures"), [("interference", 5), ("experts", 2)])
    def test_page(
        self, holographic: Path, what: str, figures: int, visit: Callable[..., Visit]
    ) -> None:
        seen = visit(Path(make_page(what, text=MIXED)["page"]))
        assert complaints(seen.console) == []
        dom = drawn(seen.dom)
        assert dom.count("js-plotly-plot") == figures
        assert "고양이가 걸었다." in words(seen.dom)
        ticks = re.findall(r'class="[xy]tick"><text[^>]*>([^<]*)<', dom)
        assert any("고" in tick or "양" in tick for tick in ticks)
