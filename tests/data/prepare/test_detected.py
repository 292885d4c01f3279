"""Languages that nobody names: detected and marked where two have more than 1 % of the text."""

from __future__ import annotations

from pathlib import Path

import pytest

from holo_cli.data.dataset import PreparedData
from holo_cli.data.prepare.prepare import prepare
from holo_cli.data.splitting import DocumentStats, languages_in
from holo_cli.errors import UsageError
from tests.data.prepared import corpus

ENGLISH = "The keeper of the lighthouse would not have gone there with them in the storm. "
KOREAN = "등대지기가 등불을 켜자 배들이 하나씩 항구로 돌아왔다. "


def write(path: Path, *documents: str) -> str:
    path.write_text("\n\n\n".join(documents), encoding="utf-8")
    return str(path)


def test_two_languages_are_marked_by_default(source: Path, tmp_path: Path) -> None:
    prepare(source=str(source), out=tmp_path / "s", tokenizer="bpe", vocab_size=300)
    data = PreparedData.open(tmp_path / "s")
    assert data.has_markers
    assert data.languages.keys() == {"en", "ko"}
    named = tmp_path / "named"
    prepare(source=str(source), out=named, tokenizer="bpe", vocab_size=300, lang=["en", "ko"])
    assert PreparedData.open(named).fingerprint == data.fingerprint  # as with --lang


def test_one_language_and_traces_of_another_are_not_marked(tmp_path: Path) -> None:
    rows = [ENGLISH * 9 for _ in range(150)]
    for name, more in (("one", []), ("trace", [KOREAN])):
        source = write(
            tmp_path / f"{name}.txt", *(f"{n} {row}" for n, row in enumerate(rows)), *more
        )
        prepare(source=source, out=tmp_path / name, tokenizer="bpe", vocab_size=300)
        data = PreparedData.open(tmp_path / name)
        assert not data.has_markers
        assert data.languages.keys() == {""}


def test_the_share_is_of_the_characters() -> None:
    def stats(language: str, detected: str, characters: int) -> DocumentStats:
        return DocumentStats(0.5, characters, language, "", detected=detected)

    assert languages_in([stats("", "en", 980), stats("", "ko", 20)]) == {"en", "ko"}
    assert languages_in([stats("", "en", 990), stats("", "ko", 10)]) == set()
    assert languages_in([stats("en", "", 995), stats("ko", "", 5)]) == {"en", "ko"}
    assert languages_in([stats("en", "", 995), stats("", "fr", 50)]) == {"en", "fr"}
    assert languages_in([stats("en", "", 995), stats("", "", 50)]) == {"en"}


def test_a_given_tokenizer_stays_the_same(source: Path, tmp_path: Path) -> None:
    english = write(tmp_path / "en.txt", *(f"{n} {ENGLISH}" * 4 for n in range(60)))
    prepare(source=english, out=tmp_path / "en", tokenizer="bpe", vocab_size=300)
    prepare(source=str(source), out=tmp_path / "both", tokenizer=str(tmp_path / "en"))
    first, second = (PreparedData.open(tmp_path / name) for name in ("en", "both"))
    assert second.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert not second.has_markers
    # one with markers marks what it can
    prepare(source=str(source), out=tmp_path / "marked", tokenizer="bpe", vocab_size=300)
    source.write_text(corpus(90), encoding="utf-8")
    prepare(source=str(source), out=tmp_path / "more", tokenizer=str(tmp_path / "marked"))
    assert PreparedData.open(tmp_path / "more").has_markers
    prepare(source=english, out=tmp_path / "single", tokenizer=str(tmp_path / "marked"))
    single = PreparedData.open(tmp_path / "single")
    assert (
        single.tokenizer.fingerprint == PreparedData.open(tmp_path / "more").tokenizer.fingerprint
    )
    assert single.has_markers
    assert single.languages.keys() == {"en"}
    assert int(single.split("train")[0][0]) == single.tokenizer.marker("en")


def test_the_marker_can_be_encoded(source: Path, tmp_path: Path) -> None:
    prepare(source=str(source), out=tmp_path / "s", tokenizer="bpe", vocab_size=300)
    tokenizer = PreparedData.open(tmp_path / "s").tokenizer
    assert tokenizer.encode("배", lang="ko") == [
        tokenizer.specials["<|ko|>"],
        *tokenizer.encode("배"),
    ]
    with pytest.raises(UsageError, match=r"'fr'.* Its markers are: en, ko\."):
        tokenizer.encode("mer", lang="fr")
