"""The pages of the two brains, from a checkpoint to what a browser shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch

from holo_cli.checkpoint import DataInfo, Header, Losses, model_tensors, save
from holo_cli.data.tokenizers.bpe import JsonTokenizer
from holo_cli.registry import build_model, config_class
from holo_cli.visualize import make_page
from holo_cli.visualize.browser import Visit
from tests.visualize.conftest import MIXED
from tests.visualize.test_browser import complaints, drawn, needs_browser, words

MODELS: dict[str, dict[str, Any]] = {
    "brain-v1": {"columns": 8, "activity": 0.25, "exit_threshold": 0.05},
    "brain-v2": {"ponder": 3, "memory_every": 1, "attention_every": 2, "attention_share": 0.4},
}
PAGES = [  # with the figures of each
    ("brain-v1", "columns", 3),
    ("brain-v1", "depth", 3),
    ("brain-v2", "memory", 3),
    ("brain-v2", "attention", 2),
    ("brain-v2", "depth", 1),
]
ELSEWHERE = {"brain-v1": (), "brain-v2": ("attention", "depth")}  # drawn by the same scripts
NUMBER = re.compile(r"(?<![^\s>])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![^\s<])")


def checkpoint(folder: Path, name: str, tokenizer: JsonTokenizer) -> Path:
    """Of an untrained model in which every part says something."""
    config = config_class(name)(
        vocab_size=tokenizer.vocab_size, layers=2, heads=2, width=16, context=96, **MODELS[name]
    )
    torch.manual_seed(0)
    model = build_model(name, config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    header = Header(
        model=name,
        config={"model": model.config.model_dump(mode="json"), "training": {}, "data": {}},
        tokenizer=tokenizer.to_dict(),
        step=10,
        losses=Losses(val=2.0, bpb=1.5),
        data=DataInfo(name="two", languages={"en": 5, "ko": 5}, markers=True, documents=10),
        run="cortex",
        kind="best",
    )
    path = folder / "checkpoints" / "cortex_best.safetensors"
    path.parent.mkdir()
    save(path, header, model_tensors(model))
    return path


@pytest.fixture
def page(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tokenizer: JsonTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The page (model, what) of a checkpoint that says all there is to know."""
    name, what = request.param
    checkpoint(tmp_path, name, tokenizer)
    monkeypatch.chdir(tmp_path)
    return Path(make_page(what, text=MIXED)["page"])


def pictures(text: str) -> list[dict[str, Any]]:
    """What the figures of a page were sent."""
    sent = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    return [json.loads(data) for data in sent]


@pytest.mark.parametrize("page", [p[:2] for p in PAGES], indirect=True)
def test_figures_name_tokens_and_tell_their_numbers(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 6_000_000
    assert "http-equiv" in text  # the policy that allows no connection
    figures = pictures(text)
    assert all(figure["numbers"] for figure in figures)
    named = [f["layout"][axis]["ticktext"] for f in figures for axis in ("xaxis", "yaxis")
             if "ticktext" in f["layout"].get(axis, {})]  # fmt: skip
    assert named
    assert all(any("고" in token for token in ticks) for ticks in named)


@pytest.mark.parametrize("page", [("brain-v1", "columns")], indirect=True)
def test_columns_have_typical_tokens(page: Path) -> None:
    cells = re.findall(r"<td>([^<]*)</td>", unescape(page.read_text(encoding="utf-8")))
    assert any("고" in cell for cell in cells)


class TestInBrowser:
    pytestmark = needs_browser

    @pytest.mark.parametrize(
        ("page", "figures"),
        [((model, what), count) for model, what, count in PAGES if what not in ELSEWHERE[model]],
        indirect=["page"],
    )
    def test_page(self, page: Path, figures: int, visit: Callable[..., Visit]) -> None:
        seen = visit(page)
        assert complaints(seen.console) == []
        dom = drawn(seen.dom)
        assert dom.count("js-plotly-plot") == figures
        assert dom.count("All numbers of this figure") == figures
        assert "고양이가 걸었다." in words(seen.dom)
        ticks = re.findall(r'class="[xy]tick"><text[^>]*>([^<]*)<', dom)
        assert any("고" in tick for tick in ticks)
        told = set(map(float, NUMBER.findall(dom)))
        for figure in pictures(page.read_text(encoding="utf-8")):
            for trace in figure["variants"][figure["opens"]]:
                rows = trace["z"] if "z" in trace else [trace["y"]]
                values = [v for row in rows for v in row if v is not None]
                assert {float(v) for v in values} <= told
