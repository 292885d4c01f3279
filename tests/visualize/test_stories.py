"""What a page says there is to see is computed from what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from holo_cli.data.tokenizers import Tokenizer
from holo_cli.models.brain_v1.views import overlap
from holo_cli.models.figures import named
from holo_cli.models.ngt.far_view import by_block, fields
from holo_cli.models.ngt.views import strongest_source
from holo_cli.models.views import Coordinates, Picture, Weights
from holo_cli.translation import translate
from holo_cli.visualize import make_page
from holo_cli.visualize.attention import attention_section, selective_head
from holo_cli.visualize.coords import coords_section
from holo_cli.visualize.model_reading import SPECIAL, Reading, TokenGroup
from holo_cli.visualize.page import Page, picture_section, render, story
from tests.visualize.conftest import MIXED, make_checkpoint

WORDS = ["<|en|>", "the", "cat", "saw", "the", "fish", "and", "ran"]


def reading(languages: list[str] | None = None) -> Reading:
    groups = [
        TokenGroup(word, [word], True) if word.startswith("<|") else TokenGroup(f" {word}", [word])
        for word in WORDS
    ]
    codes = languages or [SPECIAL, *["en"] * (len(WORDS) - 1)]
    return Reading(list(range(len(WORDS))), groups, codes, len(WORDS), [])


def even(heads: int = 2, layers: int = 3) -> list[torch.Tensor]:
    """Weights of heads that choose nothing."""
    count = len(WORDS)
    row = torch.ones(count, count).tril()
    return [(row / row.sum(1, keepdim=True)).expand(heads, -1, -1).clone() for _ in range(layers)]


def sharp(weights: torch.Tensor, pairs: dict[int, int], share: float = 0.9) -> None:
    for taker, source in pairs.items():
        weights[taker] = 0
        weights[taker, : taker + 1] = (1 - share) / taker
        weights[taker, source] = share


NAMES = ["Block 1", "Block 2", "Block 3"]


def test_attention_opens_on_the_head_that_chooses() -> None:
    first, second = even(), even()
    sharp(first[1][0], {5: 2, 6: 5, 7: 2})
    sharp(second[2][1], {4: 3, 5: 4, 6: 5, 7: 6}, share=0.8)
    for layers, opens, said in (
        (first, (1, 0, 7), "Head 1 of Block 2 is the most selective.*'ran' takes 90% from 'cat'"),
        (second, (2, 1, 7), "Head 2 of Block 3 .*the one just before in .*'ran' takes 80% from"),
    ):
        section = attention_section(Weights(layers, NAMES, "What."), reading())
        assert section.data["opens"] == opens
        assert re.search(said, section.see)


def test_weight_that_waits_on_the_first_token_is_no_choice() -> None:
    waiting = even()
    sharp(waiting[0][0], dict.fromkeys(range(2, 8), 0), share=0.99)
    sentence, _ = selective_head(Weights(waiting, NAMES, "What."), reading())
    assert "No head takes much more" in sentence
    sharp(waiting[2][0], {7: 3, 6: 2, 5: 2})
    sentence, opens = selective_head(Weights(waiting, NAMES, "What."), reading())
    assert opens[:2] == (2, 0)


def test_coords_open_on_the_layer_that_separates_languages() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = [SPECIAL, *["en"] * 4, *["ko"] * 3]
    layers = [torch.randn(8, 4, generator=generator) for _ in range(4)]
    layers[2][5:] += 20
    names = ["Embedding", *NAMES]
    section = coords_section(Coordinates(layers, names, "What."), reading(codes))
    assert section.data["opens"] == 2
    assert section.see.startswith("Block 2 is where English and Korean are farthest apart: their")
    layers[1][5:] += 60
    assert coords_section(Coordinates(layers, names, "What."), reading(codes)).data["opens"] == 1
    # one language: the layer into which tokens move, and the one that moves most
    alone = [torch.zeros(8, 4) for _ in range(4)]
    alone[0][:, 0] = alone[1][:, 0] = torch.arange(8.0)
    alone[2] = alone[1].clone()
    alone[2][5, 1] = 9
    alone[3] = alone[2]
    section = coords_section(Coordinates(alone, names, "What."), reading())
    assert section.data["opens"] == 2
    assert "from Block 1 to Block 2, and 'fish' most of all: 8.0 times" in section.see


def test_gravity_names_the_token_that_later_ones_take_from() -> None:
    weights = even()
    for head in weights[1]:
        sharp(head, dict.fromkeys(range(3, 8), 2))
    layer, token, times = strongest_source(weights)
    assert (layer, token) == (1, 2)
    assert times > 4
    weights[1] = even()[1]
    assert strongest_source(weights)[2] == pytest.approx(1)


def test_near_field_opened_blocks_and_bodies_are_all_of_the_weight() -> None:
    """Eight tokens in blocks of two: the last block opens the first of two old ones."""
    weight = even(heads=1)[0]
    of_body = torch.zeros_like(weight, dtype=torch.bool)
    of_body[:, 6:, 2:4] = True
    near, opened, body = fields(weight, of_body, 2)
    torch.testing.assert_close(near + opened + body, torch.ones(8))
    assert body[:6].abs().max() == 0
    assert body[7].item() == pytest.approx(2 / 8)
    assert opened[7].item() == pytest.approx(2 / 8)
    between, open_share = by_block(weight, of_body, 2)
    assert between[3].nansum().item() == pytest.approx(1)
    assert open_share[3, :2].tolist() == [1, 0]
    assert open_share[3, 2:].isnan().all()


def test_overlap_of_columns() -> None:
    assert overlap(torch.ones(5, 4)) == pytest.approx(1)
    assert overlap(torch.eye(4)) == pytest.approx(0)


def test_names_are_whole_words_before_special_tokens() -> None:
    assert named(WORDS, [0, 2, 5, 1, 6]) == "'cat', 'fish', 'the'"
    assert named(WORDS, [0]) == "'<|en|>'"


def test_the_page_begins_with_the_sentence_and_the_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traces = {"a": [{"type": "bar", "x": [0], "y": [1]}], "b": []}
    picture = Picture("Title", "Note.", traces, see=lambda names: f"See {names[1]}.", opens="b")
    folded = Picture("Later", "Small print.", traces, see=lambda _: "More.", folded=True)
    sections = [picture_section(p, labels=WORDS) for p in (picture, folded)]
    text = render(story("T", [("Model", "vanilla")], sections)).partition("<body")[2]
    order = ["What to see</strong> See the.", 'class="drawing"', "Note.", "<summary><h2>Later",
             "More.", "Small print.", "<dt>Model"]  # fmt: skip
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    assert text.count("See the.") == 1
    assert '"opens":"b"' in text
    # a page with nothing to see keeps its facts on top
    plain = render(Page("T", [("Model", "vanilla")], sections[1:])).partition("<body")[2]
    assert plain.index("<dt>Model") < plain.index('class="drawing"')


def test_parts_of_a_character_are_marked_under_the_whole(lab: Path) -> None:
    text = Path(make_page("coords", text=MIXED)["page"]).read_text(encoding="utf-8")
    parts = re.findall(r'<span class="parts" style="--parts: (\d)" title="(\d) tokens">(.)</', text)
    assert {character for _, _, character in parts} >= set("고양")
    assert all(count == told and int(count) > 1 for count, told, _ in parts)


def test_the_sentence_is_korean_too(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_LANG", "ko")
    for what in ("coords", "attention"):
        text = Path(make_page(what, text=MIXED)["page"]).read_text(encoding="utf-8")
        (said,) = re.findall(r'class="see"><strong>관찰 포인트</strong> (.*?)</p>', text)
        assert not re.search(r"[A-Za-z]{4,}", re.sub(r"&#x27;.*?&#x27;", "", said)), said
    one = "Run 'b' is lowest on the validation set, a loss of 1.5 at step 2: 0.5 below 'a'."
    assert translate(one).endswith("스텝 2에서 손실 1.5로 'a'보다 0.5 낮습니다.")


def test_two_checkpoints_say_different_things(lab: Path, tokenizer: Tokenizer) -> None:
    said = []
    for recipe in ("modern", "classic"):
        path = make_checkpoint(lab, tokenizer, run=recipe, recipe=recipe)  # type: ignore[arg-type]
        page = Path(make_page("attention", path, text=MIXED)["page"])
        said += re.findall(r'class="see">.*?</p>', page.read_text(encoding="utf-8"))
    assert len(set(said)) == 2
