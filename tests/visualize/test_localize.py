"""Captions of pages in Korean: what is translated, and what stays as it is."""

from __future__ import annotations

import pytest

from holo_cli.visualize.localize import captions


def test_layers_along_an_axis_are_captions_and_tokens_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOLO_LANG", "ko")
    given = {
        "variants": {"all layers": [{"type": "bar", "name": "fire", "x": ["Block 1", "Block 12"]}]},
        "layout": {
            "xaxis": {"title": {"text": "token"}, "ticktext": ["Embedding", "Block", "text"]},
            "yaxis": {"title": {"text": "share of the units"}},
        },
    }
    found = captions(given)
    assert list(found["variants"]) == ["모든 층"]
    assert found["variants"]["모든 층"][0]["x"] == ["블록 1", "블록 12"]
    assert found["layout"]["xaxis"]["ticktext"] == ["임베딩", "Block", "text"]
    assert found["layout"]["xaxis"]["title"]["text"] == "토큰"
    assert found["layout"]["yaxis"]["title"]["text"] == "유닛의 비율"


def test_english_is_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_LANG", "en")
    assert captions({"x": ["Block 1"], "name": "fire"}) == {"x": ["Block 1"], "name": "fire"}
