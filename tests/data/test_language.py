"""Language detection, Korean in particular."""

from __future__ import annotations

import pytest

from holo_cli.data.language import detect, hangul_share, supported

TEXTS = {
    "en": "The lighthouse keeper looked at the sea and waited for the boat to come home.",
    "ko": "등대지기는 바다를 보며 배가 돌아오기를 기다렸다.",
    "de": "Der Leuchtturmwärter blickte auf das Meer und wartete auf die Rückkehr des Bootes.",
    "fr": "Le gardien du phare regardait la mer et attendait que le bateau rentre à la maison.",
}


@pytest.mark.parametrize("code", TEXTS)
def test_the_language_is_found(code: str) -> None:
    assert detect(TEXTS[code]) == code
    assert detect(TEXTS[code], among=sorted(TEXTS)) == code
    assert code in supported()


def test_korean_with_many_english_words_is_korean() -> None:
    text = "PyTorch 의 DataLoader 는 num_workers 를 받아서 여러 프로세스로 읽는다: import torch"
    assert detect(text) == "ko"
    assert detect(text, among=["en", "ko"]) == "ko"


def test_answers_keep_to_what_is_possible() -> None:
    assert detect(TEXTS["de"], among=["en", "ko"]) == "en"
    assert detect(TEXTS["ko"], among=["en", "fr"]) in ("en", "fr")
    assert detect("12345", among=["ko"]) == "ko"


def test_hangul_share_counts_letters_only() -> None:
    assert hangul_share("한a 12.") == 0.5
    assert hangul_share("12.") == 0
