"""Each rule drops its own kind of junk and no good text."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from benchmarks import synthetic_junk
from holo_cli.data.cleaning import CleaningSettings, rules
from holo_cli.data.cleaning.document_filter import DocumentFilter
from holo_cli.data.document import Document
from holo_cli.data.normalize import normalize
from holo_cli.data.sources.stories.grammar import generate, tell_story

ENGLISH = [tell_story(n, "en").text for n in range(40)]
KOREAN = [tell_story(n, "ko").text for n in range(40)]


def judge(text: str, language: str = "", filters: str = "default") -> str:
    return DocumentFilter(CleaningSettings.parse(filters)).judge(Document(text, language))


def lines(
    count: int, line: str = "This is line {} of the page, and it is not like the others."
) -> str:
    return "\n".join(line.format(n) for n in range(count))


BREAKING = {
    "few words": ("one two three", "min_words=5"),
    "many words": (ENGLISH[0], "max_words=10"),
    "undecodable": ("He said \ufffd\ufffd\ufffd and left.", ""),
    "odd characters": (KOREAN[0].encode("cp949").decode("latin-1"), ""),
    "markup": (" ".join(f"<div class='x'>{w}</div>" for w in ENGLISH[0].split()), ""),
    "bullets": ("\n".join(f"- the thing of number {n} is here." for n in range(20)), ""),
    "ellipses": (lines(20, "The page is about number {} and ..."), "max_symbols=9"),
    "line punctuation": (lines(20, "this is a line about number {} and it goes on and on"), ""),
    "short lines": (lines(30, "This is the {}."), ""),
    "line ends": (lines(30, "That is {}."), "max_short_lines=1"),
    "duplicate lines": (
        ENGLISH[0] + "\n" + lines(9) + "\n" + "\n".join(["Read the rest."] * 9),
        "",
    ),
    "mean word length": ("The " + "antidisestablishmentarianism " * 3 * 8, ""),
    "symbols": (" ".join(f"#{w}" for w in ENGLISH[0].split()), ""),
    "placeholder text": ("Lorem ipsum and " + ENGLISH[0], ""),
    "words without letters": ("1 2 3 4 5 " + ENGLISH[0] + " 17 18 19 : - =" * 20, ""),
    "few stop words": ("shoes price sale cheap hotel flight loan casino phone camera " * 3, ""),
    "repeated phrases": ("of the people " * 40 + ENGLISH[0], ""),
    "duplicate phrases": (f"{ENGLISH[0]} But then: {ENGLISH[0]}", ""),
}


@pytest.mark.parametrize("rule", BREAKING)
def test_a_text_made_for_a_rule_falls_under_it(rule: str) -> None:
    text, filters = BREAKING[rule]
    assert judge(text, "en", filters) == rule


def test_there_is_a_text_for_each_rule() -> None:
    assert set(BREAKING) == set(rules.names())


def test_good_text_stays() -> None:
    assert [judge(text) for text in ENGLISH + KOREAN] == [""] * 80


@pytest.mark.parametrize("text", ["길 막혀?", "Yes.", "© 2020", "1, 2, 3", "naïve café, São Paulo"])
def test_short_text_is_no_junk(text: str) -> None:
    assert judge(text) == ""


def test_korean_has_limits_of_its_own() -> None:
    """Words of two or three characters are good Korean; Gopher's three to ten would drop them."""
    text = "나는 그 집에 갔다. " + " ".join(KOREAN[:3])
    assert judge(text, "ko") == ""
    assert judge(text, "ko", "ko.min_mean_word=5") == "mean word length"


def test_korean_between_english_is_no_list_of_nouns() -> None:
    for n in range(20):
        assert judge(f"{ENGLISH[n]}\n{ENGLISH[n + 1]}\n{KOREAN[n]}") == ""


def test_accents_of_other_languages_are_no_mojibake() -> None:
    french = (
        "La région a été créée après la guerre, où l'élève âgé aperçut une île très éloignée. "
        "Le maître du château, né à Orléans, espère être prêt dès la fête de Noël. "
    )
    german = (
        "Für die Straße über die Flüsse wären größere Brücken nötig, aber die Gemeinde hätte das "
        "nicht bezahlen können, und so müssen die Leute weiter mit der Fähre übersetzen. "
    )
    vietnamese = "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi. "
    for text in (french, german, vietnamese):
        assert judge(text) == "", text
        assert judge(text.encode().decode("latin-1")) == "odd characters", text


def test_rules_off_lets_everything_through() -> None:
    for _, text in synthetic_junk.documents(3):
        assert judge(text, "", "rules=off") == ""


@pytest.mark.parametrize("kind", synthetic_junk.KINDS)
def test_synthetic_junk_is_dropped(kind: str) -> None:
    texts = [normalize(synthetic_junk.make(kind, n, seed=11), Counter()) for n in range(40)]
    assert sum(bool(judge(text)) for text in texts) >= 38
    # and where a person has said what language all of it is in
    assert sum(bool(judge(t, ("en", "ko")[n % 2])) for n, t in enumerate(texts)) >= 38


def test_junk_is_the_same_for_the_same_seed() -> None:
    assert list(synthetic_junk.documents(2, seed=4)) == list(synthetic_junk.documents(2, seed=4))
    assert list(synthetic_junk.documents(2, seed=4)) != list(synthetic_junk.documents(2, seed=5))


def test_what_is_decided_does_not_depend_on_what_came_before() -> None:
    screen = DocumentFilter(CleaningSettings())
    texts = [d.text for d in islice(generate(3), 30)] + [
        text for _, text in synthetic_junk.documents(6)
    ]
    forwards = [screen.judge(Document(text)) for text in texts]
    backwards = [screen.judge(Document(text)) for text in reversed(texts)]
    assert forwards == backwards[::-1] == [judge(text) for text in texts]
