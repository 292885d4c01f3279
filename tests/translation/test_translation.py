"""Templates are matched, filled and left alone as they should be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holo_cli import translation
from holo_cli.translation import PLACEHOLDER, Catalogue, _Template, language, translate
from holo_cli.translation.particles import with_particle


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(
        {
            "Random seed.": "난수 시드.",
            "Error: {0}": "오류: {0}",
            "No run named {0}.": "{0} 실행이 없습니다.",
            "No run named {0} in {1}.": "{1}에 {0:이라} 불리는 실행이 없습니다.",
            "{0} steps": "{0} 스텝",
            "Unknown key '{0}'.": "알 수 없는 키 '{0}'.",
            "seed": "시드",
            "A run '{0}' exists.": "실행 '{0}'이(가) 있습니다.",
            "{0} exists.": "{0:이} 있습니다.",
            "{0} to {1}": "{0}~{1}",
            "{0} entries at {1} sizes of {2}": "{2}: 항목 {0}개, 크기 {1}개",
        }
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Random seed.", "난수 시드."),
        ("  Random seed.\n", "  난수 시드.\n"),
        ("No run named x.", "x 실행이 없습니다."),
        # the template with more letters of its own wins, and the order of placeholders may change
        ("No run named 나무 in runs.", "runs에 나무라 불리는 실행이 없습니다."),
        ("Error: No run named x.", "오류: x 실행이 없습니다."),
        ("Error: other", "오류: other"),
        ("Random seed.\n12 steps\nfoo", "난수 시드.\n12 스텝\nfoo"),
        ("Unknown key 'seed'.", "알 수 없는 키 'seed'."),
        # a template with a noun in the plural fits the singular too
        ("1 step", "1 스텝"),
        # a template of a number and its unit takes no part of a sentence
        ("Of 3 steps", "Of 3 steps"),
        # the facts of a line, apart by two spaces; a word alone is a name
        ("  seed   12 steps  ngt", "  seed   12 스텝  ngt"),
        # sentences come before a template whose value would hold the end of one
        ("No run named x. Random seed.", "x 실행이 없습니다. 난수 시드."),
        ("1 entry at 3 sizes of a", "a: 항목 1개, 크기 3개"),
        ("2 entries at 1 size of a", "a: 항목 2개, 크기 1개"),
        ("1 entry at 1 size of a", "a: 항목 1개, 크기 1개"),
        # the kind of a line of stderr is no part of what its message inserts
        ("Error: A run 'x' exists.", "오류: 실행 'x'이(가) 있습니다."),
        # a template of few letters takes terms, not sentences
        ("2 to 3.5 MB", "2~3.5 MB"),
        ("Once upon a time to come", "Once upon a time to come"),
        # a value does not reach over several lines
        ("No run named x.\nfoo in y.", "x 실행이 없습니다.\nfoo in y."),
        # facts joined by commas, if each is known, a name or a number
        ("a.bin, 3 steps", "a.bin, 3 스텝"),
        ("a.bin, 3 steps, of no use", "a.bin, 3 steps, of no use"),
        ("coords, seed", "coords, seed"),
        ("(3 steps)", "(3 스텝)"),
        # commands to type stay
        ("  $ holo 2 to 3", "  $ holo 2 to 3"),
        ("A text of the user's.", "A text of the user's."),
        ("", ""),
    ],
)
def test_templates(catalogue: Catalogue, text: str, expected: str) -> None:
    assert catalogue.translate(text) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko_KR.UTF-8", "HOLO_LANG": "en"}, "en"),
        ({"HOLO_LANG": "ko"}, "ko"),
        ({"HOLO_LANG": "KO"}, "ko"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "kok_IN"}, "en"),  # Konkani
        ({"HOLO_LANG": "nonsense"}, "en"),
    ],
)
def test_language(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], expected: str) -> None:
    for name in ("HOLO_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert language() == expected


def test_english_reads_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_LANG", "en")
    monkeypatch.setattr(translation, "_catalogue", None)  # would raise if it were called
    assert translate("Options:") == "Options:"


@pytest.mark.parametrize(
    ("text", "particle", "expected"),
    [
        ("모델", "은", "모델은"),
        ("나무", "은", "나무는"),
        ("'모델'", "을", "'모델'을"),
        ("길", "으로", "길로"),
        ("집", "으로", "집으로"),
        ("2", "이", "2가"),
        ("10", "이", "10이"),
        ("7", "으로", "7로"),
        ("ngt", "은", "ngt은(는)"),
        ("", "을", "을(를)"),
    ],
)
def test_particles(text: str, particle: str, expected: str) -> None:
    assert with_particle(text, particle) == expected


def test_the_variable_is_no_config_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other HOLO_* name is read as a config key, and an unknown one refused."""
    from holo_cli.config.resolve import resolve

    monkeypatch.setenv("HOLO_LANG", "ko")
    assert resolve("vanilla", "tiny").model.layers > 0


def test_a_command_in_korean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from holo_cli.__main__ import main

    monkeypatch.setenv("HOLO_LANG", "ko")
    assert main(["prepare", "nosuchset"]) == 2
    assert capsys.readouterr().err.startswith("오류: ")


def test_what_was_translated_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of results has the same few words in thousands of cells."""
    made = Catalogue({"loss": "손실", "{0} steps": "{0}스텝"})
    asked: list[str] = []
    plain = made._translated
    monkeypatch.setattr(
        made, "_translated", lambda text, depth: asked.append(text) or plain(text, depth)
    )
    monkeypatch.setattr("holo_cli.translation.MOST_KNOWN", 3)
    for _ in range(3):
        assert made.translate("loss") == "손실"
    assert asked == ["loss"]
    for number in range(9):  # more than are remembered
        assert made.translate(f"{number} steps") == f"{number}스텝"
    assert len(made._known) <= 3


class SlowCatalogue(Catalogue):
    """Tries every template on every text."""

    def candidates(self, body: str) -> Iterator[_Template]:
        return iter(self.templates)


VALUES = ("", "3", "runs/a b", "No run named x.", "나무\n", "{0}", "ab")


def test_every_template_is_a_candidate_for_the_texts_it_makes() -> None:
    known = translation._catalogue("ko")
    order = {id(template): place for place, template in enumerate(known.templates)}
    for template in known.templates:
        for first, value in enumerate(VALUES):
            text = PLACEHOLDER.sub(lambda m, at=first: VALUES[(at + int(m[1])) % 7], template.key)
            for body in (text, f"{value}, {text}", f"{text} {value}"):
                found = list(known.candidates(body))
                assert template in found, (template.key, body)
        places = [order[id(one)] for one in found]
        assert places == sorted(set(places))
    assert len(found) < len(order) / 10


def test_the_index_changes_no_translation() -> None:
    known = translation._catalogue("ko")
    slow = SlowCatalogue(known.entries)
    for place, key in enumerate(known.entries):
        if place % 25 == 0:  # the slow way takes its time
            text = PLACEHOLDER.sub(lambda m, at=place: VALUES[(at + int(m[1])) % 7], key)
            assert known.translate(text) == slow.translate(text), text
