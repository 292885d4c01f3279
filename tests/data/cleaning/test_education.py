"""Educational value: the score of the dataset, else the heuristic."""

from __future__ import annotations

import pytest

from benchmarks import synthetic_junk
from holo_cli.data.cleaning.education import heuristic, value
from holo_cli.data.document import Document

EXPLAINING = {
    "en": "Iron rusts because it reacts with oxygen and water. The product is called iron oxide. "
    "For example, a nail that lies in the rain becomes brown within days, whereas one in dry air "
    "stays bright for years. This means that paint protects iron: if no water reaches it, then no "
    "rust forms.",
    "ko": "쇠가 녹스는 이유는 산소와 물이 만나 반응하기 때문입니다. 이때 생기는 물질을 "
    "산화철이라고 부릅니다. 예를 들어 비를 맞은 못은 며칠 만에 갈색이 되지만, 마른 곳에 둔 "
    "못은 몇 해가 지나도 그대로입니다. 따라서 칠을 하면 물이 닿지 않으므로 녹이 생기지 않습니다.",
}
SELLING = {
    "en": "BUY NOW! Cheap shoes on sale! Click here for a discount coupon! Best price! Free now!",
    "ko": "지금 구매! 특가 할인 이벤트! 무료배송 쿠폰! 클릭! 최저가 상담 문의!",
}


@pytest.mark.parametrize("language", ["en", "ko"])
def test_explaining_is_worth_more_than_selling(language: str) -> None:
    assert heuristic(EXPLAINING[language], language) > 3.5  # type: ignore[operator]
    assert heuristic(SELLING[language], language) < 1  # type: ignore[operator]
    for n in range(6):
        assert heuristic(synthetic_junk.make("keywords", n), language) < 3  # type: ignore[operator]


def test_values_keep_to_their_range() -> None:
    for text in ("", "!", "word", EXPLAINING["en"] * 50, *SELLING.values()):
        for language in ("en", "ko"):
            found = heuristic(text, language)
            assert found is not None
            assert 0 <= found <= 5


def test_the_score_of_the_dataset_takes_precedence() -> None:
    assert value(Document(SELLING["en"], score=4.2), "en") == 4.2
    assert value(Document(SELLING["en"]), "en") != 4.2
    of_perplexity = Document(SELLING["en"], perplexity=3.5)
    assert value(of_perplexity, "en") == value(Document(SELLING["en"]), "en")


def test_other_languages_get_no_value() -> None:
    assert value(Document("Der Leuchtturmwärter blickte lange auf das Meer."), "de") is None
